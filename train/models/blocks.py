"""The repeated blocks of a network, which are compiled, recomputed or sharded one by one."""

from torch import nn

BLOCKS = {
    "ASTLayer",
    "BertLayer",
    "ClapAudioLayer",
    "ClapTextLayer",
    "ConvBlock",
    "InvertedResidual",
    "ModernBertEncoderLayer",
    "PeAudioEncoderLayer",
    "RobertaLayer",
    "TransformerDecoderLayer",
}


def blocks(network: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of a network, outermost only: convolution blocks of encoders, layers of transformers."""
    found: list[nn.Module] = []
    for name, module in network.named_modules():
        inside = any(module is part for block in found for part in block.modules())
        if not inside and type(module).__name__ in BLOCKS:
            assert name, "the network is no block of itself"
            found.append(module)
    return found

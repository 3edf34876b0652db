"""State dicts under the names of the released files, as their specification lists them: seeded numbers, a narrow CNN."""

import json
import math
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as nnf

CHANNELS = (8,) * 6
WIDTH = CHANNELS[-1]
FRONT_END_AND_HEAD = (
    "spectrogram_extractor.stft.conv_real.weight",
    "spectrogram_extractor.stft.conv_imag.weight",
    "logmel_extractor.melW",
    "fc_audioset.weight",
    "fc_audioset.bias",
)
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "bark", "##s", "rain", "falls")
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.proof}",)


def body() -> dict[str, torch.Tensor]:
    """The tensors that PANNs' and BLAT's CNN14 share, by the names of the specification; its outputs depend on the audio."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * math.sqrt(2 / math.prod(shape[1:]))

    def norm(name: str, size: int, mean: float = 0.0, var: float = 1.0) -> dict[str, torch.Tensor]:
        values = (
            1.0 + 0.2 * torch.rand(size, generator=generator),
            0.2 * torch.randn(size, generator=generator),
            mean + 0.1 * torch.randn(size, generator=generator),
            var * (1.0 + 0.2 * torch.rand(size, generator=generator)),
            torch.tensor(7),
        )
        return {f"{name}.{part}": value for part, value in zip(NORM, values, strict=True)}

    state = norm("bn0", 64, mean=-40.0, var=400.0)  # log-mels of noise, in dB
    for i, (below, size) in enumerate(zip((1, *CHANNELS[:-1]), CHANNELS, strict=True), start=1):
        state[f"conv_block{i}.conv1.weight"] = draw(size, below, 3, 3)
        state[f"conv_block{i}.conv2.weight"] = draw(size, size, 3, 3)
        state |= norm(f"conv_block{i}.bn1", size) | norm(f"conv_block{i}.bn2", size)
    return state | {"fc1.weight": draw(WIDTH, WIDTH), "fc1.bias": torch.full((WIDTH,), 0.1)}


def official_embedding(state: dict[str, torch.Tensor], waveform: torch.Tensor) -> torch.Tensor:
    """Return the clip embeddings (B, D) of the published CNN14 for float clips (B, T) of one length, as its paper has it.

    Nothing of this repository computes here: torchlibrosa makes the log-mels, and every frame that is pooled counts.

    Raises:
        RuntimeError: for fewer than 9,920 samples, as the released code does: the last pooling finds a single frame.
    """
    from torchlibrosa.stft import LogmelFilterBank, Spectrogram

    power = Spectrogram(n_fft=1024, hop_length=320, win_length=1024)(waveform)
    bank = LogmelFilterBank(sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000, ref=1.0, amin=1e-10, top_db=None)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", *NORM[:2]))
        return nnf.batch_norm(x, mean, var, weight, bias)

    x = norm(bank(power).transpose(1, 3), "bn0").transpose(1, 3)  # (B, 1, F, M)
    for block in range(1, len(CHANNELS) + 1):
        for layer in (1, 2):
            x = nnf.conv2d(x, state[f"conv_block{block}.conv{layer}.weight"], padding=1)
            x = norm(x, f"conv_block{block}.bn{layer}").relu()
        if block < len(CHANNELS):
            x = nnf.avg_pool2d(x, 2)
    frames = x.mean(dim=3)  # (B, D, S)
    return nnf.linear(frames.amax(dim=2) + frames.mean(dim=2), state["fc1.weight"], state["fc1.bias"]).relu()


def front_end() -> dict[str, torch.Tensor]:
    """What a PANNs file holds beyond the body: front end and AudioSet head."""
    return {name: torch.rand(2, 2) for name in FRONT_END_AND_HEAD}


def blat_state(hidden: int, layers: int, vocab: int, inner: int) -> dict[str, torch.Tensor]:
    """`blat_cnn14_bertm.pth` by the names of the specification, with a narrow CNN and a text tower of any size."""
    state = {f"audio_encoder.{name}": tensor for name, tensor in body().items()}
    state["audio_encoder.melspec_extractor.spectrogram.window"] = torch.hann_window(1024)
    state["audio_encoder.melspec_extractor.mel_scale.fb"] = torch.rand(513, 64)
    bert = "text_encoder.model.embeddings"
    for name, rows in (("word", vocab), ("position", 512), ("token_type", 2)):
        state[f"{bert}.{name}_embeddings.weight"] = torch.randn(rows, hidden)
    state |= {f"{bert}.LayerNorm.{part}": torch.randn(hidden) for part in ("weight", "bias")}
    linears = {
        "attention.self.query": (hidden, hidden), "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden), "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden), "output.dense": (hidden, inner),
    }  # fmt: skip
    for layer in range(layers):
        prefix = f"text_encoder.model.encoder.layer.{layer}"
        for name, shape in linears.items():
            state |= {f"{prefix}.{name}.weight": torch.randn(shape), f"{prefix}.{name}.bias": torch.randn(shape[0])}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            state |= {f"{prefix}.{name}.{part}": torch.randn(hidden) for part in ("weight", "bias")}
    for name, shape in {"text_encoder.model.pooler.dense": (hidden, hidden), "audio_proj": (1024, WIDTH)}.items():
        state |= {f"{name}.weight": torch.randn(shape), f"{name}.bias": torch.randn(shape[0])}
    state |= {"text_proj.weight": torch.randn(1024, hidden), "text_proj.bias": torch.randn(1024)}
    return state | {"logit_scale": torch.tensor(3.0)}


def captioner_state(words: int, bias: bool, tags: int) -> dict[str, torch.Tensor]:
    """A captioner of wsntxxn/AudioCaption by the names of the specification: what is trained, and no CNN."""
    dim, wide = 256, 2 * 256
    state: dict[str, torch.Tensor] = {}
    for layer, below in enumerate((WIDTH, wide, wide)):
        for way in ("", "_reverse"):
            rnn = f"encoder.rnn.network.{{}}_l{layer}{way}".format
            state |= {rnn("weight_ih"): torch.randn(768, below), rnn("weight_hh"): torch.randn(768, 256)}
            state |= {rnn("bias_ih"): torch.randn(768), rnn("bias_hh"): torch.randn(768)}
    state["decoder.word_embedding.weight"] = torch.randn(words, dim)
    for layer in range(2):
        prefix = f"decoder.model.layers.{layer}"
        for name in (f"{prefix}.self_attn", f"{prefix}.multihead_attn"):
            state |= {f"{name}.in_proj_weight": torch.randn(768, dim), f"{name}.in_proj_bias": torch.randn(768)}
            state |= {f"{name}.out_proj.weight": torch.randn(dim, dim), f"{name}.out_proj.bias": torch.randn(dim)}
        state |= {f"{prefix}.linear1.weight": torch.randn(1024, dim), f"{prefix}.linear1.bias": torch.randn(1024)}
        state |= {f"{prefix}.linear2.weight": torch.randn(dim, 1024), f"{prefix}.linear2.bias": torch.randn(dim)}
        state |= {f"{prefix}.norm{i}.{part}": torch.randn(dim) for i in (1, 2, 3) for part in ("weight", "bias")}
    state |= {"decoder.attn_proj.0.weight": torch.randn(dim, wide), "decoder.attn_proj.0.bias": torch.randn(dim)}
    state |= {"decoder.attn_proj.3.weight": torch.randn(dim), "decoder.attn_proj.3.bias": torch.randn(dim)}
    state["decoder.classifier.weight"] = torch.randn(words, dim)
    if bias:
        state["decoder.classifier.bias"] = torch.randn(words)
    if tags:
        state["label_encoder.label_embedding"] = torch.randn(tags, dim)
    return state


def google_bert(folder: Path, weights: str = "pytorch_model.bin", prefix: str = "bert.") -> dict[str, torch.Tensor]:
    """Write a small BERT as Google's were converted in 2020: no model_type, no tokenizer but vocab.txt, pre-training heads.

    Returns:
        The weights of the bare encoder, by the names of today's BertModel.
    """
    from transformers import BertConfig, BertForPreTraining

    described = {
        "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 16,
        "initializer_range": 0.02, "intermediate_size": 32, "max_position_embeddings": 512, "num_attention_heads": 2,
        "num_hidden_layers": 2, "type_vocab_size": 2, "vocab_size": len(PIECES),
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    torch.manual_seed(0)
    state = BertForPreTraining(BertConfig(**described)).state_dict()
    renamed = {prefix + name.removeprefix("bert.") if name.startswith("bert.") else name: state[name] for name in state}
    if weights.endswith(".bin"):
        torch.save(renamed, folder / weights)
    else:
        save_file({name: tensor.clone() for name, tensor in renamed.items()}, folder / weights)
    return {name.removeprefix("bert."): tensor for name, tensor in state.items() if name.startswith("bert.")}

"""Text tower: any BERT-like encoder of `transformers` by name or folder, or a small one with a WordPiece of the captions.

Shapes: B = captions, L = tokens, D = hidden size.
"""

import pickle
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

from train.models.configs import TextConfig
from train.models.pieces import TrainPieces, train_pieces

if TYPE_CHECKING:  # it takes seconds to import, and a captioner never needs it
    from transformers import PretrainedConfig

PAD, UNK, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
BERT_FIELDS = (  # of a config.json in Google's layout of 2018, which names no model_type
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "type_vocab_size",
    "vocab_size",
)


class TextTower(nn.Module):
    """Captions -> tokens -> one embedding each."""

    frozen = False
    embedding_dim: int  # D

    def freeze(self) -> Self:
        """Fix the weights for good, and leave dropout out."""
        self.frozen = True
        self.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set train or eval mode; a frozen tower stays in eval mode."""
        return super().train(mode and not self.frozen)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Map ids (B, L) and their mask (B, L) to (B, D)."""
        raise NotImplementedError

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask, both (B, L). Threads may call it at the same time."""
        raise NotImplementedError


class TextEncoder(TextTower):
    """A BERT-like encoder."""

    def __init__(self, config: TextConfig, architecture: "PretrainedConfig", tokenizer: Tokenizer) -> None:
        from transformers import AutoModel

        super().__init__()
        self.config, self.architecture, self.tokenizer = config, architecture, tokenizer
        self.embedding_dim = int(architecture.hidden_size)
        self.model = AutoModel.from_config(architecture)
        pooler = getattr(self.model, "pooler", None)
        if pooler is not None:
            pooler.requires_grad_(False)  # nothing uses it, and a gradient that never comes stalls distributed training

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Map ids (B, L) and their mask (B, L) to (B, D)."""
        state: Tensor = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        if self.config.pooling == "cls":
            return state[:, 0]
        return (state * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask, both (B, max_tokens): one width, so that a text gets the same embedding in every batch."""
        encodings = self.tokenizer.encode_batch(list(texts))
        return torch.tensor([e.ids for e in encodings]), torch.tensor([e.attention_mask for e in encodings])


def build(config: TextConfig, captions: Iterable[str] = (), tokenizer: Tokenizer | None = None) -> TextEncoder:
    """Make the tower to train: pretrained weights where the config names some, else fresh ones.

    Args:
        config: see `TextConfig`.
        captions: a tokenizer is trained on them where the config names no encoder and there is no `tokenizer`.
        tokenizer: that `build_tokenizer` made before.

    Raises:
        ValueError: when the named encoder cannot be used; says what is missing.
    """
    if config.name:
        encoder = TextEncoder(config, *pretrained(config))
        encoder.model.load_state_dict(_weights(config.name, encoder.architecture))
        return encoder
    tokenizer = tokenizer or build_tokenizer(captions, config)
    architecture = {
        "model_type": "bert",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": config.hidden_dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": 4 * config.hidden_dim,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
    }
    return restore(config, architecture, tokenizer)


def restore(config: TextConfig, architecture: dict[str, Any], tokenizer: Tokenizer) -> TextEncoder:
    """Make the tower a checkpoint describes, with fresh weights and without looking anything up."""
    from transformers import AutoConfig

    return TextEncoder(config, AutoConfig.for_model(**architecture), tokenizer)


def pretrained(config: TextConfig) -> "tuple[PretrainedConfig, Tokenizer]":
    """Return architecture and tokenizer of the named encoder.

    A folder or repository in Google's BERT layout is read too: config.json with BERT's fields and no model_type, and
    vocab.txt as the tokenizer, which lower-cases.

    Raises:
        ValueError: when there is no such encoder here or on the hub, or it has no fast tokenizer or no hidden_size; says
            what is missing.
    """
    try:
        architecture, wrapped = _released(config.name)
    except (OSError, ValueError) as error:
        raise ValueError(str(error).strip().partition("\n")[0]) from error
    if not hasattr(architecture, "hidden_size") or not getattr(wrapped, "is_fast", False) or not wrapped.pad_token:
        raise ValueError("not a BERT-like encoder with a fast tokenizer that pads")
    if len(wrapped) <= len(
        wrapped.all_special_tokens
    ):  # transformers makes such a tokenizer where the files are missing
        raise ValueError("it has no tokenizer: neither tokenizer.json nor vocab.txt holds words")
    tokenizer: Tokenizer = wrapped.backend_tokenizer
    fix_length(tokenizer, config.max_tokens, wrapped.pad_token)
    return architecture, tokenizer


def _released(name: str) -> tuple[Any, Any]:
    """Return architecture and tokenizer as `transformers` has them; raises its OSError and ValueError."""
    from transformers import AutoConfig, AutoTokenizer, BertConfig, BertTokenizer, PreTrainedConfig

    described, _ = PreTrainedConfig.get_config_dict(name)
    if "model_type" in described:
        return AutoConfig.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    if not described:
        raise ValueError("it has no config.json")
    if missing := [field for field in BERT_FIELDS if field not in described]:
        raise ValueError(f"its config.json has no model_type, nor BERT's {', '.join(missing)}")
    return BertConfig.from_dict(described), BertTokenizer.from_pretrained(name)


def _weights(name: str, architecture: "PretrainedConfig") -> dict[str, Tensor]:
    """Return the released weights by the names of the bare encoder; a .bin file is read with `weights_only=True`."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # heads are not loaded, without a warning; missing weights are an error below
    try:
        model, report = AutoModel.from_pretrained(
            name, config=architecture, output_loading_info=True, ignore_mismatched_sizes=True, weights_only=True
        )
    except OSError as error:
        raise ValueError(str(error).strip().partition("\n")[0]) from error
    except (RuntimeError, SafetensorError, pickle.UnpicklingError) as error:  # a message may suggest unsafe loading
        raise ValueError("its weights file is damaged or holds something other than weights, and is refused") from error
    absent = {key for key in report["missing_keys"] if not key.startswith("pooler.")}  # nothing uses the pooler
    if wrong := sorted(absent | {key for key, *_ in report["mismatched_keys"]}):
        raise ValueError(
            f"{len(wrong)} of the weights in its config.json are missing or differ in shape: {wrong[0]}, ..."
        )
    state: dict[str, Tensor] = model.state_dict()
    return state


def fix_length(tokenizer: Tokenizer, max_tokens: int, pad: str) -> None:
    """Make a tokenizer cut and pad to one length; it keeps this in its file."""
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad, length=max_tokens)


def build_tokenizer(texts: Iterable[str], config: TextConfig, train: TrainPieces = train_pieces) -> Tokenizer:
    """Train a lower-casing WordPiece tokenizer; the same texts give the same ids in every process."""
    splitter, normalizer = pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=True)
    words = ([word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))] for text in texts)
    ids = {piece: i for i, piece in enumerate(train(words, (PAD, UNK, CLS, SEP), config.vocab_size))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=UNK))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    specials = [(name, ids[name]) for name in (CLS, SEP)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{CLS} $A {SEP}", special_tokens=specials)
    fix_length(tokenizer, config.max_tokens, PAD)
    return tokenizer

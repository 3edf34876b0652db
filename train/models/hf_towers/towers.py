"""What all two towers of transformers share.

The front end, its rate, the padding of short clips, the tokenizer and the scale are those of the model's own processor. The
folder that `HfTowers.save` writes is again one that transformers loads.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as nnf

from train.models.clap import TwoTowers
from train.models.configs import HfTowersConfig
from train.models.text import TextTower

NOT_POLICY = ("processor_class", "feature_extractor_type", "nb_frequency_bins")
DAMAGED = (
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    KeyError,
)  # what transformers raises for files that it cannot read


class HfTextTower(TextTower):
    """A text tower of transformers with the tokenizer of its processor; of a ClapModel, its pooled state."""

    def __init__(self, model: Any, wrapped: Any, max_tokens: int, embedding_dim: int) -> None:
        super().__init__()
        self.model, self.embedding_dim = model, embedding_dim
        self.tokenizer = Tokenizer.from_str(wrapped.backend_tokenizer.to_str())
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.no_padding()
        self.pad, self.left = int(wrapped.pad_token_id), wrapped.padding_side == "left"

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Map ids (B, L) and their mask (B, L) to (B, D)."""
        pooled: Tensor = self.model(input_ids=tokens, attention_mask=mask).pooler_output
        return pooled

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask, both (B, L), padded to the longest text as the processor does."""
        ids = [torch.tensor(encoding.ids) for encoding in self.tokenizer.encode_batch(list(texts))]
        side = "left" if self.left else "right"
        tokens = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.pad, padding_side=side)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True, padding_side=side)
        return tokens, mask


class HfTowers(TwoTowers):
    """A model of transformers, its parts taken apart into towers and projections."""

    config: HfTowersConfig

    def __init__(self, config: HfTowersConfig, architecture: Any, processor: Any) -> None:
        """Take the config of ours, that of transformers, and what `save` writes beside the weights."""
        super().__init__()
        self.config, self.architecture, self.processor = config, architecture, processor

    @staticmethod
    def unit(vectors: Tensor) -> Tensor:
        """Scale rows to length 1, as transformers does."""
        return nnf.normalize(vectors.float(), dim=-1)

    @abstractmethod
    def whole(self) -> Any:
        """Return the model of transformers with the weights of the towers."""

    def save(self, folder: Path) -> None:
        """Write the model and its processor as transformers does."""
        whole = self.whole()
        weights = {name: tensor.detach().contiguous().cpu() for name, tensor in whole.state_dict().items()}
        quiet()
        whole.save_pretrained(folder, state_dict=weights)
        self.processor.save_pretrained(folder)


def read_weights(architecture: Any, folder: Path, config: Any) -> Any:
    """Return a class of transformers with the weights of a folder, float32. It runs no code of the folder.

    Raises:
        ValueError: when weights are missing or differ in shape, and as `DAMAGED` what transformers raises.
    """
    model, report = architecture.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        weights_only=True,
    )
    if wrong := sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}):
        raise ValueError(f"{len(wrong)} of its weights are missing or differ in shape: {wrong[0]}, ...")
    return model


def check_tokenizer(tokenizer: Any) -> None:
    """Raise ValueError when a tokenizer is not one to train and to search with."""
    if not getattr(tokenizer, "is_fast", False) or tokenizer.pad_token_id is None:
        raise ValueError("its tokenizer is not a fast one that pads")
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers makes one where the files are missing
        raise ValueError("it has no tokenizer: tokenizer.json or vocab.json is missing")


def stated(processor: Any) -> dict[str, Any]:
    """Return what `HfTowersConfig.processor` keeps of a processor."""
    extractor = processor.feature_extractor.to_dict()
    policy = {name: value for name, value in extractor.items() if name not in NOT_POLICY}
    return {**policy, "tokenizer": type(processor.tokenizer).__name__}


def quiet() -> None:
    """Keep transformers from logging what is missing, which is an error here, and from drawing bars."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()

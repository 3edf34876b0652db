"""Text tower: a BERT over WordPiece, and a WordPiece built from the training captions where no pretrained one is used.

Shapes: B = captions, L = tokens, D = hidden size.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

PAD, UNK, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text tower. The defaults are bert-medium's, BLAT's choice."""

    hidden_dim: int = 512
    """Width."""
    layers: int = 8
    """Transformer layers."""
    heads: int = 8
    """Attention heads."""
    max_tokens: int = 30
    """Captions are cut to this many tokens, [CLS] and [SEP] included."""
    dropout: float = 0.1
    """Dropout of states and attention."""


class TextEncoder(nn.Module):
    """Token ids -> the last layer's [CLS] state."""

    def __init__(self, config: TextConfig, vocab_size: int) -> None:
        from transformers import BertConfig, BertModel  # seconds to import, and a captioner never needs it

        super().__init__()
        self.embedding_dim = config.hidden_dim
        bert = BertConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_dim,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.hidden_dim,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
        )
        self.model = BertModel(bert, add_pooling_layer=False)  # an unused pooler would stall distributed training

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Map ids (B, L) and their mask (B, L) to (B, D)."""
        state: Tensor = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        return state[:, 0]


def build_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Make a lower-casing WordPiece tokenizer of the most frequent words, with characters for all others.

    The same texts give the same ids in every process: ranks and resumed runs build it again. (The tokenizers library's own
    trainer breaks ties in another order each time.)
    """
    splitter = pre_tokenizers.BertPreTokenizer()
    normalizer = normalizers.BertNormalizer(lowercase=True)
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    characters = sorted({character for word in words for character in word})
    pieces = [PAD, UNK, CLS, SEP, *characters, *(f"##{character}" for character in characters)]
    pieces += [word for word, _ in sorted(words.items(), key=lambda item: (-item[1], item[0])) if len(word) > 1]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces[:vocab_size])}, unk_token=UNK))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    ids = [(name, tokenizer.token_to_id(name)) for name in (CLS, SEP)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{CLS} $A {SEP}", special_tokens=ids)
    return tokenizer


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask, both (B, max_tokens): one width for every batch, so that a batch gives what single texts give."""
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD, length=max_tokens)
    encodings = tokenizer.encode_batch([text.lower() for text in texts])
    return torch.tensor([e.ids for e in encodings]), torch.tensor([e.attention_mask for e in encodings])

"""Hard negatives of a batch: to the text of each clip a wrong one that differs from it as little as possible.

`order` swaps the events of a caption. `absence` first replaces a share of the captions by statements on the clips' tags,
"rain and bell" or "rain without siren"; their hard negatives are statements of the same form with a sound that is absent
in the place of a present one, or the reverse. Words of negation thus occur as often in right texts as in wrong ones. If
only wrong texts had them, the model would know a wrong text without the audio.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.sources import audioset
from train.metrics import foils
from train.metrics.foils import Statement

Kind = Literal["order", "absence"]
STATEMENT_SHARE = 0.5  # of the clips with tags, in `absence`


class HardNegatives(NamedTuple):
    """The texts of a batch."""

    texts: list[str]  # B: the captions, some of them replaced by statements
    wrong: list[str]  # B: the hard negative of each; '' where there is none
    made: Tensor  # (B,) bool: whether there is one


def draw(
    captions: Sequence[str], tags: Sequence[Sequence[str]], kinds: Collection[Kind], labels: Sequence[str], seed: int
) -> HardNegatives:
    """Make the hard negatives of a batch; the same seed gives the same.

    Args:
        captions: one of each clip.
        tags: of each clip.
        kinds: which to make.
        labels: those of all clips, without repetition, from which absent ones are drawn.
        seed: of which captions are replaced, and of the labels in statements.
    """
    rng = np.random.default_rng(seed)
    pairs: list[Statement] = []
    for caption, present in zip(captions, tags, strict=True):
        stated = None
        if "absence" in kinds and present and rng.random() < STATEMENT_SHARE:
            stated = _state(present, labels, rng)
        wrong = foils.swap_order(caption) if "order" in kinds else None
        pairs.append(stated or Statement(caption, wrong or ""))
    texts, wrongs = ([pair[i] for pair in pairs] for i in (0, 1))
    return HardNegatives(texts, wrongs, torch.tensor([bool(wrong) for wrong in wrongs]))


def statement_words(labels: Sequence[str]) -> Iterator[str]:
    """Yield texts that hold all words of statements, for a tokenizer that is trained on the texts of a run."""
    for label in labels:
        text = audioset.label_text(label)
        yield from (*foils.presence(text, text, text), *foils.negation(text, text, text), *foils.negation(text, text))


def _state(tags: Sequence[str], labels: Sequence[str], rng: np.random.Generator) -> Statement | None:
    """Draw a statement on a clip's tags, with its wrong form; None where no label is absent."""
    absent = foils.draw_absent(labels, tags, rng)
    if absent is None:
        return None
    first, *others = (audioset.label_text(tags[i]) for i in rng.permutation(len(tags)))
    form = foils.negation if rng.random() < 0.5 else foils.presence
    return form(first, audioset.label_text(absent), others[0] if others else "")

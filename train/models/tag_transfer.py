"""Zero-shot without training: a tagger's probabilities, carried to class names by the similarity of the words.

What a model that is trained on a tagger's tags has to beat. Shapes: K = tags, C = classes.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as nnf

from train.models import text
from train.models.configs import TextConfig
from train.models.text import TextEncoder

Over = Literal["classes", "tags"]
SHARPNESS: dict[Over, float] = {  # of the softmax, by what it runs over
    "classes": 8.0,  # a tag speaks for the names it is close to, a little for all others
    "tags": 16.0,  # a class is an average of the tags it is close to
}


def open_text(name: str) -> TextEncoder:
    """Return a pretrained text encoder, mean-pooled, by name or folder. Raises ValueError when there is none."""
    config = TextConfig(name=name, pooling="mean")
    text.pretrained(config)
    return text.build(config, ()).eval()


def weights(encoder: TextEncoder, tags: Sequence[str], classes: Sequence[str], over: Over = "classes") -> np.ndarray:
    """Return how much each tag speaks for each class, (C, K): a softmax of the cosines of their names.

    Over classes, a column sums to 1: a tag is shared among the classes, and one that is close to none is shared evenly.
    Over tags, a row sums to 1: a class is scored by the tags it is close to, and the other tags do not count.
    """
    cosines = _embed(encoder, classes) @ _embed(encoder, [name.lower() for name in tags]).T
    return (SHARPNESS[over] * cosines).softmax(dim=0 if over == "classes" else 1).numpy()


@torch.no_grad()
def _embed(encoder: TextEncoder, texts: Sequence[str]) -> torch.Tensor:
    parts = [encoder(*encoder.tokenize(texts[i : i + 256])) for i in range(0, len(texts), 256)]
    return nnf.normalize(torch.cat(parts), dim=1)

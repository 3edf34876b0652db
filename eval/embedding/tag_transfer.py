"""Zero-shot without training: a tagger's probabilities, carried to class names by the similarity of the words.

What a model that is trained on a tagger's tags has to beat. Shapes: K = tags, C = classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as nnf

from train.models import text
from train.models.configs import TextConfig
from train.models.text import TextEncoder

SHARPNESS = 8.0  # of the softmax over classes: a tag speaks for the names it is close to, a little for all others


def open_text(name: str) -> TextEncoder:
    """Return a pretrained text encoder, mean-pooled, by name or folder. Raises ValueError when there is none."""
    config = TextConfig(name=name, pooling="mean")
    text.pretrained(config)
    return text.build(config, ()).eval()


def weights(encoder: TextEncoder, tags: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Return how much each tag speaks for each class, (C, K): a softmax over classes of the cosines of their names."""
    cosines = _embed(encoder, classes) @ _embed(encoder, [name.lower() for name in tags]).T
    return (SHARPNESS * cosines).softmax(dim=0).numpy()


@torch.no_grad()
def _embed(encoder: TextEncoder, texts: Sequence[str]) -> torch.Tensor:
    parts = [encoder(*encoder.tokenize(texts[i : i + 256])) for i in range(0, len(texts), 256)]
    return nnf.normalize(torch.cat(parts), dim=1)

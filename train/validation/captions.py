"""Captions of held-out clips while training, every rank its share, scored by CIDEr-D.

CIDEr-D is pycocoevalcap's, over our PTB words: the number that `python -m eval captioning` gives for the same captions.
"""

from collections.abc import Collection, Sequence

import torch
from torch import nn

from pipeline import audio, sources
from pipeline.errors import InputError
from train import parallel
from train.data.clip_sets import ListedClips
from train.models.captioner.decoding import Decoding
from train.models.captioner.model import TagGuidedCaptioner
from train.models.captioner.vocabulary import tokenize
from train.trainer.context import Context
from train.trainer.hooks import Validate

BATCH_SIZE = 32
MISSING = "pip install -e '.[captioning]' brings what scores captions"


def read(source: str, broken: Collection[str] = (), columns: str = "") -> ListedClips:
    """Return the captioned clips of a held-out source, without the broken ones.

    Raises:
        InputError: when it has none, or nothing can score them.
    """
    try:
        import pycocoevalcap  # noqa: F401
    except ImportError:
        raise InputError("--validation", source, MISSING) from None
    clips = ListedClips(sources.read_clips(source, flag="--validation", column_names=columns), (), broken)
    if not clips.keys:
        raise InputError("--validation", source, "none of its clips has a caption")
    return clips


def measure(clips: ListedClips, context: Context) -> Validate:
    """Return the function that captions the clips with beam 3, their tags given, and scores them; for every rank."""

    def validate(network: nn.Module) -> dict[str, float]:
        assert isinstance(network, TagGuidedCaptioner)
        own = range(context.rank, len(clips.keys), context.world_size)
        captions: dict[str, str] = {}
        for part in parallel.gather_objects(write(network, clips, own)):
            captions |= part
        return {"cider_d": cider_d([captions[key] for key in clips.keys], clips.texts)}

    return validate


@torch.no_grad()
def write(network: TagGuidedCaptioner, clips: ListedClips, rows: Sequence[int]) -> dict[str, str]:
    """Return the best caption of each of these clips by key, '' where the model has nothing to say."""
    found: dict[str, str] = {}
    for first in range(0, len(rows), BATCH_SIZE):
        batch = rows[first : first + BATCH_SIZE]
        encoded = network.encode_audio_clips([clips.samples(row) for row in batch], audio.SAMPLE_RATE_HZ)
        tags = network.multi_hot([clips.tags[row] for row in batch]).to(encoded.memory.device)
        captions = network.generate(encoded, tags, Decoding())
        found |= {clips.keys[row]: each[0].text if each else "" for row, each in zip(batch, captions, strict=True)}
    return found


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the corpus CIDEr-D (Vedantam et al. 2015), from 0 to 10, of one candidate a clip against its references."""
    from pycocoevalcap.cider.cider import Cider

    true = {i: [" ".join(tokenize(text)) for text in texts] for i, texts in enumerate(references)}
    generated = {i: [" ".join(tokenize(text))] for i, text in enumerate(candidates)}
    return float(Cider().compute_score(true, generated)[0])

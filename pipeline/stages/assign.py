"""Unlabelled clips + texts -> captions for the clips: `python -m pipeline assign --source X --texts FILE --out DIR`.

A tagger (with a sentence encoder) or a two-tower model scores how well each text fits each clip. The scores become
probabilities such that every text gets as many clips as any other, and such that clips that sound alike get alike texts.
No label is read. `train pretrain --data` takes the folder that this writes.

Shapes: N = clips, T = texts, K = tags of a tagger, E = embedding size.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline import audio, cli, run_dir, sources, storage
from pipeline.dataset import assigned
from pipeline.errors import InputError, JobError
from pipeline.progress import Progress
from pipeline.quality import assignment
from pipeline.quality.assignment import Array
from pipeline.sources.clip import Clip

if TYPE_CHECKING:
    from train.models.clap import TwoTowers
    from train.models.tagger import Tagger

log = logging.getLogger(__name__)
DECODERS = 2
MIN_PROBABILITY = 1e-6  # a tagger's certainties have finite logits


@dataclass(frozen=True, kw_only=True)
class AssignConfig:
    """Choose captions for unlabelled clips among given texts, such as the names of the classes of a task."""

    source: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Where the clips are: a CSV, a folder, tars or Parquet files. Labels and captions in it are not used."""
    folds: tuple[str, ...] = ()
    """Keep only rows with one of these values in the fold column; empty keeps all."""
    columns: str = ""
    """Columns of a table that have other names, as in file=path."""
    texts: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """File with a text a line, such as a class name; underscores are read as blanks."""
    prompts: tuple[str, ...] = ("{}",)
    """How a text becomes captions, with {} for it; scores are averaged over them, and captions take turns."""
    model: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Tagger that `train convert` wrote, or two towers that `train pretrain` wrote, for another round."""
    text_encoder: str = ""
    """Of a tagger: the sentence encoder, a name on the hub or a folder, that compares its tags with the texts."""
    neighbours: int = 10
    """Clips that a clip's texts are averaged with, those closest by the model's embeddings; 0 averages nothing."""
    captions_per_clip: int = 20
    """Captions of each clip; a text stands among them as often as it is probable."""
    out: str = ""
    """Folder or URI to write to."""
    batch_size: int = field(default=64, metadata=run_dir.NOT_IDENTITY)
    """Clips in one pass of the model."""

    def check(self) -> None:
        """Raise InputError for flags that cannot be, before anything is read."""
        if not self.prompts:
            raise InputError("--prompts", self.prompts, "give one or more templates with {} for the text")
        for prompt in self.prompts:
            cli.check_template("--prompts", prompt)
        if self.neighbours < 0:
            raise InputError("--neighbours", self.neighbours, "use 0 or more")
        if min(self.captions_per_clip, self.batch_size) < 1:
            raise InputError("--captions-per-clip", self.captions_per_clip, "use 1 or more, here and in --batch-size")


def run(config: AssignConfig) -> None:
    """Write the clips with their captions; a finished folder of the same clips, texts and model is left alone."""
    from train import checkpoint  # here, so that --help starts without torch

    config.check()
    texts = _read_texts(config.texts)
    info = checkpoint.describe(config.model, "--model", "tagger", "clap")
    if (info.kind == "tagger") != bool(config.text_encoder):
        remedy = "a tagger needs one to compare its tags with texts, and two towers have one"
        raise InputError("--text-encoder", config.text_encoder, remedy)
    clips = sources.read_clips(config.source, config.folds, column_names=config.columns)
    identity = {"clips": _digest(clip.key for clip in clips), "named": _digest(texts), "revision": info.revision}
    out = run_dir.claim(config.out, config, identity)
    if assigned.exists(out):
        log.info("assign: %s is complete already", out)
        return
    encoded = _encode(config, clips, checkpoint.load(config.model).model, texts)
    chosen = assignment.assign(encoded.scores, encoded.embeddings, config.neighbours)
    counts = assignment.counts(chosen, config.captions_per_clip)
    captions = [_captions(row, texts, config.prompts) for row in counts]
    kept = [dataclasses.replace(clip, captions=text) for clip, text in zip(encoded.clips, captions, strict=True)]
    made_by = {"stage": "pipeline assign", "model": checkpoint.resolve(config.model), "revision": info.revision}
    first = np.bincount(chosen.argmax(axis=1), minlength=len(texts))
    per_text = dict(zip(texts, first.tolist(), strict=True))
    assigned.write(out, kept, {**made_by, "num_clips": len(kept), "broken": encoded.broken, "clips_of_text": per_text})
    log.info(
        "assign: %s: %d clips, %d could not be read; a text is the most probable one of %d to %d clips, median %d; the "
        "mean probability of that text is %.2f",
        out, len(kept), len(encoded.broken), first.min(), first.max(), np.median(first), chosen.max(axis=1).mean(),
    )  # fmt: skip


class _Encoded(NamedTuple):
    """What a model makes of the clips that can be read."""

    clips: list[Clip]
    embeddings: Array  # (N, E)
    scores: Array  # (N, T)
    broken: dict[str, str]  # key -> reason


def _encode(config: AssignConfig, clips: Sequence[Clip], model: "Tagger | TwoTowers", texts: Sequence[str]) -> _Encoded:
    prompted = [prompt.format(text) for prompt in config.prompts for text in texts]
    by_text = _text_matrix(config, model, prompted).reshape(len(config.prompts), len(texts), -1).mean(axis=0)
    kept, broken = list[Clip](), dict[str, str]()
    embeddings, outputs = list[Array](), list[Array]()
    progress = Progress("assign", "clips", len(clips))
    for batch in _batches(clips, config.batch_size):
        broken |= {clip.key: samples for clip, samples in batch if isinstance(samples, str)}
        good = [(clip, samples) for clip, samples in batch if not isinstance(samples, str)]
        encoded = model.encode_clips([samples for _, samples in good], audio.SAMPLE_RATE_HZ) if good else ()
        for part, vectors in zip((embeddings, outputs), encoded, strict=False):
            part.append(vectors.double().numpy())
        kept += [clip for clip, _ in good]
        progress.add(len(batch))
    if len(kept) < 2:
        raise JobError(
            f"{len(kept)} of {len(clips)} clips could be read, and 2 are needed: {dict(list(broken.items())[:3])}"
        )
    found = np.concatenate(outputs)
    if config.text_encoder:
        found = np.clip(found, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        found = np.log(found / (1 - found))
    return _Encoded(kept, np.concatenate(embeddings), found @ by_text.T, broken)


def _text_matrix(config: AssignConfig, model: "Tagger | TwoTowers", texts: Sequence[str]) -> Array:
    """Return of each text what the outputs of the model are multiplied with: weights of tags (T, K), or an embedding."""
    from train.models import tag_transfer
    from train.models.clap import TwoTowers

    if isinstance(model, TwoTowers):
        return np.asarray(model.embed_texts(texts).numpy(), np.float64)
    if not model.tags:
        raise InputError("--model", config.model, "has no tagging head; convert weights that have one")
    try:
        encoder = tag_transfer.open_text(config.text_encoder)
    except ValueError as error:
        raise InputError("--text-encoder", config.text_encoder, str(error)) from None
    return np.asarray(tag_transfer.weights(encoder, model.tags, texts, "tags"), np.float64)


def _batches(clips: Sequence[Clip], size: int) -> Iterator[list[tuple[Clip, "np.ndarray | str"]]]:
    """Yield clips in order, each with its samples, or with the reason why it cannot be read."""
    with ThreadPoolExecutor(DECODERS) as pool:
        for first in range(0, len(clips), size):
            batch = clips[first : first + size]
            yield list(zip(batch, pool.map(sources.read_or_reason, (clip.location for clip in batch)), strict=True))


def _captions(counts: np.ndarray, texts: Sequence[str], prompts: Sequence[str]) -> tuple[str, ...]:
    """Return each text (T,) as often as it counts, in one prompt after the other."""
    repeated = [text for text, count in zip(texts, counts.tolist(), strict=True) for _ in range(count)]
    return tuple(prompts[i % len(prompts)].format(text) for i, text in enumerate(repeated))


def _read_texts(uri: str) -> list[str]:
    remedy = "give a file with a text a line, such as the names of the classes"
    if not uri:
        raise InputError("--texts", uri, remedy)
    with sources.readable(uri, "--texts"):
        lines = storage.read_text(storage.resolve(uri)).splitlines()
    texts = [line.strip().replace("_", " ") for line in lines if line.strip()]
    if len(set(texts)) < max(2, len(texts)):
        raise InputError("--texts", uri, f"has {len(texts)} texts, {len(set(texts))} of them different; {remedy}")
    return texts


def _digest(values: Iterator[str] | Sequence[str]) -> str:
    return hashlib.sha256("\n".join(values).encode()).hexdigest()

"""Tars that others wrote -> an index to train from: `python -m pipeline index --source '{00000..00099}.tar' --out DIR`."""

import logging
from collections import Counter
from dataclasses import dataclass

from pipeline import run_dir, sources, storage
from pipeline.dataset import external_index
from pipeline.errors import InputError, JobError
from pipeline.sources.clip import Clip

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """List the captioned clips of WebDataset tars once; training then reads any of them without looking for it."""

    source: str = ""
    """Tars: a folder, or a name with *, ? and {a..b}, on disk or at s3://, gs:// or hf://."""
    columns: str = ""
    """Keys of the samples' JSON that are named otherwise, as in captions=said,labels=kinds."""
    out: str = ""
    """Folder or URI of the index; the tars stay where and as they are."""
    max_bad_fraction: float = 0.01
    """Fail when more than this share of the samples has no audio or no caption; fewer are left out and counted."""


def run(config: IndexConfig) -> None:
    """Write the index; a finished one of the same tars is left alone."""
    out = run_dir.claim(config.out, config, {"stamp": sources.stamp(config.source)}, ignore=("max_bad_fraction",))
    if external_index.exists(out):
        log.info("index: %s is complete already", out)
        return
    log.info("index: listing %s", config.source)
    clips, stats = sources.read_listing(config.source, column_names=config.columns)
    if any(clip.offset < 0 or clip.size < 0 for clip in clips if not clip.fault):
        raise InputError("--source", config.source, "not all of it is tars; other listings need no index")
    wrong = {clip.source_id: reason for clip in clips if (reason := _wrong(clip))}
    if len(wrong) > config.max_bad_fraction * len(clips):
        told = f"{len(wrong)} of {len(clips)} samples cannot be used, such as {dict(list(wrong.items())[:3])}"
        raise JobError(f"{told}; allow more with --max-bad-fraction")
    kept = [clip for clip in clips if not _wrong(clip)]
    about = {
        "source": storage.resolve(config.source),
        "clips": len(kept),
        "left_out": dict(Counter(reason.partition(":")[0] for reason in wrong.values())),
        "listing": stats.as_json(),
    }
    external_index.write(out, kept, about)
    log.info("index: wrote %d clips to %s; left out %s", len(kept), out, about["left_out"] or "none")


def _wrong(clip: Clip) -> str:
    """Return what keeps a sample from being trained on, or ''."""
    return clip.fault or ("" if clip.captions else "no caption")

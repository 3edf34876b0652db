"""Tars that others wrote -> an index to train from: `python -m pipeline index --source '{00000..00099}.tar' --out DIR`."""

import logging
from collections import Counter
from dataclasses import dataclass, field

from pipeline import run_dir, sources, storage
from pipeline.dataset import external_index
from pipeline.errors import InputError, JobError
from pipeline.sources.clip import Clip

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """List the captioned clips of WebDataset tars once; training then reads any of them directly."""

    source: str = ""
    """Tars: a folder, or a name with *, ? and {a..b}, on disk or at s3://, gs:// or hf://."""
    columns: str = ""
    """Keys of the samples' JSON that have other names, as in captions=sentence,labels=kinds."""
    out: str = ""
    """Folder or URI of the index; the tars stay where and as they are."""
    max_bad_fraction: float = field(default=0.01, metadata=run_dir.NOT_IDENTITY)
    """Fail when more than this share of the samples has no audio or no caption; fewer are left out and counted."""


def run(config: IndexConfig) -> None:
    """Write the index; a finished one of the same tars is left alone."""
    out = run_dir.claim(config.out, config, {"stamp": sources.stamp(config.source)})
    if external_index.exists(out):
        log.info("index: %s is complete already", out)
        return
    log.info("index: listing %s", config.source)
    clips, stats = sources.read_listing(config.source, column_names=config.columns)
    if any(clip.offset < 0 or clip.size < 0 for clip in clips if not clip.fault):
        raise InputError("--source", config.source, "not all of it is tars; other listings need no index")
    faults = {clip.source_id: fault for clip in clips if (fault := _fault(clip))}
    if len(faults) > config.max_bad_fraction * len(clips):
        examples = dict(list(faults.items())[:3])
        problem = f"{len(faults)} of {len(clips)} samples cannot be used, such as {examples}"
        raise JobError(f"{problem}; allow more with --max-bad-fraction")
    kept = [clip for clip in clips if not _fault(clip)]
    info = {
        "source": storage.resolve(config.source),
        "clips": len(kept),
        "left_out": dict(Counter(fault.partition(":")[0] for fault in faults.values())),
        "listing": stats.as_json(),
    }
    external_index.write(out, kept, info)
    log.info("index: wrote %d clips to %s; left out %s", len(kept), out, info["left_out"] or "none")


def _fault(clip: Clip) -> str:
    """Return why a sample cannot be trained on, or ''."""
    return clip.fault or ("" if clip.captions else "no caption")

"""Fingerprint tables of evaluation audio, for the leakage firewall: `python -m pipeline fingerprint <config>`."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline import audio, errors, sources, storage
from pipeline.audio import fingerprint, fingerprint_table
from pipeline.progress import Progress
from pipeline.sources.clip import Clip

log = logging.getLogger(__name__)
READERS = 4


@dataclass(frozen=True, kw_only=True)
class FingerprintConfig:
    """Take the fingerprints of evaluation audio, for --firewall.fingerprints of `plan` and `caption`."""

    source: str = ""
    """Where the evaluation clips are: a CSV, a folder, tars or Parquet files."""
    folds: tuple[str, ...] = ()
    """Keep only rows with one of these values in the fold column; empty keeps all."""
    columns: str = ""
    """Columns of a table that have other names, as in file=path."""
    name: str = ""
    """Name of the evaluation set; the ledger names it as the reason why a clip is excluded."""
    out: str = ""
    """File or URI of the table, such as esc50.parquet."""


def run(config: FingerprintConfig) -> None:
    """Write the table; clips that cannot be read are counted and left out."""
    if not config.name:
        raise errors.InputError("--name", config.name, "give the name of the evaluation set, such as esc50")
    if not config.out.endswith(".parquet"):
        raise errors.InputError("--out", config.out, "give a file name that ends in .parquet")
    clips = sources.read_clips(config.source, config.folds, column_names=config.columns)
    progress, rows, broken = Progress("fingerprint", "clips", len(clips)), [], 0
    with ThreadPoolExecutor(READERS) as pool:
        for clip, words in zip(clips, pool.map(_words, clips), strict=True):
            if words is None:
                broken += 1
            else:
                rows.append({"name": f"{config.name} {clip.source_id}", "words": words.astype("<u4").tobytes()})
            progress.add(1)
    if not rows:
        raise errors.JobError(f"none of the {len(clips)} clips of {config.source} could be read")
    storage.publish_table(storage.resolve(config.out), pa.Table.from_pylist(rows, schema=fingerprint_table.SCHEMA))
    log.info("fingerprint: %s: %d clips, %d could not be read", config.out, len(rows), broken)


def _words(clip: Clip) -> np.ndarray | None:
    try:
        return fingerprint.compute(sources.read_samples(clip), audio.SAMPLE_RATE_HZ)
    except audio.AudioError:
        return None

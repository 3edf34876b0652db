"""Clips -> embeddings by a checkpoint, once for all evaluations: what was embedded before is read back.

<cache>/<revision>/<part>.parquet    id, features, outputs; a part for every thousand clips or so, never rewritten

`id` hashes where the audio of a clip lies and, on disk, the size and date of its file. How a clip is windowed is the
checkpoint's own, and so part of its revision.
"""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from eval.embedding.evaluation import EvaluationConfig
from eval.embedding.in_process import finite
from eval.embedding.stream import stream
from eval.embedding.view import AS_IT_IS, View
from pipeline import storage
from pipeline.errors import InputError, JobError
from pipeline.sources.clip import AudioLocation, Clip
from train.checkpoint import Checkpoint

log = logging.getLogger(__name__)
PART = 1_000  # clips that an interruption can cost at most
COLUMNS = ("id", "features", "outputs")


class Embeddings(NamedTuple):
    """What a model makes of the clips that could be read; N of them."""

    features: np.ndarray  # (N, E) float32, clip embeddings of the audio encoder
    outputs: np.ndarray  # (N, D) float32: unit vectors of two towers, probabilities of a tagger or classifier
    clips: list[Clip]
    missing: dict[str, str]  # key -> reason, of clips that could not be read


def embed(config: EvaluationConfig, loaded: Checkpoint, clips: Sequence[Clip], view: View = AS_IT_IS) -> Embeddings:
    """Embed every clip that can be read, in a view of it, the same whatever the batch size and the number of workers.

    Raises:
        JobError: when no clip can be read, or the model gives numbers that are not finite.
        InputError: when what was embedded before cannot be read.
    """
    root = storage.resolve(config.cache or storage.join(config.out, "embeddings"))
    folder = storage.join(root, "-".join(filter(None, (loaded.revision[:16], view.name))))
    ids = clip_ids(clips)
    known = _held(folder, set(ids))
    wanted = [(clip, own) for own, clip in dict(zip(ids, clips, strict=True)).items() if own not in known]
    reasons: dict[str, str] = {}
    if wanted:
        log.info("embeds %d clips; %d were embedded before", len(wanted), len(clips) - len(wanted))
        for part in _parts(_embed(config, loaded, wanted, view)):
            good = part.filter(pa.compute.equal(part["reason"], ""))
            reasons |= {row["id"]: row["reason"] for row in part.select(["id", "reason"]).to_pylist() if row["reason"]}
            if len(good):
                name = hashlib.sha256("".join(good["id"].to_pylist()).encode()).hexdigest()[:16]
                storage.publish_table(storage.join(folder, f"{name}.parquet"), good.select(COLUMNS))
                known |= _vectors(good)
    missing = {clip.key: reasons[own] for clip, own in zip(clips, ids, strict=True) if own not in known}
    if len(missing) == len(clips):
        raise JobError(f"none of {len(clips)} clips could be read, such as {dict(list(missing.items())[:3])}")
    rows = [known[own] for own in ids if own in known]
    features, outputs = (finite(np.stack(part)) for part in zip(*rows, strict=True))
    return Embeddings(features, outputs, [clip for clip, own in zip(clips, ids, strict=True) if own in known], missing)


def _embed(
    config: EvaluationConfig, loaded: Checkpoint, wanted: Sequence[tuple[Clip, str]], view: View
) -> Iterator[pa.Table]:
    columns: dict[str, list[object]] = {
        name: [getattr(clip, name) for clip, _ in wanted] for name in AudioLocation._fields
    }
    return stream(config, loaded, pa.table({"id": [own for _, own in wanted], **columns}), view)


def _parts(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Collect batches into parts worth a file, and log the progress."""
    held: list[pa.Table] = []
    done, logged_at = 0, time.monotonic()
    for batch in batches:
        held.append(batch)
        done += len(batch)
        if sum(map(len, held)) >= PART:
            yield pa.concat_tables(held)
            held = []
        if time.monotonic() - logged_at > 10:
            logged_at = time.monotonic()
            log.info("%d clips embedded", done)
    if held:
        yield pa.concat_tables(held)


def _held(folder: str, ids: set[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in storage.list_names(folder):
        if not name.endswith(".parquet"):
            continue
        uri = storage.join(folder, name)
        try:
            table = storage.read_table(uri).select(COLUMNS)
        except (OSError, ValueError, KeyError) as error:
            raise InputError("--cache", folder, f"{uri} cannot be read ({error}); delete it") from None
        wanted = [row for row, own in enumerate(table["id"].to_pylist()) if own in ids]
        found |= _vectors(table.take(pa.array(wanted, pa.int64())))
    return found


def _vectors(rows: pa.Table) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return {id: (features, outputs)}."""
    columns = []
    for name in COLUMNS[1:]:
        lists = rows[name].combine_chunks()
        flat = lists.flatten().to_numpy(zero_copy_only=False)
        columns.append(flat.reshape(len(rows), -1) if len(rows) else np.zeros((0, 0), np.float32))
    return {own: (a, b) for own, a, b in zip(rows["id"].to_pylist(), *columns, strict=True)}


def _cut(clip: Clip) -> tuple[float, ...]:
    """Return which part of its file a clip is; nothing for a whole file, whose id stays what it was."""
    return (clip.cut_start_s, clip.cut_end_s) if clip.cut_start_s or clip.cut_end_s else ()


def clip_ids(clips: Sequence[Clip]) -> list[str]:
    """Return an id for the audio of each clip: another place, and on disk another size or date of its file, is another."""
    local = sorted({clip.uri for clip in clips if "://" not in clip.uri})
    stamps = dict(zip(local, storage.stamps(local), strict=True))
    places = ((clip.uri, clip.offset, clip.size, clip.fault, stamps.get(clip.uri), *_cut(clip)) for clip in clips)
    return [hashlib.sha256(repr(place).encode()).hexdigest()[:32] for place in places]

"""Results: every number with what it needs to be believed. One folder per model, one file per evaluation.

<out>/results/<stage>-<task>.json
{"model": {name, revision, lineage}, "results": {"<stage> <task>": {metrics, protocol, n, num_listed, ids_sha256, ...}}}

A file is published whole and no other evaluation writes to it: evaluations may run at the same time. Earlier versions put
all evaluations of a model into one <out>/results.json; it is read too, and a file in results/ replaces its entry.

Every number over clips has a 95 % interval; those of one fold or class have none. `over_folds` is the mean over the folds
of `per_fold` with their standard deviation: folds differ in size, so that it is not the number over all clips.
Beside it lies outcomes/<stage>-<task>.npz: the keys of the clips and what became of each, by which two runs are compared.
"""

import dataclasses
import datetime
import hashlib
import io
import logging
import platform
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any, cast
from urllib.parse import quote

import numpy as np

from eval.metrics import Interval
from eval.results import overlap
from eval.results.records import Entry, Json, MetricRecord, ModelRecord, RunRecord
from pipeline import errors, run_dir, storage
from pipeline.sources.clip import Clip
from train import checkpoint
from train.checkpoint import Checkpoint, CheckpointInfo

log = logging.getLogger(__name__)
FOLDER, EARLIER_FILE = "results", "results.json"
PLACE_AND_SPEED = {"model", "out", "task_dir", "cache", "batch_size", "workers", "gpus_per_worker", "device"} | {
    "class_texts",  # what the file holds is in the hash of the source,
    "clap",  # and so is the revision of this checkpoint
    "data",  # whose captions are the revision of what is evaluated
    "captioner_url",
    "captioner_key_variable",
    "concurrency",
    "max_requests",
}
SHOWN = ("n", "num_listed", "ids_sha256", "overlap", "folds", "fold_rule")  # of an entry, by every report
PACKAGES = ("blat-ray", "torch", "torchaudio", "transformers", "ray", "numpy")


def metric(value: float, interval: Interval | None = None, chance: float | None = None) -> MetricRecord:
    """Return one number with its 95 % bootstrap interval and what guessing would give."""
    entry: MetricRecord = {"value": round(value, 6)}
    if interval is not None:
        entry["interval95"] = [round(bound, 6) for bound in interval]
    if chance is not None:
        entry["chance"] = round(chance, 6)
    return entry


def over_folds(per_fold: Mapping[str, MetricRecord]) -> Entry:
    """Return the mean of numbers by fold, with the standard deviation of a fold; nothing where there is one fold or none."""
    values = [each["value"] for each in per_fold.values()]
    if len(values) < 2:
        return {}
    summary = {"value": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "n": len(values)}
    return {"over_folds": {name: round(value, 6) for name, value in summary.items()}}


def protocol(
    clips: Sequence[Clip],
    listed: int,
    missing: dict[str, str],
    loaded: Checkpoint | ModelRecord,
    config: Any,
    source: str,
) -> Entry:
    """Return what any evaluation must state: n of N, which clips, whether training saw them, and how it was run.

    Args:
        clips: those evaluated.
        listed: how many the task lists.
        missing: key -> reason, of those that could not be read.
        loaded: the model, or what results state of it.
        config: the stage's config, with `model`, `folds` and, where it may be given, `fingerprints`.
        source: hash of what is evaluated, see `results.source`.
    """
    keys = sorted(clip.key for clip in clips)
    tables = getattr(config, "fingerprints", ())
    return {
        "n": len(keys),
        "num_listed": listed,
        "missing": missing,
        "ids_sha256": hashlib.sha256("\n".join(keys).encode()).hexdigest(),
        "source_sha256": source,
        "overlap": overlap.count(clips, config.model, _record(loaded, config.model)["lineage"], tables),
        "folds": list(config.folds),
        "config": storage.plain(dataclasses.asdict(config)),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "evaluated_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def check(out: str, revision: str) -> None:
    """Find out before the work whether a model's results can be added to `out`.

    Raises:
        InputError: when there is no `out`, it cannot be written to, or it holds the results of another model.
    """
    if not out:
        raise errors.InputError("--out", out, "give the folder of this model's results")
    check_writable(out)
    if has(out) and (held := read(out)["model"])["revision"] != revision:
        remedy = "choose another folder, or delete this one"
        raise errors.InputError("--out", out, f"holds the results of another model, {held['name']}; {remedy}")


def check_writable(out: str) -> None:
    """Raise InputError when nothing can be written to `out`, found out by writing to it."""
    probe = storage.join(run_dir.writable(out), f"{uuid.uuid4().hex}.writable")
    try:
        storage.publish(probe, b"")
    except OSError as error:
        remedy = "choose a folder or bucket that you may write to"
        raise errors.InputError("--out", out, f"cannot be written: {error}; {remedy}") from None
    with suppress(OSError):  # who may write may not delete, in some buckets
        storage.remove(probe)


def has(folder: str, flag: str = "--out") -> bool:
    """Return whether a folder has results. Raises InputError, naming the flag, when it cannot be looked into."""
    return bool(_files(folder, flag))


def read(folder: str, flag: str = "--out") -> RunRecord:
    """Return the model and all results of a folder, in the form of one file.

    Raises:
        InputError: naming the flag, when a file cannot be read or is none of results, when there is none, or when the files
            are of two models.
    """
    found: RunRecord | None = None
    for uri in _files(folder, flag):
        held = _read(uri, folder, flag)
        if found is None:
            found = held
        if held["model"]["revision"] != found["model"]["revision"]:
            names = f"{held['model']['name']}, and others there of {found['model']['name']}"
            raise errors.InputError(flag, folder, f"{uri} is of {names}; move the files of one model to another folder")
        found = {"model": held["model"], "results": found["results"] | held["results"]}
    if found is None:
        raise errors.InputError(flag, folder, "holds no results; run an evaluation with this --out")
    return found


def _files(folder: str, flag: str) -> list[str]:
    """Return the files of results in a folder, that of earlier versions first."""
    root = storage.resolve(folder)
    earlier, own = storage.join(root, EARLIER_FILE), storage.join(root, FOLDER)
    try:
        names = [name for name in storage.list_names(own) if name.endswith(".json")]
        return [earlier] * storage.exists(earlier) + [storage.join(own, name) for name in names]
    except OSError as error:
        raise errors.InputError(flag, folder, f"cannot be read: {error}; give a folder that you may read") from None


def _read(uri: str, folder: str, flag: str) -> RunRecord:
    remedy = "restore it, or delete it and evaluate again"
    try:
        held = storage.read_json(uri)
    except (OSError, ValueError) as error:
        raise errors.InputError(flag, folder, f"{uri} cannot be read ({error}); {remedy}") from None
    if not _are_results(held):
        raise errors.InputError(flag, folder, f"{uri} holds no results of a model; {remedy}")
    return cast(RunRecord, held)


def _are_results(held: Any) -> bool:
    model, entries = (held.get(key) if isinstance(held, dict) else None for key in ("model", "results"))
    if not (isinstance(model, dict) and isinstance(entries, dict)):
        return False
    named = all(isinstance(model.get(key), str) for key in ("name", "revision"))
    return named and isinstance(model.get("lineage"), dict) and all(isinstance(each, dict) for each in entries.values())


def results_uri(out: str, name: str) -> str:
    """Return the file of an evaluation, stage and task."""
    return storage.join(storage.resolve(out), FOLDER, f"{file_stem(name)}.json")


def file_stem(name: str) -> str:
    """Return what files of an evaluation are named by: stage and task, whatever signs the name of a task has."""
    stage, _, task = name.partition(" ")
    return f"{stage}-{quote(task, safe='')}"


def differing(held: Json, wanted: Json) -> list[str]:
    """Return the fields of a config that another has otherwise, but for those that change no number.

    A field that is left empty changes none: results from before there was such a field count as the same.
    """
    fields = [key for key, value in wanted.items() if held.get(key) != value and (key in held or value)]
    return [key for key in fields if key not in PLACE_AND_SPEED]


def holds_evaluations(folder: str, flag: str) -> bool:
    """Return whether a folder has evaluations of a model; a report, whose results.json is of several, has none."""
    files = _files(folder, flag)
    return len(files) > 1 or any(
        not uri.endswith(EARLIER_FILE) or _are_results(storage.read_json(uri)) for uri in files
    )


def record(info: CheckpointInfo[Any], uri: str) -> ModelRecord:
    """Return what results state of a checkpoint that lies at `uri`."""
    return {
        "name": checkpoint.title(uri),
        "revision": info.revision,
        "lineage": info.lineage,
        "network": dataclasses.asdict(info.network),
    }


def _record(loaded: Checkpoint | ModelRecord, uri: str) -> ModelRecord:
    return loaded if isinstance(loaded, dict) else record(loaded.info, uri)


def publish(
    out: str,
    name: str,
    loaded: Checkpoint | ModelRecord,
    model_uri: str,
    entry: Entry,
    outcomes: dict[str, np.ndarray],
) -> str:
    """Write the results of one evaluation, and what became of each clip beside them; return the file.

    An earlier evaluation of the same name is replaced, with a warning where it was another one.

    Args:
        out: folder of the model's results.
        name: stage and task.
        loaded: the model, or what results state of it.
        model_uri: where it lies; '' of what is no checkpoint.
        entry: the numbers and the protocol.
        outcomes: `keys` (N,) and arrays of N rows; nothing is kept when it is empty.
    """
    uri = results_uri(out, name)
    _warn_of_replacing(out, name, entry["config"])
    if outcomes:
        data = io.BytesIO()
        np.savez_compressed(data, **outcomes)  # type: ignore[arg-type]
        storage.publish(outcomes_uri(out, name), data.getvalue())
    content = {name: entry | over_folds(entry.get("per_fold", {}))}
    storage.publish_json(uri, {"model": _record(loaded, model_uri), "results": content})
    return uri


def outcomes_uri(folder: str, name: str) -> str:
    """Return the file of what became of each clip in an evaluation, stage and task."""
    return storage.join(storage.resolve(folder), "outcomes", f"{file_stem(name)}.npz")


def _warn_of_replacing(out: str, name: str, config: Json) -> None:
    """Warn when results of the same name came of another config, such as other folds."""
    try:
        held = read(out)["results"].get(name, {})
    except errors.InputError:  # whatever is wrong there must not cost the results that are at hand
        return
    if changed := differing(held.get("config", config), config):
        log.warning(
            "%s: replaces the results of %s, which had other %s", name, held.get("evaluated_at"), ", ".join(changed)
        )


def keys(clips: Sequence[Clip]) -> np.ndarray:
    """Return the keys of clips (N,), as `outcomes` holds them."""
    return np.array([clip.key for clip in clips])

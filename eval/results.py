"""results.json: every number with what it needs to be believed. One file per model, one entry per evaluation.

{"model": {name, revision, lineage}, "results": {"<stage> <task>": {metrics, protocol, n, num_listed, ids_sha256, ...}}}

Every number over clips has a 95 % interval; those of one fold or class have none. `over_folds` is the mean over the folds
of `per_fold` with their standard deviation: folds differ in size, so that it is not the number over all clips.
Beside it lies outcomes/<stage>-<task>.npz: the keys of the clips and what became of each, by which two runs are compared.
"""

import dataclasses
import datetime
import hashlib
import io
import platform
import uuid
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import numpy as np

from eval import overlap, tasks
from eval.metrics import Interval
from eval.tasks import Task
from pipeline import cli, storage
from pipeline.clip import Clip
from train.checkpoint import Checkpoint

RESULTS_FILE = "results.json"
PLACE_AND_SPEED = {"model", "out", "task_dir", "cache", "batch_size", "workers", "gpus_per_worker", "device"}
PACKAGES = ("blat-ray", "torch", "torchaudio", "transformers", "ray", "numpy")


def metric(value: float, interval: Interval | None = None, chance: float | None = None) -> dict[str, Any]:
    """Return one number with its 95 % bootstrap interval and what guessing would give."""
    entry: dict[str, Any] = {"value": round(value, 6)}
    if interval is not None:
        entry["interval95"] = [round(bound, 6) for bound in interval]
    if chance is not None:
        entry["chance"] = round(chance, 6)
    return entry


def over_folds(per_fold: dict[str, Any]) -> dict[str, Any]:
    """Return the mean of numbers by fold, with the standard deviation of a fold; nothing where there is one fold or none."""
    values = [each["value"] for each in per_fold.values()]
    if len(values) < 2:
        return {}
    told = {"value": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "n": len(values)}
    return {"over_folds": {name: round(value, 6) for name, value in told.items()}}


def protocol(
    clips: Sequence[Clip], listed: int, missing: dict[str, str], about: Checkpoint, config: Any
) -> dict[str, Any]:
    """Return what any evaluation must state: n of N, which clips, whether training saw them, and how it was run.

    Args:
        clips: those evaluated.
        listed: how many the task lists.
        missing: key -> reason, of those that could not be read.
        about: the model.
        config: the stage's config, with `model`, `folds` and, where it may be given, `fingerprints`.
    """
    keys = sorted(clip.key for clip in clips)
    tables = getattr(config, "fingerprints", ())
    return {
        "n": len(keys),
        "num_listed": listed,
        "missing": missing,
        "ids_sha256": hashlib.sha256("\n".join(keys).encode()).hexdigest(),
        "overlap": overlap.count(clips, config.model, about.config["lineage"], tables),
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
        raise cli.InputError("--out", out, "give the folder of this model's results.json")
    check_writable(out)
    if has(out) and (held := read(out)["model"])["revision"] != revision:
        remedy = "choose another folder, or delete this one"
        raise cli.InputError("--out", out, f"holds the results of another model, {held['name']}; {remedy}")


def check_writable(out: str) -> None:
    """Raise InputError when nothing can be written to `out`, found out by writing to it."""
    probe = storage.join(cli.writable(out), f"{uuid.uuid4().hex}.writable")
    try:
        storage.publish(probe, b"")
    except OSError as error:
        remedy = "choose a folder or bucket that you may write to"
        raise cli.InputError("--out", out, f"cannot be written: {error}; {remedy}") from None
    with suppress(OSError):  # who may write may not delete, in some buckets
        storage.remove(probe)


def has(folder: str, flag: str = "--out") -> bool:
    """Tell whether a folder has results. Raises InputError, naming the flag, when it cannot be looked into."""
    try:
        return storage.exists(storage.join(storage.resolve(folder), RESULTS_FILE))
    except OSError as error:
        raise cli.InputError(flag, folder, f"cannot be read: {error}; give a folder that you may read") from None


def read(folder: str, flag: str = "--out") -> dict[str, Any]:
    """Return what a folder's results.json holds. Raises InputError, naming the flag, when it holds no results of a model."""
    uri = storage.join(storage.resolve(folder), RESULTS_FILE)
    remedy = "restore it, or delete it and evaluate again"
    try:
        held = storage.read_json(uri)
    except (OSError, ValueError) as error:
        raise cli.InputError(flag, folder, f"{uri} cannot be read ({error}); {remedy}") from None
    if not (isinstance(held, dict) and isinstance(held.get("model"), dict) and isinstance(held.get("results"), dict)):
        raise cli.InputError(flag, folder, f"{uri} holds no results of a model; {remedy}")
    return held


def source(task: Task, folder: str, clips: Sequence[Clip]) -> str:
    """Return a hash of what an evaluation reads: the listed clips with all that is listed of them, and their classes.

    On disk it tells the files that are there by size and date, elsewhere by name, which is a request for a folder and not
    for each clip.
    """
    uris = sorted({clip.uri for clip in clips})
    local, remote = ([uri for uri in uris if ("://" in uri) == far] for far in (False, True))
    folders = {uri.rpartition("/")[0] for uri in remote}
    there = {storage.join(place, name) for place in folders for name in storage.names(place)}
    parts: list[object] = [storage.resolve(folder), *map(repr, clips), *zip(local, storage.stamps(local), strict=True)]
    parts += [uri for uri in remote if uri in there]
    parts += [*tasks.classes(task, folder, clips), *tasks.descriptions(task, folder).items()]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def done(out: str, name: str, config: Any, source: str) -> bool:
    """Tell whether results.json has this evaluation of this source under the same config, wherever and however fast."""
    held = read(out)["results"].get(name, {}) if has(out) else {}
    wanted = storage.plain(dataclasses.asdict(config))
    return held.get("source_sha256") == source and all(
        held["config"].get(key) == value for key, value in wanted.items() if key not in PLACE_AND_SPEED
    )


def remember(out: str, name: str, source: str) -> None:
    """Note of an evaluation that was just published what it read."""
    held = read(out)
    held["results"][name]["source_sha256"] = source
    storage.publish_json(storage.join(storage.resolve(out), RESULTS_FILE), held)


def publish(
    out: str, name: str, about: Checkpoint, model_uri: str, entry: dict[str, Any], outcomes: dict[str, np.ndarray]
) -> str:
    """Add one evaluation to a model's results.json, and what became of each clip beside it; return the file.

    Args:
        out: folder of the model's results.
        name: stage and task.
        about: the model.
        model_uri: where it lies.
        entry: the numbers and the protocol.
        outcomes: `keys` (N,) and arrays of N rows; nothing is kept when it is empty.
    """
    folder = storage.resolve(out)
    uri = storage.join(folder, RESULTS_FILE)
    if outcomes:
        data = io.BytesIO()
        np.savez_compressed(data, **outcomes)  # type: ignore[arg-type]
        storage.publish(storage.join(folder, "outcomes", f"{name.replace(' ', '-')}.npz"), data.getvalue())
    held = read(out) if has(out) else {"results": {}}
    model = {"name": storage.resolve(model_uri).rpartition("/")[2], "revision": about.revision}
    held["model"] = {**model, "lineage": about.config["lineage"], "network": about.config["network"]}
    held["results"][name] = entry | over_folds(entry.get("per_fold", {}))
    storage.publish_json(uri, held)
    return uri


def keys(clips: Sequence[Clip]) -> np.ndarray:
    """Return the keys of clips (N,), as `outcomes` holds them."""
    return np.array([clip.key for clip in clips])

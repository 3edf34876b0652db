"""results.json: every number with what it needs to be believed. One file per model, one entry per evaluation.

{"model": {name, revision, lineage}, "results": {"<stage> <task>": {metrics, protocol, n, num_listed, ids_sha256, ...}}}

Beside it lies outcomes/<stage>-<task>.npz: the keys of the clips and what became of each, by which two runs are compared.
"""

import dataclasses
import datetime
import hashlib
import io
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from eval import overlap
from eval.metrics import Interval
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
    """Raise InputError when there is no `out`, or it holds the results of another model; to be called before the work."""
    if not out:
        raise cli.InputError("--out", out, "give the folder of this model's results.json")
    uri = storage.join(storage.resolve(out), RESULTS_FILE)
    if storage.exists(uri) and (held := storage.read_json(uri)["model"])["revision"] != revision:
        remedy = "choose another folder, or delete this one"
        raise cli.InputError("--out", out, f"holds the results of another model, {held['name']}; {remedy}")


def done(out: str, name: str, config: Any) -> bool:
    """Tell whether results.json has this evaluation under the same config; where it runs and how fast is left aside."""
    uri = storage.join(storage.resolve(out), RESULTS_FILE)
    held = storage.read_json(uri)["results"].get(name, {}).get("config") if storage.exists(uri) else None
    wanted = storage.plain(dataclasses.asdict(config))
    return held is not None and all(
        held.get(key) == value for key, value in wanted.items() if key not in PLACE_AND_SPEED
    )


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
    held: dict[str, Any] = storage.read_json(uri) if storage.exists(uri) else {"results": {}}
    model = {"name": storage.resolve(model_uri).rpartition("/")[2], "revision": about.revision}
    held["model"] = {**model, "lineage": about.config["lineage"], "network": about.config["network"]}
    held["results"][name] = entry
    storage.publish_json(uri, held)
    return uri


def keys(clips: Sequence[Clip]) -> np.ndarray:
    """Return the keys of clips (N,), as `outcomes` holds them."""
    return np.array([clip.key for clip in clips])

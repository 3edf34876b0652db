"""results.json: every number with what it needs to be believed. One file per model, one entry per evaluation.

{"model": {name, revision, lineage}, "results": {"<stage> <task>": {metrics, protocol, n, num_listed, ids_sha256, ...}}}
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from eval.metrics import Interval
from pipeline import cli, shards, storage
from pipeline.sources import Clip
from train.checkpoint import Checkpoint

RESULTS_FILE = "results.json"


def metric(value: float, interval: Interval | None = None, chance: float | None = None) -> dict[str, Any]:
    """Return one number with its 95 % bootstrap interval and what guessing would give."""
    entry: dict[str, Any] = {"value": round(value, 6)}
    if interval is not None:
        entry["interval95"] = [round(bound, 6) for bound in interval]
    if chance is not None:
        entry["chance"] = round(chance, 6)
    return entry


def protocol(clips: Sequence[Clip], listed: int, missing: dict[str, str], lineage: dict[str, Any]) -> dict[str, Any]:
    """Return what any evaluation must state: n of N, which clips, and whether training saw them."""
    keys = sorted(clip.key for clip in clips)
    return {
        "n": len(keys),
        "num_listed": listed,
        "missing": missing,
        "ids_sha256": hashlib.sha256("\n".join(keys).encode()).hexdigest(),
        "overlap": _overlap(set(keys), lineage),
    }


def publish(out: str, name: str, about: Checkpoint, model_uri: str, entry: dict[str, Any]) -> str:
    """Add one evaluation to a model's results.json.

    Raises:
        InputError: when `out` holds the results of another model.
    """
    uri = storage.join(storage.resolve(out), RESULTS_FILE)
    model = {"name": storage.resolve(model_uri).rpartition("/")[2], "revision": about.revision}
    held: dict[str, Any] = storage.read_json(uri) if storage.exists(uri) else {"model": model, "results": {}}
    if held["model"]["revision"] != about.revision:
        remedy = "choose another folder, or delete this one"
        raise cli.InputError("--out", out, f"holds the results of another model, {held['model']['name']}; {remedy}")
    held["model"] = {**model, "lineage": about.config["lineage"], "network": about.config["network"]}
    held["results"][name] = entry
    storage.publish_json(uri, held)
    return uri


def _overlap(keys: set[str], lineage: dict[str, Any]) -> dict[str, Any]:
    """Count evaluated keys among the training clips, as far as the lineage can be followed from here."""
    data = lineage.get("data")
    if data is None:
        return {"keys": None, "why": "the checkpoint names no training data"}
    try:
        return {"keys": len(keys & set(shards.Index(data).keys)), "of": data}
    except OSError as error:
        return {"keys": None, "why": f"training data is not readable from here: {error}"}

"""results.json: every number with what it needs to be believed. One file per model, one entry per evaluation.

{"model": {name, revision, lineage}, "results": {"<stage> <task>": {metrics, protocol, n, num_listed, ids_sha256, ...}}}
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from eval.metrics import Interval
from pipeline import cli, storage
from pipeline.clip import Clip
from train import checkpoint
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


def protocol(
    clips: Sequence[Clip], listed: int, missing: dict[str, str], about: Checkpoint, model_uri: str
) -> dict[str, Any]:
    """Return what any evaluation must state: n of N, which clips, and whether training saw them."""
    keys = sorted(clip.key for clip in clips)
    return {
        "n": len(keys),
        "num_listed": listed,
        "missing": missing,
        "ids_sha256": hashlib.sha256("\n".join(keys).encode()).hexdigest(),
        "overlap": _overlap(set(keys), model_uri, about.config["lineage"]),
    }


def check(out: str, revision: str) -> None:
    """Raise InputError when there is no `out`, or it holds the results of another model; to be called before the work."""
    if not out:
        raise cli.InputError("--out", out, "give the folder of this model's results.json")
    uri = storage.join(storage.resolve(out), RESULTS_FILE)
    if storage.exists(uri) and (held := storage.read_json(uri)["model"])["revision"] != revision:
        remedy = "choose another folder, or delete this one"
        raise cli.InputError("--out", out, f"holds the results of another model, {held['name']}; {remedy}")


def publish(out: str, name: str, about: Checkpoint, model_uri: str, entry: dict[str, Any]) -> str:
    """Add one evaluation to a model's results.json."""
    uri = storage.join(storage.resolve(out), RESULTS_FILE)
    held: dict[str, Any] = storage.read_json(uri) if storage.exists(uri) else {"results": {}}
    model = {"name": storage.resolve(model_uri).rpartition("/")[2], "revision": about.revision}
    held["model"] = {**model, "lineage": about.config["lineage"], "network": about.config["network"]}
    held["results"][name] = entry
    storage.publish_json(uri, held)
    return uri


def _overlap(keys: set[str], model_uri: str, lineage: dict[str, Any]) -> dict[str, Any]:
    """Count evaluated keys among the clips that the model, and what it was made from, were trained on."""
    captioner = lineage.get("generation", {}).get("captioner", "")
    stages = {"model": model_uri, "captioner": captioner, "init_audio": lineage.get("init_audio", "")}
    found: dict[str, Any] = {}
    for stage, uri in stages.items():
        if not uri:
            continue
        try:
            found[stage] = len(keys & checkpoint.trained_on(uri))
            if selected := len(keys & checkpoint.selected_on(uri)):
                found[f"{stage}_selected_on"] = selected
        except OSError:
            found[stage] = None  # not to be reached from here: unknown, which is not 0
    return found

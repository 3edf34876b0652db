"""Several training runs of one recipe: their results read from disk, and their means as the results of one model.

A folder that holds results is one run. A folder whose subfolders hold results, such as seed0 and seed1, is one recipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.results import outcomes, store
from eval.results.records import Entry, RunRecord
from pipeline import storage
from pipeline.errors import InputError
from train import checkpoint

SAME = ("ids_sha256", "folds", "fold_rule", "prompts", "class_texts", "classes")  # in all runs of a recipe
OF_FIRST_RUN = ("config", "versions", "missing", "notes", "unavailable", *SAME)
TRAINS = "finetune "  # evaluations whose training has a seed of its own
DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The runs of one recipe."""

    folders: Mapping[str, str]
    """Name of a run -> its folder of results."""
    records: Mapping[str, RunRecord]
    """Name of a run -> its results."""
    draws: bool = False
    """Whether every run is of clips or classes of its own."""

    def folders_with(self, evaluation: str) -> dict[str, str]:
        """Return the folders of the runs that have an evaluation, by name."""
        return {name: self.folders[name] for name, each in self.records.items() if evaluation in each["results"]}

    def is_seedless(self, evaluation: str) -> bool:
        """Return whether no seed of ours is in an evaluation: it does not train, and the weights are released ones."""
        stages = {record["model"]["lineage"].get("stage") for record in self.records.values()}
        return stages <= set(checkpoint.UNKNOWN_CLIPS) and not evaluation.startswith(TRAINS)


def read(folder: str, flag: str, draws: bool = False) -> Recipe:
    """Return the run that a folder holds, or the runs in its subfolders; with `draws` these may be of different clips.

    Raises:
        InputError: naming the flag, when there are no results, a file is damaged, or the runs do not belong together.
    """
    root = storage.resolve(folder)
    own = store.has(folder, flag)
    inside = {name: storage.join(root, name) for name in storage.list_names(root)}
    seeds = {name: uri for name, uri in inside.items() if store.holds_evaluations(uri, flag)}
    if own and seeds:
        remedy = f"holds results and runs with results ({', '.join(seeds)}); move the results or the runs elsewhere"
        raise InputError(flag, folder, remedy)
    folders = {root.rpartition("/")[2]: folder} if own or not seeds else seeds
    records = {name: store.read(uri, flag) for name, uri in folders.items()}
    recipe = Recipe(folders=folders, records=records, draws=draws)
    for name, record in recipe.records.items():
        _check_whole(record, recipe.folders[name], flag)
    _check_same(recipe, folder, flag)
    return recipe


def _check_whole(record: RunRecord, folder: str, flag: str) -> None:
    for evaluation, entry in record["results"].items():
        if lacking := [key for key in store.SHOWN if key not in entry]:
            remedy = f"its entry {evaluation!r} lacks {', '.join(lacking)}; run that evaluation again"
            raise InputError(flag, folder, remedy)


def _check_same(recipe: Recipe, folder: str, flag: str) -> None:
    """Raise InputError when two runs are of different networks, or were evaluated in different ways."""
    (first, own), *others = recipe.records.items()
    remedy = "evaluate the runs of a recipe on the same clips in the same way, or give their folders one by one"
    for run, record in others:
        if record["model"].get("network") != own["model"].get("network"):
            raise InputError(flag, folder, f"its runs {first} and {run} are of different networks; {remedy}")
    for evaluation in () if recipe.draws else _evaluations(recipe.records):
        with_it = [(run, record) for run, record in recipe.records.items() if evaluation in record["results"]]
        (first, own), *others = with_it
        for run, record in others:
            one, two = own["results"][evaluation], record["results"][evaluation]
            if record["model"]["revision"] == own["model"]["revision"] and not evaluation.startswith(TRAINS):
                text = f"its runs {first} and {run} are one model: evaluating it twice is no second training run"
                raise InputError(
                    flag, folder, f"{text}; give --model another one for each seed, or --draws to the report"
                )
            differing = [key for key in SAME if one.get(key) != two.get(key)]
            differing += store.differing(_seedless(one.get("config", {})), _seedless(two.get("config", {})))
            if differing:
                text = f"in {evaluation!r} its runs {first} and {run} have different {', '.join(differing)}; {remedy}"
                raise InputError(flag, folder, text)


def _seedless(config: Any) -> Any:
    """Return a config without its seeds, which differ between the runs of a recipe."""
    if not isinstance(config, dict):
        return config
    return {key: _seedless(value) for key, value in config.items() if key != "seed"}


def merge(recipe: Recipe) -> RunRecord:
    """Return the results of the only run, or the means over all runs.

    A number of several runs has the mean as its value, the number of each run in `runs`, their standard deviation in
    `sd_runs`, and as its interval that of the mean over the choice of clips. Where the outcomes of the clips are stored, all
    runs are taken on the same resamples. Of other numbers the bounds are the means of the runs' bounds, an interval that is
    never too narrow: a mean spreads at most as far as its terms do on average.
    """
    if len(recipe.records) == 1:
        (record,) = recipe.records.values()
        return record
    first = next(iter(recipe.records.values()))
    merged = {name: _merge_evaluation(recipe, name) for name in _evaluations(recipe.records)}
    return {"model": first["model"], "results": merged, "runs": dict(recipe.records)}


def _evaluations(records: Mapping[str, RunRecord]) -> list[str]:
    return list(dict.fromkeys(name for record in records.values() for name in record["results"]))


def _merge_evaluation(recipe: Recipe, name: str) -> Entry:
    runs = {run: record["results"][name] for run, record in recipe.records.items() if name in record["results"]}
    entries = list(runs.values())
    held = {key: value for entry in reversed(entries) for key, value in entry.items() if key in OF_FIRST_RUN}
    merged = {**_merge([{k: v for k, v in entry.items() if k not in OF_FIRST_RUN} for entry in entries]), **held}
    merged["overlap"] = _merge_overlap([entry["overlap"] for entry in entries])
    if recipe.draws:
        merged.pop("confusion", None)  # of other classes in each draw
    elif "confusion" in merged:
        merged["confusion"] = np.sum([entry["confusion"] for entry in entries], axis=0).tolist()
    if any(entry.get("chosen") != entries[0].get("chosen") for entry in entries):
        merged.pop("chosen", None)
    merged["evaluated_runs"] = list(runs)
    if recipe.draws:  # no resample of the clips is of all runs
        return merged
    folders = list(recipe.folders_with(name).values())
    for path, interval in outcomes.intervals(folders, name, merged).items():
        outcomes.lookup(merged, path)["interval95"] = [round(bound, DIGITS) for bound in interval]
    return merged


def _merge(values: Sequence[Any]) -> Any:
    """Return the means of all numbers in entries of the same form; what is no measured number is that of the first."""
    there = [value for value in values if value is not None]
    if not there or not all(isinstance(value, dict) for value in there):
        return values[0]
    if all("value" in value for value in there):
        return _mean(there)
    if all("ap" in value for value in there):
        return _mean_class(there)
    keys = dict.fromkeys(key for value in there for key in value)
    return {key: _merge([value[key] for value in there if key in value]) for key in keys}


def _mean(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of one number over runs."""
    values = [metric["value"] for metric in metrics]
    merged = {**metrics[0], "value": round(float(np.mean(values)), DIGITS)}
    for key in ("interval95", "sd", "chance"):
        if key in merged:
            mean = np.mean([metric[key] for metric in metrics if key in metric], axis=0)
            merged[key] = np.round(mean, DIGITS).tolist()
    if len(values) > 1:
        merged |= {"runs": values, "sd_runs": round(float(np.std(values, ddof=1)), DIGITS)}
    return merged


def _mean_class(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean scores of one class over the runs where it has one."""
    merged = dict(rows[0])
    for key in ("ap", "accuracy"):
        if key in merged:
            values = [row[key] for row in rows if row.get(key) is not None]
            merged[key] = round(float(np.mean(values)), DIGITS) if values else None
    return merged


def _merge_overlap(overlaps: Sequence[Mapping[str, int | None]]) -> dict[str, int | None]:
    """Return the largest overlap with training of any run; it is not known where it is not of one of them."""
    stages = dict.fromkeys(stage for overlap in overlaps for stage in overlap)
    merged: dict[str, int | None] = {}
    for stage in stages:
        counts = [overlap.get(stage, 0) for overlap in overlaps]
        known = [count for count in counts if count is not None]
        merged[stage] = max(known) if len(known) == len(counts) else None
    return merged

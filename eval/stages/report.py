"""Several models or recipes side by side: a table, results.json and the report: `python -m eval report <config>`.

A recipe is a folder of several training runs, see eval/results/recipe.py. The results.json of the report has all results
under the name of each model or recipe, of a recipe the means with those of each run in "runs", and "differences":
evaluation -> number -> how far, and how surely, it is from the first one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval import results
from eval.report import headline, page, tables
from eval.report.axis import Axis
from eval.results import compare, draws, recipe
from eval.results.model_results import ModelResults
from eval.results.recipe import Recipe
from eval.results.records import Json, RunRecords
from pipeline import storage
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Render the results of several models side by side."""

    results: tuple[str, ...] = ()
    """Folders of results, one for each model, in the order to show them; the others are compared with the first. A folder
    whose subfolders hold results (seed0, seed1, ...) is one recipe with several runs."""
    captions: tuple[str, ...] = ()
    """Datasets of shards whose captions to show side by side, clip by clip."""
    draws: bool = False
    """Each run of a recipe is a draw with clips or classes of its own. Those of two recipes are paired by name."""
    axis: tuple[float, ...] = ()
    """A number above 0 for each folder of results, such as the training clips: draws the headline numbers over it."""
    axis_title: str = ""
    """What the numbers of --axis are."""
    num_captions: int = 10
    """Clips to show with their captions."""
    out: str = ""
    """Folder or URI of the report."""


def run(config: ReportConfig) -> None:
    """Write results.json and the report as HTML, Markdown and LaTeX, and print the table."""
    results.check_writable(config.out)
    if _holds_results(config.out):
        raise InputError("--out", config.out, "holds the results of a model; give the report a folder of its own")
    _check_axis(config)
    recipes = _read_recipes(config.results, config.draws)
    clips = _read_captions(config.captions, config.num_captions)
    runs = {name: recipe.merge(found) for name, found in recipes.items()}
    _add_differences(recipes, runs)
    labels = _labels(recipes, config)
    typed = {label: ModelResults.from_json(run) for label, run in zip(labels, runs.values(), strict=True)}
    axis = Axis(title=config.axis_title, values=dict(zip(labels, config.axis, strict=True))) if config.axis else None
    table = headline.build(typed)
    written = {
        "results.json": storage.json_bytes(runs),
        "report.md": tables.markdown(table, typed).encode(),
        "report.tex": tables.latex(table, typed).encode(),
        "report.html": page.render(typed, table, clips, axis).encode(),
    }
    for name, data in written.items():
        storage.publish(storage.join(storage.resolve(config.out), name), data)
    print(tables.text(table, typed))
    print(f"\nreport: {storage.join(storage.resolve(config.out), 'report.html')}")


def _check_axis(config: ReportConfig) -> None:
    """Raise InputError when --axis does not give each folder a place of its own on a logarithmic axis with a title."""
    if not config.axis:
        if config.axis_title:
            raise InputError("--axis", config.axis, "give one number for each folder of --results, or no --axis-title")
        return
    if len(config.axis) != len(config.results):
        raise InputError("--axis", config.axis, f"give one number for each of the {len(config.results)} --results")
    if not all(math.isfinite(value) and value > 0 for value in config.axis):
        raise InputError("--axis", config.axis, "give numbers above 0: the axis is logarithmic")
    if len(set(config.axis)) < len(config.axis):
        raise InputError(
            "--axis", config.axis, "two folders have the same number; give the runs of one recipe one folder"
        )
    if not config.axis_title:
        raise InputError("--axis-title", config.axis_title, "say what the numbers of --axis are")


def _labels(recipes: Mapping[str, Recipe], config: ReportConfig) -> list[str]:
    """Return the names of models as tables show them, such as 'small (3 runs, training clips 32)'."""
    counts = [len(found.records) for found in recipes.values()]
    what = "draw" if config.draws else "run"
    runs = [f"{count} {what}{'s' * (count > 1)}" for count in counts]
    places = [f", {config.axis_title} {value:g}" for value in config.axis] or [""] * len(runs)
    return [f"{name} ({count}{place})" for name, count, place in zip(recipes, runs, places, strict=True)]


def _add_differences(recipes: Mapping[str, Recipe], runs: RunRecords) -> None:
    """Add to every one but the first how it differs from the first, by evaluation; those without outcomes have none."""
    first, *others = recipes
    for name in others:
        shared = [evaluation for evaluation in runs[name]["results"] if evaluation in runs[first]["results"]]
        found = {evaluation: _compare(recipes[first], recipes[name], evaluation) for evaluation in shared}
        runs[name]["differences"] = {evaluation: difference for evaluation, difference in found.items() if difference}


def _compare(first: Recipe, other: Recipe, evaluation: str) -> Json:
    folders = first.folders_with(evaluation), other.folders_with(evaluation)
    if first.draws:
        return draws.recipes(*folders, evaluation)
    one, two = (list(each.values()) for each in folders)
    return compare.recipes(one, two, evaluation, (first.is_seedless(evaluation), other.is_seedless(evaluation)))


def _read_recipes(folders: Sequence[str], draws: bool) -> dict[str, Recipe]:
    if not folders:
        raise InputError("--results", folders, "give one or more folders that `python -m eval` wrote")
    found: dict[str, Recipe] = {}
    for folder in folders:
        name = storage.resolve(folder).rpartition("/")[2]
        if name in found:
            raise InputError("--results", folder, f"two folders are named {name}; rename one, names label the rows")
        found[name] = recipe.read(folder, "--results", draws)
    return found


def _holds_results(folder: str) -> bool:
    try:
        return bool(results.read(folder))
    except InputError:
        return False


def _read_captions(datasets: Sequence[str], count: int) -> list[page.Captioned]:
    """Return clips that every dataset has a caption for, spread evenly over the first one."""
    if not datasets or count < 1:
        return []
    names = [storage.resolve(data).rpartition("/")[2] for data in datasets]
    if len(set(names)) < len(names):
        raise InputError("--captions", datasets, "two datasets have the same name; rename one, names label the columns")
    try:
        return _captioned(dict(zip(names, map(ClipIndex, datasets), strict=True)), count)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            "--captions", datasets, f"cannot be read: {error}; `pipeline verify` names the fault"
        ) from None


def _captioned(indices: dict[str, ClipIndex], count: int) -> list[page.Captioned]:
    texts = {name: dict(zip(index.keys, index.texts(), strict=True)) for name, index in indices.items()}
    first = next(iter(indices.values()))
    common = [i for i, key in enumerate(first.keys) if all(key in found for found in texts.values())]
    chosen = common[:: max(1, len(common) // count)][:count]
    tags = first.tags()
    return [
        page.Captioned(
            key=first.keys[i],
            tags=tags[i],
            flac=first.flac(i),
            captions={name: found[first.keys[i]][0] for name, found in texts.items()},
        )
        for i in chosen
    ]

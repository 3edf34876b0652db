"""The origin of each number: protocol, prompts, folds, classes, confusion and configs, ready to be drawn."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from eval.report import charts, headline
from eval.report.charts import Heat, Mistakes
from eval.report.headline import Runs
from eval.report.tables import Rows
from eval.results.model_results import ClassScore, Evaluation, ModelResults


@dataclass(frozen=True, kw_only=True)
class RunEvaluation:
    """One evaluation of one model."""

    run: str
    color: int
    """Index of the model."""
    name: str
    """Stage and task."""
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """How well each class goes, the worst one first."""

    title: str
    runs: list[str]
    rows: list[tuple[str, int, list[tuple[int, float | None]]]]
    """Class, its clips, and for each model its color and the per cent."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """The confusion of one evaluation."""

    title: str
    chart: Heat | Mistakes


@dataclass(frozen=True, kw_only=True)
class Json:
    """Formatted JSON under a title."""

    title: str
    text: str


def evaluations(runs: Runs, has: Callable[[Evaluation], object] = lambda _: True) -> Iterator[RunEvaluation]:
    """Yield the evaluations of all models that have something, those of one name together."""
    for name in headline.names(runs):
        for i, (run, result) in enumerate(runs.items()):
            evaluation = result.evaluations.get(name)
            if evaluation is not None and has(evaluation):
                yield RunEvaluation(run=run, color=i, name=name, evaluation=evaluation)


def protocol(runs: Runs) -> Rows:
    """Return of which clips each number is, by which folds, and what of them was trained on; header first."""
    header = ["evaluation", "model", "clips", "hash of their ids", "folds", "known overlap with training", "on"]
    return [header, *map(_protocol_row, evaluations(runs))]


def _protocol_row(found: RunEvaluation) -> list[str]:
    evaluation = found.evaluation
    clips = f"{evaluation.n:,} of {evaluation.num_listed:,}"
    if evaluation.n_single_label is not None and evaluation.n_single_label < evaluation.n:
        clips += f", {evaluation.n_single_label:,} with one label"
    if evaluation.missing:
        reasons = Counter(evaluation.missing.values()).most_common()
        clips += "; not read: " + ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    folds = evaluation.fold_rule + (f": {', '.join(evaluation.folds)}" if evaluation.folds else "")
    overlap = "; ".join(headline.describe_overlap(evaluation.overlap, evaluation.n)) or "none"
    date = (evaluation.evaluated_at or headline.NOT_MEASURED)[:10]
    return [found.name, found.run, clips, evaluation.ids_sha256[:12], folds, overlap, date]


def prompts(runs: Runs) -> list[Rows]:
    """Return a table for each zero-shot evaluation, the prompts down, the models across."""
    tables: list[Rows] = []
    for name, group in _by_name(runs, lambda evaluation: evaluation.prompts):
        metric = "accuracy" if all(found.evaluation.by_prompt("accuracy") for found in group) else "map"
        columns = [found.evaluation.by_prompt(metric) for found in group]
        header = [f"{name}: {'mAP' if metric == 'map' else metric}", *(found.run for found in group)]
        rows = [
            [
                prompt,
                *(headline.show(column[prompt]) if prompt in column else headline.NOT_MEASURED for column in columns),
            ]
            for prompt in dict.fromkeys(prompt for column in columns for prompt in column)
        ]
        tables.append([header, *rows])
    return tables


def folds(runs: Runs) -> list[Rows]:
    """Return a table for each evaluation by folds, the folds down, the models across, with what was chosen there."""
    tables: list[Rows] = []
    for name, group in _by_name(runs, lambda evaluation: evaluation.per_fold):
        header = [f"{name}: fold", *(found.run for found in group)]
        names = dict.fromkeys(fold for found in group for fold in found.evaluation.per_fold)
        tables.append([header, *([fold, *(_fold(found.evaluation, fold) for found in group)] for fold in names)])
    return tables


def _fold(evaluation: Evaluation, fold: str) -> str:
    if fold not in evaluation.per_fold:
        return headline.NOT_MEASURED
    chosen = ", ".join(f"{key} {str(value)[:12]}" for key, value in evaluation.chosen.get(fold, {}).items())
    return headline.show(evaluation.per_fold[fold]) + (f" ({chosen})" if chosen else "")


def per_class(runs: Runs) -> list[ClassTable]:
    """Return for each evaluation how well each class goes, worst first by the first model that has it."""
    return [_class_table(name, group) for name, group in _by_name(runs, lambda evaluation: evaluation.per_class)]


def _class_table(name: str, group: Sequence[RunEvaluation]) -> ClassTable:
    first = group[0].evaluation.per_class
    by_accuracy = any(score.accuracy is not None for score in first.values())

    def value(score: ClassScore | None) -> float | None:
        return None if score is None else score.accuracy if by_accuracy else score.ap

    def order(label: str) -> tuple[float, str]:
        share = value(first[label])
        return float("inf") if share is None else share, label  # classes without a value come last

    metric = "accuracy" if by_accuracy else "average precision"
    return ClassTable(
        title=f"{name}: {metric} of {len(first)} classes, per cent",
        runs=[found.run for found in group],
        rows=[
            (label, first[label].n, [(found.color, value(found.evaluation.per_class.get(label))) for found in group])
            for label in sorted(first, key=order)
        ],
    )


def confusions(runs: Runs) -> list[Confusion]:
    """Return the confusion of every evaluation that has one."""
    return [
        Confusion(
            title=f"{found.run}, {found.name}",
            chart=charts.confusion(found.evaluation.classes, found.evaluation.confusion, found.color),
        )
        for found in evaluations(runs, lambda evaluation: evaluation.confusion)
    ]


def configs(runs: Runs) -> list[Json]:
    """Return the network of every model, and the resolved config and the versions of every evaluation."""
    return [item for name, run in runs.items() for item in _configs(name, run)]


def _configs(name: str, run: ModelResults) -> Iterator[Json]:
    revisions = [model.revision for model in run.models.values()]
    yield _json(f"{name}: checkpoint and network", {"revisions": revisions, "network": run.network})
    for evaluation, found in run.evaluations.items():
        yield _json(f"{name}, {evaluation}: config and versions", found.settings)


def _json(title: str, content: object) -> Json:
    return Json(title=title, text=json.dumps(content, indent=1, ensure_ascii=False))


def _by_name(runs: Runs, has: Callable[[Evaluation], object]) -> list[tuple[str, list[RunEvaluation]]]:
    """Return the evaluations that have something, those of one name together."""
    found = evaluations(runs, has)
    return [(name, list(group)) for name, group in itertools.groupby(found, key=lambda evaluation: evaluation.name)]

"""The results of one model, or the means over the runs of a recipe, as typed values read once from their JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.results import compare
from eval.results.compare import Difference
from train.checkpoint.info import Lineage

Json = Mapping[str, Any]
UNAVAILABLE = "unavailable"
NOT_METRICS = ("config", "versions", "missing", "overlap", "per_fold", "per_class", "chosen")
SETTINGS = ("config", "versions", "evaluated_at", "ids_sha256")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number."""

    value: float
    interval95: tuple[float, float] | None = None
    """95 % bootstrap interval over clips; of a recipe, that of the mean over runs."""
    chance: float | None = None
    """What guessing gives."""
    sd: float | None = None
    """Standard deviation of a fold, where the value is a mean over folds."""
    num_folds: int | None = None
    runs: tuple[float, ...] = ()
    """The number of each run, where the value is their mean."""
    sd_runs: float | None = None
    """Standard deviation of a run, where there are several."""

    @staticmethod
    def from_json(content: Json) -> "Metric":
        """Return one number of an entry."""
        return Metric(
            value=content["value"],
            interval95=_interval(content["interval95"]) if "interval95" in content else None,
            chance=content.get("chance"),
            sd=content.get("sd"),
            num_folds=content.get("n"),
            runs=tuple(content.get("runs", ())),
            sd_runs=content.get("sd_runs"),
        )


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How well one class goes; None where it cannot be measured."""

    n: int
    """Clips of the class."""
    accuracy: float | None
    ap: float | None
    """Average precision."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation of one model or recipe. What an older file lacks is empty or None."""

    metrics: Mapping[tuple[str, ...], Metric]
    """Every number over all clips by its path in the entry, such as ("accuracy", "ensemble")."""
    n: int
    """Clips evaluated."""
    num_listed: int
    """Clips that the task lists."""
    n_single_label: int | None
    missing: Mapping[str, str]
    """Key of a clip that could not be read -> reason."""
    ids_sha256: str
    """Hash of the keys of the evaluated clips."""
    overlap: Mapping[str, int | None]
    """What the model was made by -> how many of the clips it was trained or selected on; None is unknown."""
    folds: Sequence[str]
    fold_rule: str
    prompts: Sequence[str]
    per_fold: Mapping[str, Metric]
    chosen: Mapping[str, Mapping[str, object]]
    """Fold -> the hyperparameters that were chosen for it."""
    per_class: Mapping[str, ClassScore]
    classes: Sequence[str]
    confusion: Sequence[Sequence[int]]
    """Clips by true class (rows) and guessed class (columns)."""
    evaluated_runs: Sequence[str]
    """Runs of the recipe that have this evaluation; empty for one run."""
    evaluated_at: str | None
    settings: Mapping[str, object]
    """Config, versions and what else says how it was run, as in the file."""

    @staticmethod
    def from_json(entry: Json) -> "Evaluation":
        """Return the evaluation of one entry."""
        return Evaluation(
            metrics=dict(_metrics(entry, ())),
            n=entry["n"],
            num_listed=entry["num_listed"],
            n_single_label=entry.get("n_single_label"),
            missing=entry.get("missing") or {},
            ids_sha256=entry["ids_sha256"],
            overlap=entry["overlap"],
            folds=entry["folds"],
            fold_rule=entry["fold_rule"],
            prompts=entry.get("prompts", ()),
            per_fold={fold: Metric.from_json(metric) for fold, metric in entry.get("per_fold", {}).items()},
            chosen=entry.get("chosen", {}),
            per_class={label: _class_score(row) for label, row in entry.get("per_class", {}).items()},
            classes=entry.get("classes", ()),
            confusion=entry.get("confusion", ()),
            evaluated_runs=entry.get("evaluated_runs", ()),
            evaluated_at=entry.get("evaluated_at"),
            settings={key: entry[key] for key in SETTINGS if key in entry},
        )

    def by_prompt(self, metric: str) -> dict[str, Metric]:
        """Return one metric by prompt; "ensemble" is that of all prompts together."""
        return {path[1]: value for path, value in self.metrics.items() if path[0] == metric and len(path) == 2}


@dataclass(frozen=True, kw_only=True)
class Model:
    """The checkpoint of one run."""

    revision: str
    lineage: Lineage


@dataclass(frozen=True, kw_only=True)
class ModelResults:
    """All results of one model, or the means over the runs of a recipe."""

    models: Mapping[str, Model]
    """Name of a run -> its checkpoint; "" for one run."""
    network: object
    """JSON of its shape; None in older files."""
    evaluations: Mapping[str, Evaluation]
    """By name: stage and task."""
    differences: Mapping[str, Mapping[str, Difference] | str]
    """Evaluation -> title of a number -> how far it is from the first one; or why they cannot be compared."""

    @staticmethod
    def from_json(content: Json) -> "ModelResults":
        """Return the results of a model, with its differences from another where there are some."""
        runs = content.get("runs", {"": content})
        return ModelResults(
            models={name: _model(run["model"]) for name, run in runs.items()},
            network=content["model"].get("network"),
            evaluations={name: Evaluation.from_json(entry) for name, entry in content["results"].items()},
            differences={name: _differences(found) for name, found in content.get("differences", {}).items()},
        )


def _model(content: Json) -> Model:
    return Model(revision=content["revision"], lineage=content["lineage"])


def _metrics(entry: Json, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Metric]]:
    for key, value in entry.items():
        if not isinstance(value, Mapping) or (not path and key in NOT_METRICS):
            continue
        if "value" in value:
            yield (*path, key), Metric.from_json(value)
        else:
            yield from _metrics(value, (*path, key))


def _class_score(row: Json) -> ClassScore:
    return ClassScore(n=row["n"], accuracy=row.get("accuracy"), ap=row.get("ap"))


def _differences(content: Json) -> dict[str, Difference] | str:
    if UNAVAILABLE in content:
        return content[UNAVAILABLE]
    return {title: compare.from_record(found) for title, found in content.items()}


def _interval(bounds: Sequence[float]) -> tuple[float, float]:
    low, high = bounds
    return low, high

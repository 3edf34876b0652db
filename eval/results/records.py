"""The results of an evaluation as they lie in <out>/results/<stage>-<task>.json; see eval/results/store.py."""

from typing import Any, NotRequired, TypedDict

from train.checkpoint import Lineage

Json = dict[str, Any]  # an object of JSON whose fields its writer decides
Overlap = dict[str, int | None]  # stage of the lineage -> evaluated clips that it was trained on; None: not known
Entry = dict[str, Any]
"""One evaluation, stage and task. Fields of all: `n`, `num_listed`, `missing`, `ids_sha256`, `overlap`, `folds`,
`fold_rule`, `config`, `versions`, `evaluated_at`. The other fields are metrics, grouped as the stage needs it, and the
details that the report shows: `per_class`, `confusion`, `per_fold`, `chosen`, `classes`, `prompts`, `notes`."""


class MetricRecord(TypedDict):
    """One number."""

    value: float
    interval95: NotRequired[list[float]]  # bootstrap over clips: low, high
    chance: NotRequired[float]  # what guessing gives
    sd: NotRequired[float]  # standard deviation, of a mean over folds
    n: NotRequired[int]  # folds of that mean
    runs: NotRequired[list[float]]  # the number of each run, where the value is their mean
    sd_runs: NotRequired[float]  # standard deviation of a run


class DifferenceRecord(TypedDict):
    """How far one recipe is from another; see compare.Difference."""

    value: float
    interval95: list[float]  # over clips
    interval95_runs: NotRequired[list[float]]  # over runs and clips, with several runs of each
    p: float  # two-sided
    n: int  # clips
    runs: list[int]  # of the first and of the other
    differs: str  # yes, no, or that it is not known


class ClassRecord(TypedDict):
    """One class of a classification or tagging."""

    n: int  # positives
    ap: float | None  # None without positives
    accuracy: NotRequired[float]  # where clips have one label


class ModelRecord(TypedDict):
    """The checkpoint that was evaluated."""

    name: str
    revision: str
    lineage: Lineage
    network: NotRequired[Json]


class RunRecord(TypedDict):
    """All results of one model, or the means over the runs of a recipe."""

    model: ModelRecord  # of a recipe: that of its first run
    results: dict[str, Entry]  # by stage and task
    runs: NotRequired[dict[str, "RunRecord"]]  # the runs of a recipe by name, where there are several
    differences: NotRequired[dict[str, Json]]  # from the first run of a report, by stage and task


RunRecords = dict[str, RunRecord]  # by the name of the run or recipe

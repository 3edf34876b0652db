"""The headline table of several models, in no format yet: each number with interval, mark and what was published."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from eval.results import references
from eval.results.compare import Difference
from eval.results.model_results import Metric, ModelResults
from eval.results.references import Reference

NOT_MEASURED = "-"
GUIDANCE = ("tags", "none", "predicted", "shuffled", "written")  # the last: captions that a dataset has
FOILS = ("order", "presence", "negation")
ONSET_ERROR = "onset error, s"
CLASSIFIED = (("accuracy", ("accuracy",)), ("mAP", ("map",)))
Runs = Mapping[str, ModelResults]  # name of a model or recipe as it is shown -> its results
Titles = Mapping[str, Sequence[tuple[str, tuple[str, ...]]]]
TITLES: Titles = {  # stage -> (title, path inside the entry)
    "zero-shot": (("accuracy", ("accuracy", "ensemble")), ("mAP", ("map", "ensemble"))),
    "linear-probe": CLASSIFIED,
    "finetune": CLASSIFIED,
    "captioning": tuple((f"CIDEr-D, {guidance}", ("guidance", guidance, "cider_d")) for guidance in GUIDANCE),
    "retrieval": tuple(
        (f"{way.replace('_', ' ')} {recall}", (way, recall))
        for way in ("text_to_audio", "audio_to_text")
        for recall in ("R@1", "R@10")
    ),
    "compositional": tuple(
        (title, (kind, name))
        for kind in FOILS
        for title, name in ((kind, "accuracy"), (f"{kind}, shuffled clips", "shuffled"))
    ),
    "grounding": (
        ("PSDS 1", ("psds1",)),
        ("PSDS 2", ("psds2",)),
        ("frame AUROC", ("frame_auroc",)),
        ("order", ("order",)),
        (ONSET_ERROR, ("onset_error_s",)),
    ),
}
FOLD_MEAN = ("mean over folds", ("over_folds",))
CLASSIFIED_TOO = (("top-5 accuracy", ("top5",)), ("mAUC", ("mauc",)), ("d'", ("d_prime",)), FOLD_MEAN)
CAPTION_SCORES = ("bleu_4", "rouge_l", "meteor", "spice", "spider", "fense", "clap")
MORE: Titles = {  # numbers beside the headline, likewise
    "zero-shot": (*((title, (*path, "ensemble")) for title, path in CLASSIFIED_TOO[:-1]), FOLD_MEAN),
    "linear-probe": CLASSIFIED_TOO,
    "finetune": CLASSIFIED_TOO,
    "captioning": tuple(
        (f"{score}, {guidance}", ("guidance", guidance, score)) for score in CAPTION_SCORES for guidance in GUIDANCE
    ),
    "retrieval": tuple(
        (f"{way.replace('_', ' ')} {name}", (way, name))
        for way in ("text_to_audio", "audio_to_text")
        for name in ("R@5", "R@50", "mAP@10", "MedR", "MeanR")
    ),
    "compositional": tuple((f"{kind}, margin over shuffled clips", (kind, "margin")) for kind in FOILS),
}
RANKS = ("MedR", "MeanR")
SOURCES = {
    "model": "the model",
    "captioner": "its captioner",
    "scorer": "its scorer",
    "assigner": "the model that assigned its captions",
    "init": "the checkpoint it started from",
    "init_audio": "the audio encoder it started from",
}
SELECTED, SOUNDS = "_selected_on", "_sounds"


class Number(NamedTuple):
    """One number: where it stands in an entry of results."""

    evaluation: str  # name of the entry: stage and task
    title: str
    path: tuple[str, ...]

    @property
    def percent(self) -> bool:
        """Return whether it is shown times 100."""
        as_it_is = (*RANKS, "d'", ONSET_ERROR)
        return not (self.evaluation.startswith("captioning ") or self.title.endswith(as_it_is))

    @property
    def digits(self) -> int:
        """Return how many digits are shown after the point."""
        return 1 if self.percent or self.title.endswith(RANKS) else 3

    def __str__(self) -> str:
        return f"{self.evaluation}: {self.title}"


class Cell(NamedTuple):
    """One number of one model."""

    text: str
    mark: str  # '*': clips that it was trained or selected on; '?': not known

    @property
    def value(self) -> str:
        """Return the number alone."""
        return self.text.partition(" ")[0]

    @property
    def interval(self) -> str:
        """Return what follows the number: its interval, or its deviation over folds."""
        return self.text.partition(" ")[2]

    def __str__(self) -> str:
        return self.text + self.mark


class Line(NamedTuple):
    """One number of all models."""

    number: Number
    chance: str
    cells: list[Cell]
    published: list[Reference]


@dataclass(frozen=True)
class Headline:
    """The table."""

    runs: list[str]
    lines: list[Line]
    more: list[Line]  # other numbers
    footnotes: list[str]  # what the marks mean here, and other caution

    @property
    def published(self) -> list[Reference]:
        """Return the published numbers beside all lines."""
        return [reference for line in self.lines for reference in line.published]

    @property
    def sources(self) -> list[str]:
        """Return where they were read, without repetition; they are cited by their index from 1."""
        return list(dict.fromkeys(reference.source for reference in self.published))

    def cite(self, reference: Reference) -> str:
        """Return a published number as it stands beside ours, such as '93.9 MS CLAP 2023 [1]'."""
        return f"{reference.value} {reference.model} [{self.sources.index(reference.source) + 1}]"


def build(runs: Runs) -> Headline:
    """Return the headline table."""
    lines, more = ([_line(runs, number) for number in numbers(runs, titles)] for titles in (TITLES, MORE))
    return Headline(list(runs), lines, more, [*_footnotes(runs), *_cautions(runs)])


def names(runs: Runs) -> list[str]:
    """Return the names of all evaluations, in the order in which they first appear."""
    return list(dict.fromkeys(name for run in runs.values() for name in run.evaluations))


def numbers(runs: Runs, titles: Titles = TITLES) -> list[Number]:
    """Return the numbers that any model has, headlines or others: no title stands without a number."""
    candidates = (
        Number(name, title, path) for name in names(runs) for title, path in titles.get(name.partition(" ")[0], ())
    )
    return [number for number in candidates if any(find(run, number) for run in runs.values())]


def find(run: ModelResults, number: Number) -> Metric | None:
    """Return a number of one model; None when it was not measured, and for the mAP of clips that all have one label."""
    evaluation = run.evaluations.get(number.evaluation)
    if evaluation is None or (number.title == "mAP" and evaluation.n_single_label == evaluation.n):
        return None
    return evaluation.metrics.get(number.path)


def show(metric: Metric | Difference, percent: bool = True, sign: str = "", digits: int = 1) -> str:
    """Return a number with its interval over clips, such as '91.5 [86.9, 95.4]'.

    The mean over several runs has their standard deviation before it, '91.5 ± 2.1 [86.9, 95.4]', and a mean over folds that
    of a fold behind it, '88.0 ± 3.4, 5 folds'.
    """
    scale = 100 if percent else 1
    text = f"{scale * metric.value:{sign}.{digits}f}"
    if isinstance(metric, Metric) and metric.sd_runs is not None:
        text += f" ± {scale * metric.sd_runs:.{digits}f}"
    if metric.interval95:
        text += " " + show_interval(metric.interval95, percent, sign, digits)
    if isinstance(metric, Metric) and metric.sd is not None:
        joined = ";" if metric.sd_runs is not None else ""
        text += f"{joined} ± {scale * metric.sd:.{digits}f}, {metric.num_folds} folds"
    return text


def show_interval(bounds: tuple[float, float], percent: bool = True, sign: str = "", digits: int = 1) -> str:
    """Return bounds such as '[86.9, 95.4]'."""
    low, high = ((100 if percent else 1) * bound for bound in bounds)
    return f"[{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def describe_overlap(overlap: Mapping[str, int | None], n: int) -> list[str]:
    """Return a sentence for each stage that was trained or selected on some of the clips, or may have been."""
    return [_sentence(stage, count, n) for stage, count in overlap.items() if count != 0]


def mark(overlap: Mapping[str, int | None]) -> str:
    """Return '*' when any clip was trained or selected on, '?' when that is not known of a stage, or both."""
    return "*" * any(overlap.values()) + "?" * any(count is None for count in overlap.values())


def _sentence(stage: str, count: int | None, n: int) -> str:
    source = SOURCES.get(stage.removesuffix(SELECTED).removesuffix(SOUNDS), stage)
    if count is None:
        return f"what {source} was trained on is not known"
    if stage.endswith(SOUNDS):
        return f"{count:,} of the {n:,} clips sound like what {source} was trained on"
    return f"{source} was {'selected' if stage.endswith(SELECTED) else 'trained'} on {count:,} of the {n:,} clips"


def _line(runs: Runs, number: Number) -> Line:
    cells = [_cell(run, number) for run in runs.values()]
    return Line(number, _chance(runs, number), cells, references.find(number.evaluation, number.title))


def _cell(run: ModelResults, number: Number) -> Cell:
    metric = find(run, number)
    if metric is None:
        return Cell(NOT_MEASURED, "")
    text = show(metric, number.percent, digits=number.digits)
    if len(run.models) > 1 and len(metric.runs) < len(run.models):
        text += f", {max(1, len(metric.runs))} of {len(run.models)} runs"
    return Cell(text, mark(run.evaluations[number.evaluation].overlap))


def _chance(runs: Runs, number: Number) -> str:
    """Return what guessing gives; it differs between models where their classes do."""
    metrics = [metric for run in runs.values() if (metric := find(run, number))]
    chances = sorted({metric.chance for metric in metrics if metric.chance is not None})
    shown = dict.fromkeys(f"{100 * chance:.1f}" for chance in (chances[:1] + chances[-1:]))
    return " to ".join(shown) or NOT_MEASURED


def _footnotes(runs: Runs) -> Iterator[str]:
    """Yield what each mark stands for; evaluations of a model that share it are named together."""
    for run, result in runs.items():
        shared: dict[tuple[str, str], list[str]] = {}
        for name, evaluation in result.evaluations.items():
            if marked := mark(evaluation.overlap):
                reason = "; ".join(describe_overlap(evaluation.overlap, evaluation.n))
                shared.setdefault((marked, reason), []).append(name)
        for (marked, reason), evaluations in shared.items():
            yield f"{marked} {run}, {', '.join(evaluations)}: {reason}."


def _cautions(runs: Runs) -> Iterator[str]:
    """Yield which runs a recipe has and lacks; and a warning for each evaluation whose numbers are of different clips."""
    for recipe, result in runs.items():
        if len(result.models) > 1:
            lacking = [
                f"; {', '.join(missing)} without {name}"
                for name, evaluation in result.evaluations.items()
                if (missing := [run for run in result.models if run not in evaluation.evaluated_runs])
            ]
            yield f"{recipe}: the runs are {', '.join(result.models)}{''.join(lacking)}."
    for name in names(runs):
        evaluations = [run.evaluations[name] for run in runs.values() if name in run.evaluations]
        if len({evaluation.ids_sha256 for evaluation in evaluations}) > 1:
            counts = ", ".join(f"{evaluation.n:,}" for evaluation in evaluations)
            yield f"{name}: the models were evaluated on different clips (n {counts}); these numbers do not compare."

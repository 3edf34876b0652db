"""The headline table of several runs, in no format yet: every number with its interval, its mark and what was published."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from eval.results import references
from eval.results.references import Reference

NOT_MEASURED = "-"
GUIDANCE = ("tags", "none", "predicted", "shuffled")
CLASSIFIED = (("accuracy", ("accuracy",)), ("mAP", ("map",)))
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
}
RANKS = ("MedR", "MeanR")
SOURCES = {
    "model": "the model",
    "captioner": "its captioner",
    "scorer": "its scorer",
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
        """Tell whether it is shown times 100."""
        return not (self.evaluation.startswith("captioning ") or self.title == "d'" or self.title.endswith(RANKS))

    @property
    def digits(self) -> int:
        """Return how many digits are shown after the point."""
        return 1 if self.percent or self.title.endswith(RANKS) else 3

    def __str__(self) -> str:
        return f"{self.evaluation}: {self.title}"


class Cell(NamedTuple):
    """One number of one run."""

    text: str
    mark: str  # '*': clips that it was trained or selected on; '?': not known

    def __str__(self) -> str:
        return self.text + self.mark


class Line(NamedTuple):
    """One number of all runs."""

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
        return [each for line in self.lines for each in line.published]

    @property
    def sources(self) -> list[str]:
        """Return where they were read, each once; they are cited by their place from 1."""
        return list(dict.fromkeys(each.source for each in self.published))

    def cite(self, reference: Reference) -> str:
        """Return a published number as it stands beside ours, such as '93.9 MS CLAP 2023 [1]'."""
        return f"{reference.value} {reference.model} [{self.sources.index(reference.source) + 1}]"


def build(runs: dict[str, Any]) -> Headline:
    """Return the headline table of runs, name -> its results."""
    lines, more = ([_line(runs, number) for number in numbers(runs, titles)] for titles in (TITLES, MORE))
    return Headline(list(runs), lines, more, [*_footnotes(runs), *_cautions(runs)])


def numbers(runs: dict[str, Any], titles: Titles = TITLES) -> list[Number]:
    """Return the numbers that any run has, headlines or others: no title stands without a number."""
    names = dict.fromkeys(name for run in runs.values() for name in run["results"])
    every = (Number(name, title, path) for name in names for title, path in titles.get(name.partition(" ")[0], ()))
    return [number for number in every if any(find(run, number) for run in runs.values())]


def find(run: dict[str, Any], number: Number) -> dict[str, Any] | None:
    """Return the metric in one run; None when it was not measured, and for the mAP of clips that all have one label."""
    entry: Any = run["results"].get(number.evaluation)
    if entry and number.title == "mAP" and entry.get("n_single_label") == entry["n"]:
        return None
    for step in number.path:
        entry = entry.get(step) if entry else None
    return entry


def show(metric: dict[str, Any], percent: bool = True, sign: str = "", digits: int = 1) -> str:
    """Return a metric with its interval as words, such as '91.5 [86.9, 95.4]', a mean over folds with its deviation."""
    scale = 100 if percent else 1
    text = f"{scale * metric['value']:{sign}.{digits}f}"
    if "interval95" in metric:
        low, high = metric["interval95"]
        text += f" [{scale * low:{sign}.{digits}f}, {scale * high:{sign}.{digits}f}]"
    if "sd" in metric:
        text += f" ± {scale * metric['sd']:.{digits}f}, {metric['n']} folds"
    return text


def told(overlap: dict[str, int | None], n: int) -> list[str]:
    """Say what of the evaluated clips is known to have been trained or selected on; nothing where it is none."""
    return [sentence for stage, count in overlap.items() if count != 0 for sentence in [_sentence(stage, count, n)]]


def mark(overlap: dict[str, int | None]) -> str:
    """Return '*' when any clip was trained or selected on, '?' when that is not known of a stage, or both."""
    return "*" * any(overlap.values()) + "?" * any(count is None for count in overlap.values())


def _sentence(stage: str, count: int | None, n: int) -> str:
    what = SOURCES.get(stage.removesuffix(SELECTED).removesuffix(SOUNDS), stage)
    if count is None:
        return f"what {what} was trained on is not known"
    if stage.endswith(SOUNDS):
        return f"{count:,} of the {n:,} clips sound like what {what} was trained on"
    return f"{what} was {'selected' if stage.endswith(SELECTED) else 'trained'} on {count:,} of the {n:,} clips"


def _line(runs: dict[str, Any], number: Number) -> Line:
    cells = [_cell(run, number) for run in runs.values()]
    return Line(number, _chance(runs, number), cells, references.find(number.evaluation, number.title))


def _cell(run: dict[str, Any], number: Number) -> Cell:
    metric = find(run, number)
    if metric is None:
        return Cell(NOT_MEASURED, "")
    return Cell(show(metric, number.percent, digits=number.digits), mark(run["results"][number.evaluation]["overlap"]))


def _chance(runs: dict[str, Any], number: Number) -> str:
    """Return what guessing gives; it differs between runs where their classes do."""
    metrics = [metric for run in runs.values() if (metric := find(run, number))]
    found = sorted({metric["chance"] for metric in metrics if "chance" in metric})
    shown = dict.fromkeys(f"{100 * chance:.1f}" for chance in (found[:1] + found[-1:]))
    return " to ".join(shown) or NOT_MEASURED


def _footnotes(runs: dict[str, Any]) -> Iterator[str]:
    """Yield what each mark stands for; evaluations of a run that share it are named together."""
    for run, result in runs.items():
        shared: dict[tuple[str, str], list[str]] = {}
        for name, entry in result["results"].items():
            if marked := mark(entry["overlap"]):
                shared.setdefault((marked, "; ".join(told(entry["overlap"], entry["n"]))), []).append(name)
        for (marked, said), names in shared.items():
            yield f"{marked} {run}, {', '.join(names)}: {said}."


def _cautions(runs: dict[str, Any]) -> Iterator[str]:
    """Say of which evaluations the numbers of two models stand side by side but are of other clips."""
    names = dict.fromkeys(name for run in runs.values() for name in run["results"])
    for name in names:
        entries = [run["results"][name] for run in runs.values() if name in run["results"]]
        if len({entry["ids_sha256"] for entry in entries}) > 1:
            counts = ", ".join(f"{entry['n']:,}" for entry in entries)
            yield f"{name}: the models were evaluated on different clips (n {counts}); these numbers do not compare."

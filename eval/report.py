"""Several models side by side: a printed table, results.json and one HTML page: `python -m eval report <config>`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from eval import page
from eval.results import RESULTS_FILE
from pipeline import shards, storage
from pipeline.cli import InputError


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Render the results of several models side by side."""

    results: tuple[str, ...] = ()
    """Folders that hold a results.json each, in the order to show them."""
    captions: tuple[str, ...] = ()
    """Datasets of shards whose captions to show side by side, clip by clip."""
    num_captions: int = 10
    """Clips to show with their captions."""
    out: str = ""
    """Folder or URI of the report."""


class Column(NamedTuple):
    """One headline number: where it stands in results.json."""

    title: str
    evaluation: str  # name of the entry: stage and task
    path: tuple[str, ...]
    percent: bool = True  # shown times 100


HEADLINES = {  # stage -> (title, path inside the entry)
    "zero-shot": (("accuracy", ("accuracy", "ensemble")), ("mAP", ("map", "ensemble"))),
    "captioning": tuple(
        (f"CIDEr-D, {guidance}", ("guidance", guidance, "cider_d"))
        for guidance in ("tags", "none", "predicted", "shuffled")
    ),
    "retrieval": (("text to audio R@10", ("text_to_audio", "R@10")), ("audio to text R@10", ("audio_to_text", "R@10"))),
}


def run(config: ReportConfig) -> None:
    """Write results.json and report.html, and print the table."""
    if not config.out:
        raise InputError("--out", config.out, "give the folder of the report")
    runs = _read_runs(config.results)
    clips = _read_captions(config.captions, config.num_captions)
    out = storage.resolve(config.out)
    storage.publish_json(storage.join(out, RESULTS_FILE), runs)
    table = headline(runs)
    html = page.render(runs, table, clips)
    storage.publish(storage.join(out, "report.html"), html.encode())
    print(text_table(table))
    print(f"\nreport: {storage.join(out, 'report.html')}")


def headline(runs: dict[str, Any]) -> list[list[str]]:
    """Return the table as cells, header first; a number that was not measured is a dash."""
    columns = _columns(runs)
    header = ["model", *(column.title for column in columns)]
    chance = ["chance", *(_chance(runs, column) for column in columns)]
    return [header, chance, *([name, *(_cell(run, column) for column in columns)] for name, run in runs.items())]


def _columns(runs: dict[str, Any]) -> list[Column]:
    """Return a column for each headline number of each evaluation that any run has: tasks never share one."""
    names = dict.fromkeys(name for run in runs.values() for name in run["results"])
    columns = [
        Column(f"{name}: {title}", name, path, percent=name.split()[0] != "captioning")
        for name in names
        for title, path in HEADLINES[name.split()[0]]
    ]
    return [column for column in columns if any(find(run, column) for run in runs.values())]


def find(run: dict[str, Any], column: Column) -> dict[str, Any] | None:
    """Return the metric of a column in one run, or None when it was not measured."""
    entry: Any = run["results"].get(column.evaluation)
    for step in column.path:
        entry = None if entry is None else entry.get(step)
    return entry


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Align cells into columns of plain text."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cell(run: dict[str, Any], column: Column) -> str:
    metric = find(run, column)
    if metric is None:
        return "-"
    low, high = metric["interval95"]
    if column.percent:
        return f"{100 * metric['value']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{metric['value']:.3f} [{low:.3f}, {high:.3f}]"


def _chance(runs: dict[str, Any], column: Column) -> str:
    found = [metric["chance"] for run in runs.values() if (metric := find(run, column)) and "chance" in metric]
    return f"{100 * found[0]:.1f}" if found else "-"


def _read_runs(folders: Sequence[str]) -> dict[str, Any]:
    if not folders:
        raise InputError("--results", folders, "give one or more folders that `python -m eval` wrote")
    runs: dict[str, Any] = {}
    for folder in folders:
        uri = storage.join(storage.resolve(folder), RESULTS_FILE)
        if not storage.exists(uri):
            raise InputError("--results", folder, f"no {RESULTS_FILE} there; run an evaluation with this --out")
        name = storage.resolve(folder).rpartition("/")[2]
        if name in runs:
            raise InputError("--results", folder, f"two folders are named {name}; rename one, names label the rows")
        runs[name] = storage.read_json(uri)
    return runs


def _read_captions(datasets: Sequence[str], count: int) -> list[page.Captioned]:
    """Return clips that every dataset has a caption for, spread evenly over the first one."""
    if not datasets or count < 1:
        return []
    names = [storage.resolve(data).rpartition("/")[2] for data in datasets]
    if len(set(names)) < len(names):
        raise InputError("--captions", datasets, "two datasets have the same name; rename one, names label the columns")
    try:
        indices = dict(zip(names, map(shards.Index, datasets), strict=True))
    except FileNotFoundError as error:
        raise InputError("--captions", datasets, str(error)) from None
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

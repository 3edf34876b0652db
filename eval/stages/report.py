"""Several models side by side: a printed table, results.json and the report: `python -m eval report <config>`.

Its results.json has all results of each run under the run's name, and "differences": evaluation -> number -> how far, and
how surely, the run is from the first one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from eval import results
from eval.report import headline, page, tables
from eval.results import compare
from eval.results.model_results import ModelResults
from eval.results.records import RunRecords
from pipeline import storage
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Render the results of several models side by side."""

    results: tuple[str, ...] = ()
    """Folders of results, one for each model, in the order to show them; the others are compared with the first."""
    captions: tuple[str, ...] = ()
    """Datasets of shards whose captions to show side by side, clip by clip."""
    num_captions: int = 10
    """Clips to show with their captions."""
    out: str = ""
    """Folder or URI of the report."""


def run(config: ReportConfig) -> None:
    """Write results.json and the report as HTML, Markdown and LaTeX, and print the table."""
    results.check_writable(config.out)
    if _holds_results(config.out):
        raise InputError("--out", config.out, "holds the results of a model; give the report a folder of its own")
    runs = _read_runs(config.results)
    clips = _read_captions(config.captions, config.num_captions)
    _add_differences(config.results, runs)
    typed = {name: ModelResults.from_json(run) for name, run in runs.items()}
    table = headline.build(typed)
    written = {
        "results.json": storage.json_bytes(runs),
        "report.md": tables.markdown(table, typed).encode(),
        "report.tex": tables.latex(table, typed).encode(),
        "report.html": page.render(typed, table, clips).encode(),
    }
    for name, data in written.items():
        storage.publish(storage.join(storage.resolve(config.out), name), data)
    print(tables.text(table))
    print(f"\nreport: {storage.join(storage.resolve(config.out), 'report.html')}")


def _add_differences(folders: Sequence[str], runs: RunRecords) -> None:
    """Add to every run but the first how it differs from the first, by evaluation; those without outcomes have none."""
    (start, first), *others = zip(folders, runs.values(), strict=True)
    for folder, result in others:
        shared = [name for name in result["results"] if name in first["results"]]
        found = {name: compare.runs(start, folder, name) for name in shared}
        result["differences"] = {name: difference for name, difference in found.items() if difference}


def _read_runs(folders: Sequence[str]) -> RunRecords:
    if not folders:
        raise InputError("--results", folders, "give one or more folders that `python -m eval` wrote")
    runs: RunRecords = {}
    for folder in folders:
        name = storage.resolve(folder).rpartition("/")[2]
        if name in runs:
            raise InputError("--results", folder, f"two folders are named {name}; rename one, names label the rows")
        runs[name] = results.read(folder, "--results")
        for evaluation, entry in runs[name]["results"].items():
            if lacking := [key for key in results.SHOWN if key not in entry]:
                remedy = f"its entry {evaluation!r} lacks {', '.join(lacking)}; run that evaluation again"
                raise InputError("--results", folder, remedy)
    return runs


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

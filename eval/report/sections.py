"""What the report tells of how each number came about: protocol, lineage, prompts, folds, classes, configs."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from html import escape
from typing import Any, NamedTuple

from eval.report import charts, headline
from eval.report.tables import Rows

NUMERIC = re.compile(r"[-+<\d][-+\d.,\[\] ]*")


class Entry(NamedTuple):
    """One evaluation of one run."""

    run: str
    place: int  # of the run, for its color
    name: str  # stage and task
    entry: dict[str, Any]

    @property
    def title(self) -> str:
        """Return run and evaluation."""
        return f"{self.run}, {self.name}"


def table(cells: Rows, note: str = "") -> str:
    """Return a table whose first row is the header; cells are plain text."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in cells[0])
    lines = ("<tr>" + "".join(map(_td, row)) + "</tr>" for row in cells[1:])
    told = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>{told}'


def entries(runs: dict[str, Any], key: str = "") -> Iterator[Entry]:
    """Yield every evaluation of every run, evaluations together; only those whose entries have a key, where one is given."""
    for name in dict.fromkeys(name for run in runs.values() for name in run["results"]):
        for place, (run, result) in enumerate(runs.items()):
            if name in result["results"] and (not key or key in result["results"][name]):
                yield Entry(run, place, name, result["results"][name])


def protocol(runs: dict[str, Any]) -> Rows:
    """Return of which clips each number is, by which folds, and what of them was trained on."""
    found = [["evaluation", "model", "clips", "hash of their ids", "folds", "known overlap with training", "on"]]
    for run, _place, name, entry in entries(runs):
        n = f"{entry['n']:,} of {entry['num_listed']:,}"
        if entry.get("n_single_label", entry["n"]) < entry["n"]:
            n += f", {entry['n_single_label']:,} with one label"
        if entry.get("missing"):
            reasons = Counter(entry["missing"].values()).most_common()
            n += "; not read: " + ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        folds = entry["fold_rule"] + (f": {', '.join(entry['folds'])}" if entry["folds"] else "")
        overlap = "; ".join(headline.told(entry["overlap"], entry["n"])) or "none"
        date = entry.get("evaluated_at", headline.NOT_MEASURED)[:10]
        found.append([name, run, n, entry["ids_sha256"][:12], folds, overlap, date])
    return found


def lineage(runs: dict[str, Any]) -> Rows:
    """Return what each model was made by and from."""
    told = ("made by", "from", "started from", "captions", "captioner", "tags given", "filter", "clips trained on")
    found = [["model", "checkpoint", *told]]
    for run, result in runs.items():
        history = result["model"]["lineage"]
        origins = [each.get("generation") or {} for each in history.get("origins", [history])]
        made = " ".join(filter(None, (history.get("stage"), history.get("layout"))))
        read = [history[key] for key in ("weights", "data", "source", "labelled") if history.get(key)]
        starts = {"": history.get("init"), " (audio encoder)": history.get("init_audio")}
        guided = ["yes" if "tags" in (each.get("guidance") or ()) else "no" for each in origins if each]
        columns = (
            [made],
            [_place(uri) for uris in read for uri in ([uris] if isinstance(uris, str) else uris)],
            [_name(uri) + what for what, uri in starts.items() if uri],
            [_name(each["out"]) for each in origins if each.get("out")],
            [_captioner(each) for each in origins if each.get("captioner")],
            list(dict.fromkeys(guided)),
            list(dict.fromkeys(_filter(history, overlay) for overlay in _several(history.get("overlay")))),
            [str(history.get("num_clips", ""))],
        )
        shown = [", ".join(filter(None, column)) or headline.NOT_MEASURED for column in columns]
        found.append([run, result["model"]["revision"][:12], *shown])
    return found


def prompts(runs: dict[str, Any]) -> Iterator[str]:
    """Yield a table for each zero-shot evaluation, the prompts down, the runs across."""
    for name, group in _by_evaluation(runs, "prompts"):
        metric = "accuracy" if all("accuracy" in each.entry for each in group) else "map"
        cells = [[f"{name}: {'mAP' if metric == 'map' else metric}", *(each.run for each in group)]]
        for prompt in dict.fromkeys(prompt for each in group for prompt in each.entry[metric]):
            values = [each.entry[metric].get(prompt) for each in group]
            cells.append([prompt, *(headline.show(value) if value else headline.NOT_MEASURED for value in values)])
        yield table(cells)


def folds(runs: dict[str, Any]) -> Iterator[str]:
    """Yield a table for each evaluation by folds, the folds down, the runs across, with what was chosen there."""
    for name, group in _by_evaluation(runs, "per_fold"):
        cells = [[f"{name}: fold", *(each.run for each in group)]]
        for fold in dict.fromkeys(fold for each in group for fold in each.entry["per_fold"]):
            cells.append([fold, *(_fold(each.entry, fold) for each in group)])
        yield table(cells)


def per_class(runs: dict[str, Any]) -> Iterator[str]:
    """Yield for each evaluation how well each class goes, worst first by the first run that has it."""
    for name, group in _by_evaluation(runs, "per_class"):
        first = group[0].entry["per_class"]
        metric = "accuracy" if any("accuracy" in row for row in first.values()) else "ap"
        worst = sorted(first, key=lambda label: (_value(first[label], metric), label))
        title = "accuracy" if metric == "accuracy" else "average precision"
        head = "".join(f"<th>{escape(each.run)}</th>" for each in group)
        lines = (
            f"<tr><td>{escape(label)}</td><td class='n'>{first[label]['n']}</td>"
            + "".join(_share(each.entry["per_class"].get(label, {}).get(metric), each.place) for each in group)
            + "</tr>"
            for label in worst
        )
        yield (
            f"<details><summary>{escape(name)}: {title} of {len(worst)} classes, per cent</summary>"
            f'<div class="scroll"><table><tr><th>class</th><th>clips</th>{head}</tr>{"".join(lines)}</table></div></details>'
        )


def confusions(runs: dict[str, Any]) -> Iterator[str]:
    """Yield the confusion of every evaluation that has one; the first is open."""
    for i, found in enumerate(entries(runs, "confusion")):
        chart = charts.confusion(found.entry["classes"], found.entry["confusion"], found.place)
        yield f"<details{' open' if i == 0 else ''}><summary>{escape(found.title)}</summary>{chart}</details>"


def configs(runs: dict[str, Any]) -> Iterator[str]:
    """Yield the resolved config and the versions of every evaluation, and the network of every run."""
    for run, result in runs.items():
        about = {"revision": result["model"]["revision"], "network": result["model"].get("network")}
        yield _folded(f"{run}: checkpoint and network", about)
        for name, entry in result["results"].items():
            told = {key: entry[key] for key in ("config", "versions", "evaluated_at", "ids_sha256") if key in entry}
            yield _folded(f"{run}, {name}: config and versions", told)


def _by_evaluation(runs: dict[str, Any], key: str) -> Iterator[tuple[str, list[Entry]]]:
    """Yield the entries that have a key, those of one evaluation together under its name."""
    for name, group in itertools.groupby(entries(runs, key), key=lambda found: found.name):
        yield name, list(group)


def _fold(entry: dict[str, Any], fold: str) -> str:
    if fold not in entry["per_fold"]:
        return headline.NOT_MEASURED
    chosen = entry.get("chosen", {}).get(fold, {})
    words = ", ".join(f"{key} {str(value)[:12]}" for key, value in chosen.items())
    return headline.show(entry["per_fold"][fold]) + (f" ({words})" if words else "")


def _td(cell: str) -> str:
    """Return a cell; numbers and dates are not broken over lines."""
    return f"<td{' class=n' * bool(NUMERIC.fullmatch(cell))}>{escape(cell)}</td>"


def _folded(title: str, value: dict[str, Any]) -> str:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def _name(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


def _place(uri: str) -> str:
    """Return the name of a dataset, of a file with its folder: metadata.csv alone tells nothing."""
    name = _name(uri)
    return "/".join(uri.split("/")[-2:]) if "." in name else name


def _captioner(made: dict[str, Any]) -> str:
    revision = made.get("captioner_revision", "")[:12]
    return _name(made["captioner"]) + (f" ({revision})" if revision else "")


def _several(overlay: Any) -> list[dict[str, Any]]:
    """Return the overlays of a lineage: one for each dataset, or the only one."""
    return overlay if isinstance(overlay, list) else [overlay] if overlay else []


def _filter(history: dict[str, Any], overlay: dict[str, Any]) -> str:
    choice = "best caption of each clip" if history["best_only"] else "all captions"
    kept = f"best {100 * history['keep_fraction']:.0f} % of the clips"
    return f"{choice} by {_name(overlay['model'])} ({overlay['revision'][:12]}), {kept}"


def _value(row: dict[str, Any], metric: str) -> float:
    """Return what to sort by; classes without a value come last."""
    value = row.get(metric)
    return float("inf") if value is None else float(value)


def _share(value: float | None, place: int) -> str:
    if value is None:
        return "<td>-</td>"
    return f'<td class="n share" style="--c:{charts.color(place)};--v:{100 * value:.1f}%">{100 * value:.1f}</td>'

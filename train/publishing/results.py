"""The numbers of a model for its card, from the files that evaluations wrote; eval/results/store.py specifies them."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pipeline import storage
from pipeline.errors import InputError

FOLDER, EARLIER_FILE = "results", "results.json"
PARTS = ("per_fold", "per_class", "config", "versions")  # of an entry, that hold no number over all clips
SINGLE_LABEL = ("accuracy", "top5")  # numbers over the clips with one label
ENSEMBLE = "ensemble"  # of the prompts: beside it, those of single prompts are left out


class Number(NamedTuple):
    """One number over all clips of one evaluation."""

    evaluation: str  # stage and task
    name: str  # path in the entry, such as "text_to_audio R@10"
    value: float
    interval: tuple[float, float] | None  # 95 %
    chance: float | None
    n: int  # clips
    mark: str  # '*': clips that the model was trained or selected on; '?': not known


class Results(NamedTuple):
    """All numbers of a model, and what their marks stand for."""

    numbers: list[Number]
    notes: list[str]


def read(folders: Sequence[str], revision: str) -> Results:
    """Return the numbers of a model, by evaluation.

    Raises:
        InputError: naming --results, when a folder has no results, a file is damaged, or they are of another model.
    """
    entries: dict[str, Any] = {}
    for folder in folders:
        uris = list(_files(folder))
        if not uris:
            raise InputError("--results", folder, "holds no results; give the --out of an evaluation of this model")
        for uri in uris:
            entries |= _entries(uri, folder, revision)
    try:
        numbers = [number for name, entry in sorted(entries.items()) for number in _numbers(name, entry)]
        notes = [note for name, entry in sorted(entries.items()) for note in _notes(name, entry)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError("--results", ", ".join(folders), f"hold an entry that is no evaluation ({error!r})") from None
    return Results(numbers, notes)


def _files(folder: str) -> Iterator[str]:
    root = storage.resolve(folder)
    try:
        if storage.exists(earlier := storage.join(root, EARLIER_FILE)):
            yield earlier
        own = storage.join(root, FOLDER)
        yield from (storage.join(own, name) for name in storage.list_names(own) if name.endswith(".json"))
    except OSError as error:
        raise InputError("--results", folder, f"cannot be read: {error}") from None


def _entries(uri: str, folder: str, revision: str) -> dict[str, Any]:
    """Return the evaluations of one file by stage and task."""
    try:
        content = storage.read_json(uri)
        model, entries = content["model"], dict(content["results"])
        name, evaluated = model["name"], model["revision"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("--results", folder, f"{uri} holds no results of a model ({error!r})") from None
    if evaluated != revision:
        other = f"{uri} is of {name}, revision {str(evaluated)[:12]}; the model has {revision[:12]}"
        raise InputError("--results", folder, f"{other}: give the results of this checkpoint")
    return entries


def _numbers(evaluation: str, entry: Any) -> Iterator[Number]:
    overlap = entry.get("overlap", {})
    mark = "*" * any(overlap.values()) + "?" * any(count is None for count in overlap.values())
    for path, metric in _metrics({name: part for name, part in entry.items() if name not in PARTS}):
        interval = metric.get("interval95")
        yield Number(
            evaluation,
            " ".join(part.replace("_", " ") for part in path if part != ENSEMBLE),
            float(metric["value"]),
            (float(interval[0]), float(interval[1])) if interval else None,
            metric.get("chance"),
            _clips(path[0], entry),
            mark,
        )


def _clips(name: str, entry: Any) -> int:
    """Return over how many clips a number is, where fewer count for it than for others."""
    counted = entry.get("n_single_label") if name in SINGLE_LABEL else entry.get(f"n_{name}")
    return int(counted or entry["n"])


def _metrics(part: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and the record of each number."""
    if not isinstance(part, dict):
        return
    if isinstance(part.get("value"), float | int):
        yield path, part
        return
    for name, inner in part.items():
        if ENSEMBLE not in part or name == ENSEMBLE:
            yield from _metrics(inner, (*path, name))


def _notes(evaluation: str, entry: Any) -> Iterator[str]:
    for stage, count in entry.get("overlap", {}).items():
        if count is None:
            yield f"? {evaluation}: which clips `{stage}` was trained on is not known."
        elif count:
            yield f"* {evaluation}: `{stage}` was trained or selected on {count:,} of the {entry['n']:,} clips."

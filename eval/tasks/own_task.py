"""A task of one's own: any source of labelled or captioned clips, with the splits that its fold column names."""

import difflib

from eval.tasks.task import Task
from pipeline import sources, storage
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from pipeline.sources.official_layouts import LISTINGS

TRAIN = ("train", "training", "development")  # names of folds, in lower case
VALIDATION = ("val", "valid", "validation", "dev")
TEST = ("test", "testing", "eval", "evaluation")


def read(
    name: str, folder: str, folds: tuple[str, ...], training: bool, columns: str, classes: str
) -> tuple[Task, list[Clip]]:
    """Return the task that a source is, and its clips; see `tasks.read`.

    A fold column of train, validation and test makes official splits, numbers make a cross-validation; without one, all
    clips are evaluated.
    """
    if near := difflib.get_close_matches(name, LISTINGS, cutoff=0.75):
        raise InputError(
            "--task", name, f"did you mean {near[0]}? choose one of {', '.join(LISTINGS)}, or another name"
        )
    if not name:
        raise InputError("--task", name, f"choose one of {', '.join(LISTINGS)}, or name a task of your own")
    if not folder:
        raise InputError("--task-dir", folder, f"give the source of {name!r}: a table, folder, tars or Parquet files")
    clips = sources.read_clips(folder, flag="--task-dir", column_names=columns)
    task = _task(name, folder, clips, _read_classes(classes))
    wanted = {*(folds or task.test), *(task.train + task.validation if training else ())}
    if absent := [fold for fold in folds if fold not in {clip.fold for clip in clips}]:
        have = ", ".join(sorted({clip.fold for clip in clips if clip.fold})) or "none"
        raise InputError("--folds", tuple(absent), f"no clip is in such a fold; folds: {have}")
    return task, [clip for clip in clips if not wanted or clip.fold in wanted]


def _task(name: str, folder: str, clips: list[Clip], classes: tuple[str, ...]) -> Task:
    have = sorted({clip.fold for clip in clips if clip.fold})
    train, validation, test = (
        tuple(fold for fold in have if fold.lower() in names) for names in (TRAIN, VALIDATION, TEST)
    )
    numbers = tuple(sorted(have, key=int)) if have and all(fold.isdigit() for fold in have) else ()
    source = storage.resolve(folder).rpartition("/")[2]
    rule = f"all clips of {source}"
    if test:
        rule = f"the split {', '.join(test)} of {source}"
    elif numbers:
        rule = f"the folds {', '.join(numbers)} of {source}"
    counts = {len(clip.tags) for clip in clips}
    unknown = sorted({tag for clip in clips for tag in clip.tags} - set(classes)) if classes else []
    if unknown:
        raise InputError(
            "--classes", tuple(unknown[:3]), f"{len(unknown)} labels of clips are not in the list; add them"
        )
    return Task(
        name=name,
        fold_rule=rule,
        labels="none" if counts == {0} else "one" if counts == {1} else "many",
        captioned=any(clip.captions for clip in clips),
        folds=() if test else numbers,
        train=train if test else (),
        validation=validation if test else (),
        test=test,
        classes=classes,
    )


def _read_classes(uri: str) -> tuple[str, ...]:
    """Return the classes of a list, one a line; names are read as labels are, with blanks for underscores."""
    if not uri:
        return ()
    with sources.readable(uri, "--classes"):
        lines = storage.read_text(storage.resolve(uri)).splitlines()
    names = [line.strip().replace("_", " ") for line in lines if line.strip()]
    if len(set(names)) < len(names) or len(names) < 2:
        raise InputError(
            "--classes", uri, f"has {len(names)} lines, {len(set(names))} of them different; want a class a line"
        )
    return tuple(names)

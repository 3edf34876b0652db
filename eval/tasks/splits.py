"""What is trained, chosen and tested on: the official folds one after the other, or the official splits.

Nothing is ever chosen on what is tested. In cross-validation the fold after the tested one chooses, and then trains too;
where a dataset has no validation split, a tenth of its training clips chooses.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eval import tasks
from eval.tasks import Task
from pipeline.errors import InputError
from pipeline.sources.clip import Clip

HELD_BYTE = 26  # of 256: a tenth of the clips, by the hash of their keys


class Split(NamedTuple):
    """Rows of clips."""

    name: str  # of what is tested
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def read(
    name: str, folder: str, folds: tuple[str, ...], columns: str = "", classes: str = ""
) -> tuple[Task, list[Clip]]:
    """Return a task and all of its clips, training clips too; `folds` narrows a cross-validation to some.

    Raises:
        InputError: as `tasks.read` and `split` do, and for folds that are not what official splits are tested on.
    """
    known = tasks.TASKS.get(name)
    if known and known.test and set(folds) - set(known.test):
        have = ", ".join((*known.train, *known.validation, *known.test))
        raise InputError(
            "--folds", folds, f"{name} has {have} and is tested on {', '.join(known.test)}; leave --folds out"
        )
    task, clips = tasks.read(name, folder, folds, training=True, columns=columns, classes=classes)
    split(task, clips, "--folds" if folds else "--task-dir")  # too few folds fail before anything is computed
    return task, clips


def split(task: Task, clips: Sequence[Clip], flag: str = "--task-dir") -> list[Split]:
    """Return the splits of clips. Raises InputError when they have no folds to split by."""
    folds = np.array([clip.fold for clip in clips])
    if not task.folds:
        return [_official(task, clips, folds, flag)]
    names = [name for name in task.folds if (folds == name).any()]
    if len(names) < 3:
        needed = f"{task.name} has folds {', '.join(task.folds)}; at least 3 with clips that can be read are needed"
        raise InputError(flag, ", ".join(names) or "none", needed)
    found = []
    for i, name in enumerate(names):
        chooses = folds == names[(i + 1) % len(names)]
        trains = np.isin(folds, names) & (folds != name)
        rows = (trains & ~chooses, chooses, folds == name)
        found.append(Split(name, *(np.flatnonzero(each) for each in rows)))
    return found


def listed(task: Task, clips: Sequence[Clip]) -> int:
    """Return how many of the clips that a task lists are to be tested, whether they can be read or not."""
    return sum(clip.fold in (task.folds or task.test) for clip in clips)


def rule(task: Task, parts: Sequence[Split]) -> str:
    """Return the rule that a task was split by, and how many of its folds where some had no clip to test."""
    return task.fold_rule + (f", {len(parts)} of {len(task.folds)} folds" if len(parts) < len(task.folds) else "")


def _official(task: Task, clips: Sequence[Clip], folds: np.ndarray, flag: str) -> Split:
    trains, tests = np.isin(folds, task.train), np.isin(folds, task.test)
    chooses = np.isin(folds, task.validation)
    if not (trains.any() and tests.any()):
        have = ", ".join(sorted(set(folds.tolist()))) or "none"
        needed = f"{task.name} needs clips that can be read of its training and test splits; these are those it has"
        raise InputError(flag, have, needed)
    if not chooses.any():
        chooses = trains & np.array([hashlib.sha256(clip.key.encode()).digest()[0] < HELD_BYTE for clip in clips])
        trains &= ~chooses
    return Split("/".join(task.test), *(np.flatnonzero(each) for each in (trains, chooses, tests)))

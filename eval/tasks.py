"""Downstream datasets as users have them: which file lists the clips and how labels read. One short entry each."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline import sources, storage
from pipeline.cli import InputError
from pipeline.clip import Clip


@dataclass(frozen=True, kw_only=True)
class Task:
    """A downstream dataset."""

    name: str
    files: tuple[str, ...]  # listings inside --task-dir, the first that is there is read
    fold_rule: str
    label_text: Callable[[str], str] = str.lower  # label -> the words put into a prompt


TASKS = {
    task.name: task
    for task in (
        Task(
            name="synth",
            files=("evaluation_segments.csv",),
            fold_rule="the evaluation split of the procedural corpus",
            label_text=lambda label: label.split(",")[0].lower(),
        ),
        Task(
            name="esc50",
            files=("meta/esc50.csv", "metadata.csv"),
            fold_rule="ESC-50 official folds, those named by --folds",
        ),
        Task(
            name="audiocaps",
            files=("test.csv", "metadata.csv"),
            fold_rule="AudioCaps test, or the splits of a metadata.csv that --folds names",
        ),
        Task(
            name="clotho",
            files=("clotho_captions_evaluation.csv", "metadata.csv"),
            fold_rule="Clotho evaluation, or the splits of a metadata.csv that --folds names",
        ),
    )
}


def read(name: str, folder: str, folds: tuple[str, ...]) -> tuple[Task, list[Clip]]:
    """Return a task and its clips. Raises InputError naming what is wrong with --task, --task-dir or --folds."""
    if name not in TASKS:
        raise InputError("--task", name, f"choose one of {', '.join(TASKS)}")
    task = TASKS[name]
    if not folder:
        raise InputError("--task-dir", folder, f"give the folder that holds {' or '.join(task.files)}")
    places = [storage.join(storage.resolve(folder), file) for file in task.files]
    listing = next((place for place in places if storage.exists(place)), None)
    if listing is None:
        raise InputError("--task-dir", folder, f"holds no {' or '.join(task.files)}")
    return task, sources.read_clips(listing, folds, flag="--task-dir")

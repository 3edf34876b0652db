"""What evaluations of clips by a checkpoint share: their flags, and what is found out before any model runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from eval import results, tasks
from eval.embedding import in_process
from eval.tasks import Task
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from train import checkpoint
from train.checkpoint import Checkpoint, Kind

Read = Callable[..., tuple[Task, list[Clip]]]  # as `tasks.read`


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Which model, and what computes."""

    model: str = ""
    """Checkpoint directory that `train pretrain` wrote, or another kind where the stage says so; or `hf:` and a CLAP of
    transformers: a folder, or a name on the hub."""
    batch_size: int = 64
    """Clips in one pass of the model. Changes no number."""
    workers: int = 0
    """Ray Data actors that embed, and folds that are trained at a time; 0 works in this process."""
    gpus_per_worker: float = 0.0
    """GPUs of each actor; 0 runs them on CPUs."""
    device: str = "cpu"
    """Torch device of this process, cpu or cuda."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(ComputeConfig):
    """Which model, where the numbers go, and what computes."""

    out: str = ""
    """Folder or URI of this model's results: a file for each evaluation in <out>/results."""
    fingerprints: tuple[str, ...] = ()
    """Tables that `pipeline fingerprint` made of the training audio; evaluated clips that sound like it are counted."""
    cache: str = ""
    """Folder or URI that keeps embeddings by model and clip, for all tasks; empty is <out>/embeddings."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(RunConfig):
    """Evaluate a checkpoint on a task."""

    task: str = ""
    """One of the tasks in eval/tasks/registry.py, or a name of your own for --task-dir."""
    task_dir: str = ""
    """The dataset's folder; of a task of your own, any source of clips that `pipeline inspect` understands."""
    columns: str = ""
    """Columns of a table that are named otherwise, as in file=path,labels=tags."""
    classes: str = ""
    """Of a task of your own, a file with its classes, one a line; empty takes the labels of its clips."""
    folds: tuple[str, ...] = ()
    """Evaluate only these folds; empty takes the official test split, or all folds."""

    @property
    def listing(self) -> dict[str, str]:
        """Return how the task is listed, as `tasks.read` takes it."""
        return {"columns": self.columns, "classes": self.classes}


def check(config: EvaluationConfig, *kinds: Kind, read: Read = tasks.read) -> tuple[Task, list[Clip]]:
    """Return the task and its clips. Raises InputError for what is wrong with the command, before any model is loaded."""
    task, clips = read(config.task, config.task_dir, config.folds, **config.listing)
    results.check(config.out, checkpoint.describe(config.model, "--model", *kinds).revision)
    check_compute(config)
    return task, clips


def classes(config: EvaluationConfig, task: Task, clips: list[Clip]) -> list[str]:
    """Return the classes of the whole listing: folds narrow what is evaluated, not what there is to choose from.

    Raises:
        InputError: when there are fewer than two.
    """

    def listed() -> Iterator[Clip]:  # read only where the task has no list of its classes
        yield from tasks.read(config.task, config.task_dir, (), training=True, **config.listing)[1]
        yield from clips

    names = tasks.classes(task, config.task_dir, listed())
    if len(names) < 2:
        raise InputError("--task-dir", config.task_dir, f"its clips have {len(names)} classes; at least 2 are needed")
    return names


def check_compute(config: ComputeConfig) -> None:
    """Raise InputError for a device that is absent, and for counts that are out of range."""
    in_process.device(config.device)
    if config.batch_size < 1:
        raise InputError("--batch-size", config.batch_size, "use 1 or more")
    if config.workers < 0 or config.gpus_per_worker < 0:
        raise InputError("--workers", config.workers, "use 0 or more, here and in --gpus-per-worker")


def load(uri: str, flag: str, device: str) -> Checkpoint:
    """Return a checkpoint, its model on a device. Raises InputError, naming the flag, when its files are damaged."""
    try:
        loaded = checkpoint.load(uri)
    except Exception as error:  # torch, safetensors and tokenizers fail at damaged files in every way
        reason = str(error).strip().partition("\n")[0]
        raise InputError(flag, uri, f"cannot be loaded ({reason}); copy or make it again") from None
    loaded.model.to(in_process.device(device))
    return loaded

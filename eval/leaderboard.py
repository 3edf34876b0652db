"""mteb's own tasks on a checkpoint, in the files that its leaderboard takes (MTEB; its audio tasks are MAEB).

    <out>/mteb/results/<organization>__<model>/<revision>/<task>.json, model_meta.json, run_settings.jsonl

mteb loads the data, computes every number and writes every file. Our own evaluations follow other protocols (official
folds, captions as queries), so that none of their numbers is written as a result of mteb.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.adapters import MtebEncoder, model_meta
from pipeline import run_dir, storage
from pipeline.errors import InputError, JobError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

log = logging.getLogger(__name__)
FOLDER = "mteb"  # in --out; mteb adds results/<model>/<revision>


@dataclass(frozen=True, kw_only=True)
class MtebConfig:
    """Which tasks of mteb, and what its leaderboard shows of the model. What is left empty is written as unknown."""

    tasks: tuple[str, ...] = ()
    """Tasks and benchmarks of mteb, such as ESC50_Zeroshot or "MAEB(v1)". mteb reads their data from the hub."""
    name: str = ""
    """Name of the model, organization/model; empty is blat-ray/<folder of --model>."""
    license: str = ""
    """Licence of the weights, as the hub writes it: apache-2.0."""
    reference: str = ""
    """Address of the model's page."""
    training_datasets: tuple[str, ...] = ()
    """Tasks of mteb whose data the model was trained on; the leaderboard marks their numbers."""


def check(config: MtebConfig, out: str) -> dict[str, "AbsTask"]:
    """Return the tasks by name.

    Raises:
        InputError: naming the flag, when mteb is not installed, knows no such task or no such licence, or when `out` is
            a URI.
    """
    try:
        import mteb
    except ImportError:
        raise InputError("--mteb.tasks", config.tasks, "pip install -e '.[mteb]' brings mteb") from None
    folder = run_dir.writable(out)
    if "://" in folder:
        raise InputError("--out", out, "mteb writes to disk alone: give a folder, and copy it afterwards")
    model_meta(_card(config))
    found: dict[str, AbsTask] = {}
    for name in config.tasks:
        try:
            known = name in {benchmark.name for benchmark in mteb.get_benchmarks()}
            tasks = mteb.get_benchmark(name).tasks if known else [mteb.get_task(name)]
        except KeyError as error:
            remedy = f"mteb {mteb.__version__} has no such task or benchmark ({error.args[0]})"
            raise InputError("--mteb.tasks", name, remedy) from None
        found |= {task.metadata.name: task for task in tasks}
    return found


def lacking(task: "AbsTask", kind: str) -> str:
    """Return what a task gives that a kind of checkpoint cannot embed, such as "text"; "" where it can embed all."""
    able = {"audio", "text"} if kind == "clap" else {"audio"}
    return " and ".join(sorted({*task.metadata.modalities} - able))


@dataclass(frozen=True, kw_only=True)
class MtebRun:
    """One task of mteb on one checkpoint."""

    task: "AbsTask"
    card: MtebConfig
    model: str
    out: str
    device: str
    batch_size: int


def run(config: MtebRun) -> None:
    """Let mteb evaluate; a task that has its file is not run again. Raises JobError where mteb has no result."""
    import mteb

    encoder = MtebEncoder(config.model, device=config.device, card=_card(config.card))
    folder = storage.join(storage.resolve(config.out), FOLDER)
    found = mteb.evaluate(
        encoder,
        config.task,
        cache=mteb.ResultCache(folder),
        encode_kwargs={"batch_size": config.batch_size},
        show_progress_bar=False,
    )
    name, meta = config.task.metadata.name, encoder.mteb_model_meta
    if not found.task_results:
        raise JobError(f"mteb has no result of {name}")
    score = found.task_results[0].get_score()
    path = mteb.ResultCache(folder).get_task_result_path(name, meta)
    log.info("mteb %s: %s %.4f; wrote %s", name, config.task.metadata.main_score, score, path)


def _card(config: MtebConfig) -> dict[str, Any]:
    """Return the fields of mteb's ModelMeta that the command gives."""
    given = {"name": config.name, "license": config.license, "reference": config.reference}
    datasets = {"training_datasets": {*config.training_datasets}} if config.training_datasets else {}
    return {key: value for key, value in given.items() if value} | datasets

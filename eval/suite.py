"""Every task whose data is there, every stage that fits the model, and the report: `python -m eval suite <config>`."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from eval import captioning, finetune, linear_probe, report, results, retrieval, tasks, zero_shot
from eval.captioning import CaptioningConfig
from eval.evaluation import RunConfig
from eval.finetune import FinetuneTaskConfig
from eval.linear_probe import LinearProbeConfig
from eval.report import ReportConfig
from eval.retrieval import RetrievalConfig
from eval.tasks import Task
from eval.zero_shot import PROMPTS, ZeroShotConfig
from pipeline import storage
from pipeline.cli import InputError, JobError
from train import checkpoint
from train.finetune import FinetuneConfig

log = logging.getLogger("eval.suite")
StageName = Literal["zero-shot", "retrieval", "linear-probe", "finetune", "captioning"]


@dataclass(frozen=True, kw_only=True)
class SuiteConfig(RunConfig):
    """Run every evaluation that fits a checkpoint and the data at hand, and write the report."""

    task_dir: str = ""
    """Folder that holds a folder for each dataset, named as the task or as it is published; or one dataset's own."""
    tasks: tuple[str, ...] = ()
    """Only these tasks; empty takes all that are there."""
    stages: tuple[StageName, ...] = ("zero-shot", "retrieval", "linear-probe", "captioning")
    """Only these stages, of those that fit the model; finetune trains, and is left out unless it is named."""
    text_encoder: str = ""
    """Sentence encoder for zero-shot by a tagger, as in `eval zero-shot`."""
    prompts: tuple[str, ...] = PROMPTS
    """Prompt templates of zero-shot."""
    recipe: FinetuneConfig = field(default_factory=FinetuneConfig)
    """How finetune trains."""
    beside: tuple[str, ...] = ()
    """Results folders of other models, to show in the report beside this one."""


class Evaluation(NamedTuple):
    """One stage on one task."""

    name: str
    run: Callable[[Any], None]
    config: Any


def run(config: SuiteConfig) -> None:
    """Run what is not in results.json yet, then the report; an evaluation that fails is told and the others go on."""
    about = checkpoint.describe(config.model, "--model", *checkpoint.KINDS)
    results.check(config.out, about["revision"])
    found = tasks.present(config.task_dir) if config.task_dir else {}
    if unknown := [name for name in config.tasks if name not in found]:
        raise InputError(
            "--tasks", unknown, f"not in --task-dir {config.task_dir!r}; it has {', '.join(found) or 'none'}"
        )
    chosen = {name: folder for name, folder in found.items() if not config.tasks or name in config.tasks}
    planned = list(_plan(config, about, chosen))
    if not planned:
        have = ", ".join(chosen) or "no task"
        raise InputError(
            "--task-dir", config.task_dir, f"holds {have}; no stage of {config.stages} fits this {about['kind']}"
        )
    log.info("suite: %d evaluations: %s", len(planned), ", ".join(each.name for each in planned))
    failed: dict[str, str] = {}
    for number, each in enumerate(planned, start=1):
        if results.done(config.out, each.name, each.config):
            log.info("suite: %s is done already", each.name)
            continue
        log.info("suite: %s (%d of %d)", each.name, number, len(planned))
        try:
            each.run(each.config)
        except (InputError, JobError) as error:
            failed[each.name] = str(error)
            log.warning("suite: %s failed: %s", each.name, error)
    if len(failed) == len(planned):
        raise JobError(f"every evaluation failed: {failed}")
    folder = storage.join(storage.resolve(config.out), "report")
    report.run(ReportConfig(results=(config.out, *config.beside), out=folder))
    if failed:
        raise JobError(f"{len(failed)} of {len(planned)} evaluations failed, the report shows the others: {failed}")


def _plan(config: SuiteConfig, about: dict[str, Any], folders: dict[str, str]) -> Iterator[Evaluation]:
    for name, folder in folders.items():
        task = tasks.TASKS[name]
        for stage in config.stages:
            if _fits(stage, task, about["kind"], config):
                yield Evaluation(f"{stage} {name}", *_made(stage, config, name, folder, about))


def _fits(stage: StageName, task: Task, kind: str, config: SuiteConfig) -> bool:
    if stage in ("linear-probe", "finetune"):
        splits = bool(task.folds or task.train)
        return task.labels != "none" and splits and (stage == "finetune" or kind != "captioner")
    if stage == "zero-shot":
        return task.labels != "none" and (kind == "clap" or (kind == "tagger" and bool(config.text_encoder)))
    return task.captioned and kind == ("clap" if stage == "retrieval" else "captioner")


def _made(
    stage: StageName, config: SuiteConfig, name: str, folder: str, about: dict[str, Any]
) -> tuple[Callable[[Any], None], Any]:
    """Return what runs a stage, and its config."""
    shared = {each.name: getattr(config, each.name) for each in dataclasses.fields(RunConfig)}
    common = {**shared, "task": name, "task_dir": folder}
    if stage == "zero-shot":
        encoder = config.text_encoder if about["kind"] == "tagger" else ""
        return zero_shot.run, ZeroShotConfig(**common, prompts=config.prompts, text_encoder=encoder)
    if stage == "retrieval":
        return retrieval.run, RetrievalConfig(**common)
    if stage == "linear-probe":
        return linear_probe.run, LinearProbeConfig(**common)
    if stage == "finetune":
        return finetune.run, FinetuneTaskConfig(**common, recipe=config.recipe)
    known = {each.name for each in dataclasses.fields(CaptioningConfig)}
    guidance = ("predicted",) if about["network"]["tagger"] else ("none",)
    return captioning.run, CaptioningConfig(**{k: v for k, v in common.items() if k in known}, guidance=guidance)  # type: ignore[arg-type]

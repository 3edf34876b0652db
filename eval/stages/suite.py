"""Every task whose data is there, every stage that fits the model, and the report: `python -m eval suite <config>`."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from eval import leaderboard, results, tasks
from eval.embedding.evaluation import RunConfig
from eval.leaderboard import MtebConfig, MtebRun
from eval.stages import captioning, finetune, linear_probe, report, retrieval, zero_shot
from eval.stages.captioning import CaptioningConfig
from eval.stages.finetune import FinetuneTaskConfig
from eval.stages.linear_probe import LinearProbeConfig
from eval.stages.report import ReportConfig
from eval.stages.retrieval import RetrievalConfig
from eval.stages.zero_shot import ZeroShotConfig
from eval.tasks import Task, splits
from pipeline import storage
from pipeline.errors import InputError, JobError
from train import checkpoint
from train.checkpoint import CheckpointInfo, NetworkConfig
from train.metrics.zero_shot import PROMPTS
from train.stages.finetune import FinetuneConfig

log = logging.getLogger(__name__)
StageName = Literal["zero-shot", "retrieval", "linear-probe", "finetune", "captioning"]
STAGES: tuple[StageName, ...] = get_args(StageName)
TRAINED: tuple[StageName, ...] = ("linear-probe", "finetune")
WORDS = {"clap": "two towers", "tagger": "a tagger", "classifier": "a classifier", "captioner": "a captioner"}
FITS: dict[StageName, tuple[str, ...]] = {  # kinds of checkpoint
    "zero-shot": ("clap", "tagger"),
    "retrieval": ("clap",),
    "linear-probe": ("clap", "tagger", "classifier"),
    "finetune": ("clap", "tagger", "classifier", "captioner"),
    "captioning": ("captioner",),
}


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
    mteb: MtebConfig = field(default_factory=MtebConfig)
    """Tasks of mteb to run too, in the files of its leaderboard: <out>/mteb."""
    beside: tuple[str, ...] = ()
    """Results folders of other models, to show in the report beside this one."""


class Evaluation(NamedTuple):
    """One stage on one task."""

    name: str
    run: Callable[[Any], None]
    config: Any


class Plan(NamedTuple):
    """What there is to do, and what becomes of the rest."""

    evaluations: list[Evaluation]
    left_out: dict[str, list[str]]  # reason -> names
    failed: dict[str, str]  # name, or task -> what is wrong


def run(config: SuiteConfig) -> None:
    """Run every evaluation, then the report. One that is complete returns at once; one that fails is named."""
    checkpoint_info = checkpoint.describe(config.model, "--model", *checkpoint.KINDS)
    results.check(config.out, checkpoint_info.revision)
    for folder in config.beside:
        results.read(folder, "--beside")
    plan = _plan(config, checkpoint_info)
    _add_mteb(plan, config, checkpoint_info)
    for reason, names in plan.left_out.items():
        log.info("suite: leaves out %s: %s", ", ".join(names), reason)
    for name, wrong in plan.failed.items():
        log.warning("suite: %s failed: %s", name, wrong)
    if not (plan.evaluations or plan.failed):
        reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in plan.left_out.items())
        raise InputError("--task-dir", config.task_dir, f"has nothing to evaluate: {reasons or 'it holds no task'}")
    failed, count = dict(plan.failed), len(plan.evaluations)
    log.info("suite: %d evaluations: %s", count, ", ".join(each.name for each in plan.evaluations))
    for number, each in enumerate(plan.evaluations, start=1):
        log.info("suite: %s (%d of %d)", each.name, number, count)
        if wrong := _attempt(each):
            failed[each.name] = wrong
            log.warning("suite: %s failed: %s", each.name, wrong)
    if results.has(config.out):
        page = storage.join(storage.resolve(config.out), "report")
        report.run(ReportConfig(results=(config.out, *config.beside), out=page))
    elif len(failed) == count + len(plan.failed):
        raise JobError(f"every evaluation failed: {failed}")
    if failed:
        total = count + len(plan.failed)
        raise JobError(f"{len(failed)} of {total} evaluations failed, the report shows the others: {failed}")


def _attempt(each: Evaluation) -> str:
    """Run an evaluation; return what went wrong, '' where nothing did."""
    try:
        each.run(each.config)
    except Exception as error:  # whatever one evaluation runs into must not cost the others
        return _reason(each.name, error)
    return ""


def _reason(name: str, error: Exception) -> str:
    """Return the message of an error. An error of the program is logged with its traceback."""
    if isinstance(error, (InputError, JobError, OSError)):
        return str(error)
    log.warning("suite: %s met an error of the program", name, exc_info=error)
    return f"{type(error).__name__}: {error}"


def _plan(config: SuiteConfig, checkpoint_info: CheckpointInfo[NetworkConfig]) -> Plan:
    """Find the tasks, and the stages that fit them. Listings are read here: missing clips are reported first."""
    found, failed = _find(config)
    plan, read = Plan([], {}, failed), functools.cache(_read)
    for name, folder in found.items():
        for stage in STAGES:
            if why := _unfit(stage, tasks.TASKS[name], checkpoint_info.kind, config):
                plan.left_out.setdefault(why, []).append(f"{stage} {name}")
                continue
            try:
                unsplit = read(name, folder, training=stage in ("zero-shot", *TRAINED))  # whose labels are its classes
            except Exception as error:  # nor must one listing
                plan.failed[f"{stage} {name}"] = _reason(f"{stage} {name}", error)
                continue
            if stage in TRAINED and unsplit:
                plan.left_out.setdefault(unsplit, []).append(f"{stage} {name}")
                continue
            made = _made(stage, config, name, folder, checkpoint_info)
            plan.evaluations.append(Evaluation(f"{stage} {name}", *made))
    return plan


def _read(name: str, folder: str, training: bool) -> str:
    """Read a listing; return why nothing can be trained and tested on its clips, '' where it can."""
    task, clips = tasks.read(name, folder, (), training=training)
    try:
        return "" if splits.split(task, clips) else "no clips to test"
    except InputError as error:
        return f"there is nothing to train on: {error}"


def _find(config: SuiteConfig) -> tuple[dict[str, str], dict[str, str]]:
    """Return {task: its folder} of the tasks asked for, and {task: what is wrong} where it cannot be looked into."""
    found, failed = tasks.present(config.task_dir) if config.task_dir else ({}, {})
    if unknown := [name for name in config.tasks if name not in {**found, **failed}]:
        raise InputError(
            "--tasks", unknown, f"not in --task-dir {config.task_dir!r}; it has {', '.join(found) or 'none'}"
        )
    wanted = config.tasks or (*found, *failed)
    return {name: found[name] for name in found if name in wanted}, {n: failed[n] for n in failed if n in wanted}


def _add_mteb(plan: Plan, config: SuiteConfig, checkpoint_info: CheckpointInfo[NetworkConfig]) -> None:
    """Add the tasks of mteb that fit the model. Raises InputError as `leaderboard.check` does."""
    if not config.mteb.tasks:
        return
    card, model, out = config.mteb, config.model, config.out
    for name, task in leaderboard.check(card, out).items():
        lacking = leaderboard.lacking(task, checkpoint_info.kind)
        if checkpoint_info.kind == "captioner" or lacking:
            why = f"mteb embeds {lacking or 'audio'}, and this is {WORDS[checkpoint_info.kind]}"
            plan.left_out.setdefault(why, []).append(f"mteb {name}")
            continue
        made = MtebRun(task=task, card=card, model=model, out=out, device=config.device, batch_size=config.batch_size)
        plan.evaluations.append(Evaluation(f"mteb {name}", leaderboard.run, made))


def _unfit(stage: StageName, task: Task, kind: str, config: SuiteConfig) -> str:
    """Return why a stage is not for a task, a kind of model or this command; '' where it is."""
    needs = "captions" if stage in ("retrieval", "captioning") else "labels"
    if not (task.captioned if needs == "captions" else task.labels != "none"):
        return f"the clips have no {needs}"
    if kind not in FITS[stage]:
        return f"it needs {' or '.join(WORDS[each] for each in FITS[stage])}, and this is {WORDS[kind]}"
    if stage == "zero-shot" and kind == "tagger" and not config.text_encoder:
        return "of a tagger it needs --text-encoder"
    if stage not in config.stages:
        return "it trains, and is run only where --stages names it" if stage == "finetune" else "not among --stages"
    return ""


def _made(
    stage: StageName, config: SuiteConfig, name: str, folder: str, checkpoint_info: CheckpointInfo[NetworkConfig]
) -> tuple[Callable[[Any], None], Any]:
    """Return what runs a stage, and its config."""
    shared = {each.name: getattr(config, each.name) for each in dataclasses.fields(RunConfig)}
    common = {**shared, "task": name, "task_dir": folder}
    if stage == "zero-shot":
        encoder = config.text_encoder if checkpoint_info.kind == "tagger" else ""
        return zero_shot.run, ZeroShotConfig(**common, prompts=config.prompts, text_encoder=encoder)
    if stage == "retrieval":
        return retrieval.run, RetrievalConfig(**common)
    if stage == "linear-probe":
        return linear_probe.run, LinearProbeConfig(**common)
    if stage == "finetune":
        return finetune.run, FinetuneTaskConfig(**common, recipe=config.recipe)
    known = {each.name for each in dataclasses.fields(CaptioningConfig)}
    guidance = ("predicted",) if getattr(checkpoint_info.network, "tagger", False) else ("none",)
    return captioning.run, CaptioningConfig(**{k: v for k, v in common.items() if k in known}, guidance=guidance)  # type: ignore[arg-type]

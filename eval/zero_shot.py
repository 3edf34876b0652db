"""Zero-shot classification and tagging: class names as prompts, no training: `python -m eval zero-shot <config>`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval import bridge, embed, metrics, results, tasks
from eval.embed import Embedded, embed_audio, embed_text
from pipeline import cli, sources
from pipeline.cli import InputError, JobError
from pipeline.clip import Clip
from train import checkpoint
from train.models.clap import Clap
from train.models.tagger import Tagger

log = logging.getLogger("eval.zero_shot")
PROMPTS = ("{}", "the sound of {}", "this is a sound of {}")


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig:
    """Classify and tag the clips of a task by their similarity to the class names."""

    model: str = ""
    """Checkpoint directory that `train pretrain` wrote, or with --text-encoder one of a tagger."""
    text_encoder: str = ""
    """Sentence encoder, a name on the hub or a folder, that carries a tagger's tags to the class names without training."""
    task: str = ""
    """One of the tasks in eval/tasks.py."""
    task_dir: str = ""
    """The dataset's folder."""
    folds: tuple[str, ...] = ()
    """Evaluate only these folds; empty takes all."""
    out: str = ""
    """Folder or URI of this model's results.json."""
    prompts: tuple[str, ...] = PROMPTS
    """Prompt templates with {} for the class name; each is reported, and the mean of their embeddings."""
    batch_size: int = 64
    """Clips in one pass of the model."""
    device: str = "cpu"
    """Torch device, cpu or cuda."""


def run(config: ZeroShotConfig) -> None:
    """Evaluate and add the numbers to results.json."""
    task, clips = tasks.read(config.task, config.task_dir, config.folds)
    kind = Tagger if config.text_encoder else Clap
    results.check(config.out, checkpoint.describe(config.model, "--model", kind)["revision"])
    device = embed.device(config.device)
    if config.batch_size < 1:
        raise InputError("--batch-size", config.batch_size, "use 1 or more")
    if not config.prompts:
        raise InputError("--prompts", config.prompts, "give one or more templates with {} for the class name")
    for prompt in config.prompts:
        cli.check_template("--prompts", prompt)
    names = sources.tag_vocabulary(clips)
    if len(names) < 2:
        raise InputError("--task-dir", config.task_dir, f"its clips have {len(names)} classes; at least 2 are needed")
    about = checkpoint.load(config.model)
    texts = {prompt: [prompt.format(task.label_text(name)) for name in names] for prompt in config.prompts}
    embedded, by_prompt = (_bridge if config.text_encoder else _compare)(config, about.model.to(device), clips, texts)
    scores = {prompt: embedded.vectors @ matrix.T for prompt, matrix in by_prompt.items()}  # (N, C) each
    entry = {
        **_single_label(scores, embedded.clips, names),
        **_tagging(scores, embedded.clips, names),
        "classes": names,
        "prompts": list(config.prompts),
        "fold_rule": task.fold_rule,
        "folds": list(config.folds),
        **results.protocol(embedded.clips, len(clips), embedded.missing, about, config.model),
    }
    uri = results.publish(config.out, f"zero-shot {task.name}", about, config.model, entry)
    accuracy = entry["accuracy"]["ensemble"]
    low, high = accuracy["interval95"]
    log.info(
        "zero-shot %s: accuracy %.1f %% (95 %% interval %.1f to %.1f, chance %.1f, n %d); wrote %s",
        task.name, 100 * accuracy["value"], 100 * low, 100 * high, 100 * accuracy["chance"], entry["n_single_label"], uri,
    )  # fmt: skip


Texts = dict[str, list[str]]  # prompt -> what it says of each class


def _compare(
    config: ZeroShotConfig, model: Clap, clips: Sequence[Clip], texts: Texts
) -> tuple[Embedded, dict[str, np.ndarray]]:
    """Return the embeddings (N, D) of clips, and those of the classes (C, D) by prompt and for the ensemble."""
    by_prompt = {prompt: embed_text(model, said) for prompt, said in texts.items()}
    return embed_audio(model, clips, config.batch_size), by_prompt | {"ensemble": _ensemble(list(by_prompt.values()))}


def _bridge(
    config: ZeroShotConfig, model: Tagger, clips: Sequence[Clip], texts: Texts
) -> tuple[Embedded, dict[str, np.ndarray]]:
    """Return the tag probabilities (N, K) of clips, and what tags tell of the classes (C, K) by prompt and ensemble."""
    if not model.tags:
        raise InputError("--model", config.model, "has no tagging head; --text-encoder needs one")
    try:
        encoder = bridge.open_text(config.text_encoder)
    except ValueError as error:
        raise InputError("--text-encoder", config.text_encoder, str(error)) from None
    by_prompt = {prompt: bridge.weights(encoder, model.tags, said) for prompt, said in texts.items()}
    mean = np.mean(list(by_prompt.values()), axis=0)
    return bridge.tag(model, clips, config.batch_size), by_prompt | {"ensemble": np.asarray(mean)}


def _single_label(scores: dict[str, np.ndarray], clips: Sequence[Clip], names: list[str]) -> dict[str, Any]:
    """Classification of the clips with exactly one label."""
    rows = [i for i, clip in enumerate(clips) if len(clip.tags) == 1]
    if not rows:
        raise JobError("no clip has exactly one label; classification accuracy has no meaning here")
    target = np.array([names.index(clips[i].tags[0]) for i in rows])
    found: dict[str, Any] = {"n_single_label": len(rows), "accuracy": {}, "top5": {}}
    for prompt, matrix in scores.items():
        for name, k in (("accuracy", 1), ("top5", 5)):
            hit = metrics.top_k(matrix[rows], target, k)
            interval = metrics.bootstrap(lambda chosen, hit=hit: float(hit[chosen].mean()), len(hit))  # type: ignore[misc]
            found[name][prompt] = results.metric(float(hit.mean()), interval, chance=min(1.0, k / len(names)))
    guess = scores["ensemble"][rows].argmax(axis=1)
    confusion = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(confusion, (target, guess), 1)
    found["confusion"] = confusion.tolist()  # rows are true classes
    return found


def _tagging(scores: dict[str, np.ndarray], clips: Sequence[Clip], names: list[str]) -> dict[str, Any]:
    """Tagging of every labelled clip: macro mean average precision of the ensemble."""
    truth = np.array([[name in clip.tags for name in names] for clip in clips])
    matrix = scores["ensemble"]
    interval = metrics.bootstrap(
        lambda chosen: metrics.mean_average_precision(matrix[chosen], truth[chosen]), len(clips), resamples=200
    )
    value = metrics.mean_average_precision(matrix, truth)
    return {"map": {"ensemble": results.metric(value, interval, chance=float(truth.mean()))}}


def _ensemble(parts: list[np.ndarray]) -> np.ndarray:
    mean = np.mean(parts, axis=0)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))

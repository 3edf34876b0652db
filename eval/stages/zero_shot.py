"""Zero-shot classification and tagging: class names as prompts, no training: `python -m eval zero-shot <config>`.

Shapes: N = clips, C = classes, K = tags of a tagger, D = embedding size.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval import results, tasks
from eval.embedding import evaluation
from eval.embedding.cache import embed
from eval.embedding.evaluation import EvaluationConfig
from eval.embedding.in_process import embed_text
from eval.results import scoring
from eval.results.records import MetricRecord
from eval.tasks import Task, class_texts
from pipeline import cli
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from train.checkpoint import Checkpoint
from train.metrics.zero_shot import PROMPTS
from train.models import tag_transfer

log = logging.getLogger(__name__)
DESCRIPTION, ENSEMBLE = "{}: description in the ontology", "ensemble"
NAME_ALONE = "{}: class name"  # the prompt that stands beside those of --class-texts
Texts = dict[str, list[tuple[str, ...]]]  # prompt -> the texts of each class, whose embeddings are averaged


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig(EvaluationConfig):
    """Classify and tag the clips of a task by their similarity to the class names."""

    text_encoder: str = ""
    """Sentence encoder, a name on the hub or a folder, that carries the tags of a tagger, given as --model, to the
    class names without training."""
    transfer_over: tag_transfer.Over = "classes"
    """Of --text-encoder: `classes` shares each tag among the classes, `tags` makes each class an average of tags."""
    prompts: tuple[str, ...] = PROMPTS
    """Prompt templates with {} for the class name; each is reported, and the mean of their embeddings."""
    class_texts: str = ""
    """JSON file of {class: [text, ...]}: texts in the words of captions that stand in the prompts in place of the class
    name. The name alone is reported beside them."""


def run(config: ZeroShotConfig) -> None:
    """Evaluate and write the numbers, where they are not there already."""
    task, clips = evaluation.check(config, "tagger" if config.text_encoder else "clap")
    if config.transfer_over == "tags" and not config.text_encoder:
        raise InputError("--transfer-over", config.transfer_over, "needs --text-encoder and a tagger as --model")
    if not config.prompts:
        raise InputError("--prompts", config.prompts, "give one or more templates with {} for the class name")
    for prompt in config.prompts:
        cli.check_template("--prompts", prompt)
    names = evaluation.classes(config, task, clips)
    own_texts = class_texts.read(config.class_texts, names)
    choices = [f"{name}: {own_texts[name]}" for name in names] if own_texts else names
    name, source = f"zero-shot {task.name}", results.source(task, config.task_dir, clips, choices)
    if results.done(config.out, name, config, source):
        return
    loaded = evaluation.load(config.model, "--model", config.device)
    texts = _texts(config, task, names, own_texts)
    by_prompt = (_transfer_tags if config.text_encoder else _compare)(config, loaded, texts)
    embeddings = embed(config, loaded, clips)
    scores = {prompt: embeddings.outputs @ matrix.T for prompt, matrix in by_prompt.items()}  # (N, C) each
    truth = scoring.truth(embeddings.clips, names)
    rows = scoring.one_label(truth) if task.labels == "one" else np.zeros(0, int)
    entry = {
        "n_single_label": len(rows),
        **_measure(scores, truth, rows),
        **scoring.details(scores[ENSEMBLE], truth, names, rows),
        "classes": names,
        "prompts": list(texts),
        **({"class_texts": own_texts} if own_texts else {}),
        **_by_fold(task, embeddings.clips, scores[ENSEMBLE], truth, rows),
        "fold_rule": task.fold_rule,
        **results.protocol(embeddings.clips, len(clips), embeddings.missing, loaded, config, source),
    }
    outcomes = scoring.outcomes(embeddings.clips, scores[ENSEMBLE], truth, rows)
    uri = results.publish(config.out, name, loaded, config.model, entry, outcomes)
    kept = f", fold {', '.join(config.folds)}" if config.folds else ""
    log.info("zero-shot %s%s: %s; wrote %s", task.name, kept, scoring.sentence(entry, ENSEMBLE), uri)


def _by_fold(
    task: Task, clips: list[Clip], scores: np.ndarray, truth: np.ndarray, rows: np.ndarray
) -> dict[str, dict[str, MetricRecord]]:
    """Return `per_fold` where a task has official folds: of the clips with one label, else of all."""
    if not task.folds:
        return {}
    kept = rows if len(rows) else np.arange(len(clips))
    found = scoring.by_fold([clips[row] for row in kept], scores[kept], truth[kept], exclusive=len(rows) > 0)
    return {"per_fold": found} if found else {}


def _texts(config: ZeroShotConfig, task: Task, names: Sequence[str], own_texts: Mapping[str, Sequence[str]]) -> Texts:
    """Fill the prompts with the texts of the classes; where the ontology describes all of them, that is one more prompt."""
    labels = {name: (task.label_text(name),) for name in names}
    filled = own_texts or labels
    texts = {prompt: [tuple(map(prompt.format, filled[name])) for name in names] for prompt in config.prompts}
    descriptions = tasks.descriptions(task, config.task_dir)
    if all(name in descriptions for name in names):
        texts[DESCRIPTION] = [(f"{task.label_text(name)}: {descriptions[name]}",) for name in names]
    return texts | ({NAME_ALONE: list(labels.values())} if own_texts else {})


def _compare(config: ZeroShotConfig, loaded: Checkpoint, texts: Texts) -> dict[str, np.ndarray]:
    """Return the embeddings of the classes (C, D), by prompt and for the ensemble."""
    by_prompt = {
        prompt: _unit(_class_means(embed_text(loaded.model, _flat(by_class)), by_class))
        for prompt, by_class in texts.items()
    }
    return by_prompt | {ENSEMBLE: _unit(_ensemble(by_prompt))}


def _transfer_tags(config: ZeroShotConfig, loaded: Checkpoint, texts: Texts) -> dict[str, np.ndarray]:
    """Return the weights of a tagger's tags for the classes (C, K), by prompt and for the ensemble."""
    if not loaded.model.tags:
        raise InputError("--model", config.model, "has no tagging head; --text-encoder needs one")
    try:
        encoder = tag_transfer.open_text(config.text_encoder)
    except ValueError as error:
        raise InputError("--text-encoder", config.text_encoder, str(error)) from None
    tags, over = loaded.model.tags, config.transfer_over
    by_prompt = {
        prompt: _class_means(tag_transfer.weights(encoder, tags, _flat(by_class), over), by_class)
        for prompt, by_class in texts.items()
    }
    return by_prompt | {ENSEMBLE: _ensemble(by_prompt)}


def _flat(by_class: list[tuple[str, ...]]) -> list[str]:
    return [text for texts in by_class for text in texts]


def _class_means(rows: np.ndarray, by_class: list[tuple[str, ...]]) -> np.ndarray:
    """Return the mean over the texts of each class (C, ...) of rows that are in the order of `_flat`."""
    ends = np.cumsum([len(texts) for texts in by_class])[:-1]
    return np.stack([part.mean(axis=0) for part in np.split(rows, ends)])


def _ensemble(by_prompt: dict[str, np.ndarray]) -> np.ndarray:
    """Return the mean over the prompts (C, ...), but for the class name alone beside its texts."""
    return np.asarray(np.mean([rows for prompt, rows in by_prompt.items() if prompt != NAME_ALONE], axis=0))


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _measure(scores: dict[str, np.ndarray], truth: np.ndarray, rows: np.ndarray) -> dict[str, dict[str, MetricRecord]]:
    """Return metric -> prompt -> number: accuracy and top 5 of the rows with one label, tagging of all."""
    found: dict[str, dict[str, MetricRecord]] = {}
    for prompt, matrix in scores.items():
        values = scoring.tagging(matrix, truth)
        if len(rows):
            values = scoring.classification(matrix[rows], truth[rows].argmax(axis=1)) | values
        for name, metric in values.items():
            found.setdefault(name, {})[prompt] = metric
    return found

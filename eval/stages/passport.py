"""One checkpoint under several zero-shot protocols, and what each difference is worth: `python -m eval passport <config>`.

Shapes: N = clips, C = classes, D = embedding size.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from eval import metrics, results
from eval.adapters import FrameEncoder
from eval.embedding import evaluation, x_ares
from eval.embedding.cache import Embeddings, embed
from eval.embedding.evaluation import EvaluationConfig
from eval.embedding.in_process import embed_text
from eval.embedding.protocols import ONE_AT_A_TIME, OURS, PUBLISHED, Protocol
from eval.embedding.view import AS_IT_IS
from eval.report import passport as pages
from eval.results import compare, scoring
from eval.results.compare import Difference
from eval.results.records import Entry, Json, MetricRecord
from eval.tasks import Task
from pipeline import storage
from pipeline.errors import InputError, JobError
from train.checkpoint import Checkpoint

log = logging.getLogger(__name__)
NO_SEED = (True, True)  # both numbers are of one checkpoint: no other training run could change one and not the other


@dataclass(frozen=True, kw_only=True)
class PassportConfig(EvaluationConfig):
    """Evaluate a checkpoint zero-shot by our protocol, by published ones, and by ours with one thing changed at a time."""

    x_ares: bool = False
    """Also probe the audio tower as X-ARES does: a layer and nearest neighbours that learn from other folds' labels."""


def run(config: PassportConfig) -> None:
    """Evaluate where it is not done already, write the page and print the table."""
    task, clips = evaluation.check(config, "clap")
    names = evaluation.classes(config, task, clips)
    if config.x_ares and (task.labels != "one" or len({clip.fold for clip in clips}) < 2):
        raise InputError("--x-ares", True, "clips of two folds or more with one label each are needed; leave it out")
    name, source = f"passport {task.name}", results.source(task, config.task_dir, clips, names)
    if not results.done(config.out, name, config, source):
        loaded = evaluation.load(config.model, "--model", config.device)
        ours = embed(config, loaded, clips)
        entry = {
            **Measurement(config, loaded, task, names, ours).entry(),
            **results.protocol(ours.clips, len(clips), ours.missing, loaded, config, source),
        }
        results.publish(config.out, name, loaded, config.model, entry, {})
    record = results.read(config.out)
    page = storage.join(storage.resolve(config.out), f"passport-{task.name}.html")
    storage.publish(page, pages.render(record["model"]["name"], task.name, record["results"][name]).encode())
    print(pages.text(record["results"][name]))
    log.info("passport: wrote %s", page)


class Measurement:
    """A model and the clips of a task, to be evaluated by any protocol."""

    def __init__(
        self, config: PassportConfig, loaded: Checkpoint, task: Task, names: Sequence[str], ours: Embeddings
    ) -> None:
        """Take what our own protocol embeds, `ours`; the other protocols embed the same clips."""
        self.config, self.loaded, self.task, self.names = config, loaded, task, names
        self.clips = ours.clips
        self.embedded = {AS_IT_IS: ours.outputs}
        self.truth = scoring.truth(self.clips, names)
        one_label = scoring.one_label(self.truth) if task.labels == "one" else np.zeros(0, int)
        self.exclusive = len(one_label) > 0
        self.rows = one_label if self.exclusive else np.arange(len(self.clips))

    def entry(self) -> Entry:
        """Return `number`, accuracy or map, and `protocols`: what differs from ours -> protocol -> its number."""
        ours = self._scores(OURS)
        found: dict[str, dict[str, Json]] = {"ours": {"ours": {"number": self._number(ours)}}}
        for factor, protocols in {"published protocol": PUBLISHED, **ONE_AT_A_TIME}.items():
            found[factor] = {}
            for name, protocol in protocols.items():
                scores = self._scores(protocol)
                number, difference = self._number(scores), compare.plain(self._difference(ours, scores))
                source = {"source": protocol.source} if protocol.source else {}
                found[factor][name] = {"number": number, "difference": difference, **source}
                if protocol.changes_audio_alone and np.array_equal(scores, ours):
                    found[factor][name]["changes_no_clip"] = True
                log.info("passport: %s, %s: %.1f", factor, name, 100 * number["value"])
        if self.task.folds:
            found["fold"] = self._folds(ours)
        if self.config.x_ares:
            found["X-ARES"] = self._probes()
        return {"number": "accuracy" if self.exclusive else "map", "protocols": found}

    def _scores(self, protocol: Protocol) -> np.ndarray:
        """Return the similarities (N, C) of the clips to the classes."""
        view = protocol.view_of(self.loaded.model.config.clip_s)
        if view not in self.embedded:
            found = embed(self.config, self.loaded, self.clips, view)
            if found.missing:
                raise JobError(f"{len(found.missing)} clips can be read no more, such as {next(iter(found.missing))}")
            self.embedded[view] = found.outputs
        return np.asarray(self.embedded[view] @ self._class_vectors(protocol).T)

    def _class_vectors(self, protocol: Protocol) -> np.ndarray:
        """Return the unit vectors (C, D) of the classes: the means over the prompts."""
        shown = self.names if protocol.names == "labels" else [self.task.label_text(name) for name in self.names]
        by_prompt = [
            embed_text(self.loaded.model, [prompt.format(name) for name in shown]) for prompt in protocol.prompts
        ]
        mean = np.mean(by_prompt, axis=0)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))

    def _probes(self) -> dict[str, Json]:
        encoder = FrameEncoder(self.config.model).to(self.config.device)
        kept = [self.clips[row] for row in self.rows]
        features = x_ares.mean_frames(encoder, encoder.sampling_rate, kept)
        target = self.truth[self.rows].argmax(axis=1)
        folds = np.array([clip.fold for clip in kept])
        scores = x_ares.probe(features, torch.from_numpy(target), folds, len(self.names))
        return {
            name: {"number": scoring.classification(scores[name], target)["accuracy"], "source": source}
            for name, source in x_ares.PROBES.items()
        }

    def _number(self, scores: np.ndarray) -> MetricRecord:
        if self.exclusive:
            return scoring.classification(scores[self.rows], self.truth[self.rows].argmax(axis=1))["accuracy"]
        return scoring.tagging(scores, self.truth)["map"]

    def _difference(self, ours: np.ndarray, scores: np.ndarray) -> Difference:
        """Return how far other scores (N, C) are from ours, over the same clips."""
        if not self.exclusive:
            return compare.mean_precision(ours[None], scores[None], self.truth, NO_SEED)
        target = self.truth[self.rows].argmax(axis=1)
        first, other = (metrics.top_k(each[self.rows], target, 1)[None] for each in (ours, scores))
        return compare.means(first, other, NO_SEED)

    def _folds(self, ours: np.ndarray) -> dict[str, Json]:
        kept = [self.clips[row] for row in self.rows]
        by_fold = scoring.by_fold(kept, ours[self.rows], self.truth[self.rows], self.exclusive)
        return {f"fold {fold} alone": {"number": number} for fold, number in by_fold.items()}

"""When does what is named sound? Frame scores of a model against strong labels: `python -m eval grounding <config>`.

    psds1, psds2   the Polyphonic Sound Detection Score over all classes: exact times, and the right class near its time;
                   with the parameters of DCASE's task 4, see `psds.PROTOCOL`
    frame_auroc    of a phrase in a clip that has it: frames in which it sounds against the others; chance is 50 %
    onset_error_s  median distance from the onset of the best segment to the nearest true one
    order          of two events one after the other: is the mass of the first one's phrase first? "A then B" against
                   "B then A"; chance is 50 %

A score is the cosine of a frame in the shared space and the phrase of a class. A model without a loss of frames has frame
embeddings as well: each as that of a clip of one frame. Shapes: N = clips, S = frames of a clip, C = classes.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import numpy as np

from eval import metrics, results
from eval.embedding import evaluation, in_process
from eval.embedding.evaluation import EvaluationConfig
from eval.metrics import grounding, psds
from eval.metrics.psds import Track
from eval.results.records import Entry, MetricRecord
from eval.tasks import Task, class_texts
from pipeline.dataset import phrases
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from train.checkpoint import Checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GroundingConfig(EvaluationConfig):
    """Find when classes sound, on the clips of a task that have strong labels."""

    class_texts: str = ""
    """JSON file of {class: [text, ...]}: phrases of a class, whose embeddings are averaged, in place of its name."""


class Tracked(NamedTuple):
    """Scores of the clips that could be read."""

    tracks: list[Track]
    clips: list[Clip]
    missing: dict[str, str]  # key -> reason


def run(config: GroundingConfig) -> None:
    """Evaluate and write the numbers, where they are not there already."""
    task, listed = evaluation.check(config, "clap")
    clips = sorted((clip for clip in listed if clip.events), key=lambda clip: clip.key)
    if len(clips) < 2:
        remedy = "give AudioSet's strong tables, DESED, URBAN-SED, MAESTRO Real, or a corpus of `pipeline synth`"
        raise InputError("--task-dir", config.task_dir, f"fewer than 2 of its clips have strong labels; {remedy}")
    labels = sorted({event.label for clip in clips for event in clip.events})
    texts = class_texts.read(config.class_texts, labels) or {label: [task.label_text(label)] for label in labels}
    choices = [str(texts), *(f"{clip.key}: {[tuple(event) for event in clip.events]}" for clip in clips)]
    name, source = f"grounding {task.name}", results.source(task, config.task_dir, clips, choices)
    if results.done(config.out, name, config, source):
        return
    loaded = evaluation.load(config.model, "--model", config.device)
    found = track(config, loaded, clips, texts)
    entry, outcomes = measure(found.tracks)
    entry |= {
        "classes": labels,
        "fold_rule": _rule(task),
        "notes": [psds.PROTOCOL],
        **results.protocol(found.clips, len(clips), found.missing, loaded, config, source),
    }
    uri = results.publish(
        config.out, name, loaded, config.model, entry, {"keys": results.keys(found.clips), **outcomes}
    )
    numbers = ", ".join(f"{title} {entry[title]['value']:.3f}" for title in entry if title in TITLES)
    log.info("grounding %s: %s (n %d); wrote %s", task.name, numbers, entry["n"], uri)


TITLES = (*psds.SCENARIOS, "frame_auroc", "onset_error_s", "order")


def _rule(task: Task) -> str:
    return f"{task.fold_rule}, those with strong labels"


def track(
    config: GroundingConfig, loaded: Checkpoint, clips: Sequence[Clip], texts: Mapping[str, Sequence[str]]
) -> Tracked:
    """Score the frames of every clip that can be read for the classes, which `texts` has in their order."""
    model, classes = loaded.model, list(texts)
    means = np.stack([in_process.embed_text(model, texts[name]).mean(axis=0) for name in classes])
    phrase = means / np.linalg.norm(means, axis=1, keepdims=True)  # (C, D)
    found = Tracked([], [], {})
    for rows, samples in in_process.batches(clips, model.sample_rate_hz, config.batch_size, found.missing):
        for row, own, frames in zip(rows, samples, model.encode_frames(samples), strict=True):
            scores = in_process.finite(frames.vectors.cpu().numpy()) @ phrase.T
            duration_s = len(own) / model.sample_rate_hz
            found.tracks.append(_track(clips[row], classes, scores, frames.edges_s.cpu().numpy(), duration_s))
            found.clips.append(clips[row])
    return found


def _track(clip: Clip, classes: Sequence[str], scores: np.ndarray, edges_s: np.ndarray, duration_s: float) -> Track:
    edges_s = np.minimum(edges_s.astype(np.float64), duration_s)
    inside = np.diff(edges_s) > 0
    parts = phrases.clipped(clip.events, duration_s)
    spans = {
        name: phrases.merged([(part.start_s, part.end_s) for part in parts if part.label == name]) for name in classes
    }
    events = [(classes.index(name), start_s, end_s) for name, own in spans.items() for start_s, end_s in own]
    table = np.array(events, float).reshape(-1, 3)
    kept = np.concatenate([edges_s[:-1][inside], [edges_s[-1]]])
    return Track(scores[inside], kept, duration_s, table[:, 0].astype(int), table[:, 1:])


def measure(tracks: Sequence[Track]) -> tuple[Entry, dict[str, np.ndarray]]:
    """Return the numbers with their intervals, and those that are means over clips (N,), NaN where a clip has none."""
    entry = _psds(tracks)
    by_clip = {"frame_auroc": [_auroc(track) for track in tracks], "order": [_order(track) for track in tracks]}
    outcomes = {name: np.array(values) for name, values in by_clip.items()}
    for name, values in outcomes.items():
        if len(counted := values[np.isfinite(values)]):
            interval = metrics.bootstrap(lambda rows, own=counted: float(own[rows].mean()), len(counted))  # type: ignore[misc]
            entry[name] = results.metric(float(counted.mean()), interval, chance=0.5)
    errors, clips = _onset_errors(tracks)
    entry["onset_error_s"] = results.metric(float(np.median(errors)), metrics.bootstrap_median(errors, clips))
    counts = {f"n_{name}": int(np.isfinite(values).sum()) for name, values in outcomes.items()}
    return {**entry, **counts}, outcomes


def _psds(tracks: Sequence[Track]) -> dict[str, MetricRecord]:
    """Return the score in each scenario."""
    levels = psds.thresholds(tracks)
    weights = np.concatenate([np.ones((len(tracks), 1)), metrics.resamples(len(tracks))], axis=1)
    found: dict[str, MetricRecord] = {}
    for name, scenario in psds.SCENARIOS.items():
        scores = psds.score(psds.count(tracks, levels, scenario, weights), scenario)
        found[name] = results.metric(*metrics.estimate(scores))
    return found


def _segments(track: Track) -> dict[int, np.ndarray]:
    """Return {class: segments (M, 2)} of a clip."""
    return {int(own): track.event_s[track.event_class == own] for own in np.unique(track.event_class)}


def _auroc(track: Track) -> float:
    """Return the mean over the phrases of a clip; NaN where each sounds in all frames or in none."""
    areas = [
        grounding.area_under_roc(track.scores[:, own], grounding.active_truth(track.edges_s, segments))
        for own, segments in _segments(track).items()
    ]
    held = [area for area in areas if np.isfinite(area)]
    return float(np.mean(held)) if held else float("nan")


def _order(track: Track) -> float:
    """Return the share of the pairs of events one after the other that are in order; NaN without such a pair."""
    right = [
        grounding.in_order(track.scores[:, one], track.scores[:, other], track.edges_s)
        for (one, first), (other, second) in permutations(_segments(track).items(), 2)
        if first[:, 1].max() <= second[:, 0].min()
    ]
    return float(np.mean(right)) if right else float("nan")


def _onset_errors(tracks: Sequence[Track]) -> tuple[np.ndarray, np.ndarray]:
    """Return the errors of all phrases, and the clip of each."""
    found = [
        (grounding.onset_error(track.scores[:, own], track.edges_s, segments), clip)
        for clip, track in enumerate(tracks)
        for own, segments in _segments(track).items()
    ]
    return np.array([error for error, _ in found]), np.array([clip for _, clip in found])

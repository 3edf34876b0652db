"""Caption the clips of a task and score the captions: `python -m eval captioning <config>`.

With several kinds of --guidance it is the ablation of tags: the same clips and the same captioner with their own tags, none,
those that it predicts, and those of other clips. Tags of other clips must hurt.
"""

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from eval import metrics, results, tasks
from eval.embedding import evaluation, in_process
from eval.embedding.in_process import Written
from eval.metrics import captions
from eval.metrics.captions import Score
from eval.results.records import Entry, MetricRecord
from pipeline import storage
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from train import checkpoint
from train.models.captioner.decoding import Decoding

log = logging.getLogger(__name__)
Guidance = Literal["tags", "none", "predicted", "shuffled"]
SHOWN = ("bleu_4", "rouge_l", "meteor", "cider_d", "spice", "spider", "fense", "clap", "vocab")
COMPARED = ("rouge_l", "meteor", "cider_d", "spice", "spider", "fense", "clap")
SHUFFLE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class CaptioningConfig:
    """Caption the clips of a task and score the captions against people's."""

    model: str = ""
    """Checkpoint directory that `train captioner` wrote."""
    task: str = ""
    """One of the tasks in eval/tasks/registry.py, or a name of your own for --task-dir."""
    task_dir: str = ""
    """The dataset's folder; of a task of your own, any source of clips that `pipeline inspect` understands."""
    columns: str = ""
    """Columns of a table that are named otherwise, as in file=path,captions=description."""
    folds: tuple[str, ...] = ()
    """Evaluate only these folds; empty takes all."""
    out: str = ""
    """Folder or URI of this model's results: a file for each evaluation in <out>/results."""
    guidance: tuple[Guidance, ...] = ("tags",)
    """The clips' own tags, none, those that the captioner predicts, those of other clips. Each is reported, with its
    difference from the first."""
    tag_threshold: float = 0.3
    """Probability from which a predicted tag guides, from 0 to 1."""
    decoding: Decoding = field(default_factory=Decoding)
    """How captions are chosen."""
    clap: str = ""
    """Two-tower checkpoint for the CLAP-score, the cosine of clip and caption; empty leaves it out."""
    batch_size: int = 32
    """Clips in one pass of the model."""
    device: str = "cpu"
    """Torch device, cpu or cuda."""


def run(config: CaptioningConfig) -> None:
    """Evaluate, write every caption with its scores, worst first, and the numbers, where they are not there already."""
    task, clips = _check(config)
    scorer = checkpoint.describe(config.clap, "--clap", "clap").revision if config.clap else ""
    name, source = f"captioning {task.name}", results.source(task, config.task_dir, clips, scorer=scorer)
    if results.done(config.out, name, config, source):
        return
    loaded = evaluation.load(config.model, "--model", config.device)
    _check_tags(config, clips, loaded)
    given: dict[str, list[tuple[str, ...]] | None] = {name: _tags(name, clips) for name in config.guidance}
    written = in_process.caption(loaded.model, clips, given, config.decoding, config.tag_threshold, config.batch_size)
    scores = {name: captions.score(texts, [c.captions for c in written.clips]) for name, texts in written.texts.items()}
    clap = _clap(config, written)
    scores = {name: {**found, "clap": clap[name]} for name, found in scores.items()}
    entry = {
        "guidance": {name: _entry(found, written.texts[name]) for name, found in scores.items()},
        "difference": {name: _differences(scores[name], scores[config.guidance[0]]) for name in config.guidance[1:]},
        "unavailable": {n: score.reason for found in scores.values() for n, score in found.items() if score.reason},
        "notes": _notes(config, loaded),
        "decoding": str(config.decoding),
        "tag_threshold": config.tag_threshold,
        "num_references": sum(len(clip.captions) for clip in written.clips),
        "num_tagged": sum(bool(set(clip.tags) & set(loaded.model.tags)) for clip in written.clips),
        "fold_rule": task.fold_rule,
        **results.protocol(written.clips, len(clips), written.missing, loaded, config, source),
    }
    listed = storage.join(storage.resolve(config.out), f"{results.file_stem(name)}.csv")
    storage.publish(listed, _table(written, scores))
    uri = results.publish(config.out, name, loaded, config.model, entry, _outcomes(written, scores))
    print(text_table(entry))
    log.info("captioning %s: n %d; wrote %s and %s", task.name, entry["n"], uri, listed)


def text_table(entry: Entry) -> str:
    """Return the numbers of every kind of guidance, and why some are missing."""
    names = [name for name in SHOWN if name not in entry["unavailable"]]
    lines = ["guidance   " + "".join(f"{name:>22}" for name in names)]
    for guidance, found in entry["guidance"].items():
        lines.append(f"{guidance:<11}" + "".join(f"{_cell(found[name]):>22}" for name in names))
    for guidance, found in entry["difference"].items():
        first = next(iter(entry["guidance"]))
        shown = ", ".join(f"{name} {_cell(found[name], '+')}" for name in names if name in found)
        lines.append(f"{guidance} minus {first}: {shown}")
    lines += [f"{name}: not computed: {reason}" for name, reason in entry["unavailable"].items()]
    lines.append(f"{entry['num_tagged']} of {entry['n']} clips have tags that the captioner knows")
    lines += entry["notes"]
    return "\n".join(lines)


def _check(config: CaptioningConfig) -> tuple[tasks.Task, list[Clip]]:
    """Find out what is wrong with the command before any model runs."""
    task, listed = tasks.read(config.task, config.task_dir, config.folds, columns=config.columns)
    checkpoint_info = checkpoint.describe(config.model, "--model", "captioner")
    results.check(config.out, checkpoint_info.revision)
    if not config.guidance or len(set(config.guidance)) < len(config.guidance):
        raise InputError(
            "--guidance", config.guidance, "give one or more of tags, none, predicted, shuffled, each once"
        )
    needs = {"tags": "guided", "shuffled": "guided", "predicted": "tagger"}
    for name in config.guidance:
        if name in needs and not getattr(checkpoint_info.network, needs[name]):
            raise InputError("--guidance", name, f"this captioner has no such input: {needs[name]} is false")
    if config.batch_size < 1:
        raise InputError("--batch-size", config.batch_size, "use 1 or more")
    in_process.device(config.device)
    try:
        config.decoding.check()
        import pycocoevalcap  # noqa: F401
    except ValueError as error:
        raise InputError("--decoding", str(config.decoding), str(error)) from None
    except ImportError:
        raise InputError("captioning", "", "pip install -e '.[captioning]' brings what scores captions") from None
    clips = [clip for clip in listed if clip.captions]
    if not clips:
        raise InputError("--task-dir", config.task_dir, "none of its clips has a caption")
    return task, clips


def _check_tags(config: CaptioningConfig, clips: Sequence[Clip], loaded: checkpoint.Checkpoint) -> None:
    """Raise InputError where tags are to guide and no clip has one: all kinds of guidance would be the same."""
    known = set(loaded.model.tags)
    if {"tags", "shuffled"} & set(config.guidance) and not any(known & set(clip.tags) for clip in clips):
        remedy = (
            "no clip has a tag that the captioner knows; for AudioCaps put AudioSet's segments tables and class labels "
        )
        raise InputError("--task-dir", config.task_dir, remedy + "beside its CSV, or use --guidance none")


def _notes(config: CaptioningConfig, loaded: checkpoint.Checkpoint) -> list[str]:
    """Return what a reader of the numbers must know."""
    untrained = loaded.info.lineage.get("tag_dropout") == 0
    if not (untrained and loaded.model.config.guided and "none" in config.guidance):
        return []
    return [
        "none: this captioner was trained with tags on every clip (tag dropout 0), so that captions without tags are "
        "out of its training; for what tags are worth compare one trained with tag dropout, or one without guidance"
    ]


def _tags(guidance: Guidance, clips: Sequence[Clip]) -> list[tuple[str, ...]] | None:
    """Return the tags that guide each clip; None where the captioner predicts them."""
    if guidance == "predicted":
        return None
    if guidance == "none":
        return [()] * len(clips)
    own = [clip.tags for clip in clips]
    if guidance == "tags":
        return own
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(clips))
    others = dict(
        zip(order, np.roll(order, 1), strict=True)
    )  # each clip gets those of the one before it in a random ring
    return [own[others[row]] for row in range(len(clips))]


def _clap(config: CaptioningConfig, written: Written) -> dict[str, Score]:
    """Return the cosine of every clip with its caption, by the two towers of --clap."""
    if not config.clap:
        return dict.fromkeys(written.texts, Score(reason="needs --clap, a two-tower checkpoint"))
    model = evaluation.load(config.clap, "--clap", config.device).model
    audio_vectors = in_process.embed_audio(model, written.clips, config.batch_size).vectors
    return {
        name: captions.mean((audio_vectors * in_process.embed_text(model, texts)).sum(axis=1))
        for name, texts in written.texts.items()
    }


def _entry(scores: dict[str, Score], texts: list[str]) -> dict[str, MetricRecord | None]:
    found: dict[str, MetricRecord | None] = {
        name: None if score.value is None else results.metric(score.value, score.interval95)
        for name, score in scores.items()
    }
    return found | {name: results.metric(value) for name, value in captions.diversity(texts).items()}


def _differences(scores: dict[str, Score], first: dict[str, Score]) -> dict[str, MetricRecord]:
    """Return the mean differences from the first kind of guidance, over the same clips, with their intervals."""
    found = {}
    for name in COMPARED:
        one, other = scores[name].per_clip, first[name].per_clip
        if one is not None and other is not None:
            gain = one - other
            interval = metrics.bootstrap(lambda rows, gain=gain: float(gain[rows].mean()), len(gain))  # type: ignore[misc]
            found[name] = results.metric(float(gain.mean()), interval)
    return found


def _outcomes(written: Written, scores: dict[str, dict[str, Score]]) -> dict[str, np.ndarray]:
    """Return what two runs are compared by: of every score that is a mean over clips, that of each clip (N,)."""
    found = {"keys": results.keys(written.clips)}
    for guidance, by_name in scores.items():
        for name in COMPARED:
            score = by_name[name]
            if (
                score.value is not None
                and score.per_clip is not None
                and np.isclose(score.per_clip.mean(), score.value)
            ):
                found[f"guidance {guidance} {name}"] = score.per_clip
    return found


def _table(written: Written, scores: dict[str, dict[str, Score]]) -> bytes:
    """Return a CSV of every caption with its references and scores; worst first, by CIDEr-D under the first guidance."""
    first = next(iter(scores.values()))["cider_d"].per_clip
    order = range(len(written.clips)) if first is None else np.argsort(first, kind="stable").tolist()
    text = io.StringIO()
    table = csv.writer(text)
    per_clip = {
        name: {m: s.per_clip for m, s in found.items() if s.per_clip is not None} for name, found in scores.items()
    }
    table.writerow(["key", "guidance", "tags", "caption", "references", *next(iter(per_clip.values()))])
    for row in order:
        clip = written.clips[row]
        for name, values in per_clip.items():
            columns = [
                clip.key,
                name,
                "|".join(written.tags[name][row]),
                written.texts[name][row],
                " || ".join(clip.captions),
            ]
            table.writerow([*columns, *(f"{each[row]:.4f}" for each in values.values())])
    return text.getvalue().encode()


def _cell(metric: MetricRecord | None, sign: str = "") -> str:
    if metric is None:
        return "-"
    if "interval95" not in metric:
        return f"{metric['value']:{sign}.3g}" if metric["value"] % 1 else f"{metric['value']:{sign}.0f}"
    low, high = metric["interval95"]
    return f"{metric['value']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"

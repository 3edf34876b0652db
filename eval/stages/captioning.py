"""Score captions of a task's clips: `python -m eval captioning <config>`.

They are written by a checkpoint (--model) or an LLM (--captioner), or a dataset of the same clips has them (--data), from
one captioner or chosen among several. With several kinds of --guidance it is the ablation of tags: the same clips and the
same captioner with their own tags, none, those that it predicts, and those of other clips. Tags of other clips must hurt.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from eval import results, tasks
from eval.captioning import Maker, judging
from eval.captioning.dataset import KIND, DatasetMaker
from eval.captioning.llm import LlmConfig, LlmMaker
from eval.captioning.makers import CheckpointMaker, GivenTags, Making
from eval.embedding import evaluation, in_process
from eval.embedding.in_process import Written
from eval.metrics import captions
from eval.metrics.captions import Score
from pipeline import storage
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from train import checkpoint
from train.models.captioner.decoding import Decoding

log = logging.getLogger(__name__)
Guidance = Literal["tags", "none", "predicted", "shuffled"]
SHUFFLE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class CaptioningConfig(LlmConfig):
    """Score captions of the clips of a task against people's; one of --model, --captioner and --data has them."""

    model: str = ""
    """Checkpoint directory that `train captioner` wrote."""
    data: str = ""
    """Dataset of shards of the task's clips, whose captions are judged as they are: the first one of each clip."""
    captions: str = ""
    """Overlay of --data whose captions to judge, such as that of `pipeline choose`; empty takes the shards' own."""
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
    task, clips, maker = _check(config)
    scorer = checkpoint.describe(config.clap, "--clap", "clap").revision if config.clap else ""
    name, source = f"captioning {task.name}", results.source(task, config.task_dir, clips, scorer=scorer)
    if results.done(config.out, name, config, source):
        return
    given: GivenTags = {kind: _tags(kind, clips) for kind in _kinds(config)}
    judged = maker.write(clips, given, _making(config))
    written = judged.written
    scores = {kind: captions.score(texts, [c.captions for c in written.clips]) for kind, texts in written.texts.items()}
    clap = _clap(config, written)
    scores = {kind: {**found, "clap": clap[kind]} for kind, found in scores.items()}
    entry = {
        **judging.entry(judged, scores),
        "decoding": str(config.decoding),
        "tag_threshold": config.tag_threshold,
        "fold_rule": task.fold_rule,
        **results.protocol(written.clips, len(clips), written.missing, maker.record, config, source),
    }
    listed = storage.join(storage.resolve(config.out), f"{results.file_stem(name)}.csv")
    storage.publish(listed, judging.table(judged, scores))
    uri = results.publish(config.out, name, maker.record, maker.uri, entry, judging.outcomes(written, scores))
    if isinstance(maker, LlmMaker):
        maker.forget()
    print(judging.text_table(entry))
    log.info("captioning %s: n %d; wrote %s and %s", task.name, entry["n"], uri, listed)


def _kinds(config: CaptioningConfig) -> tuple[str, ...]:
    """Return the kinds of guidance; captions that a dataset has are of one kind, whatever guided them."""
    return (KIND,) if config.data else config.guidance


def _making(config: CaptioningConfig) -> Making:
    return Making(config.decoding, config.tag_threshold, config.batch_size, config.device)


def _check(config: CaptioningConfig) -> tuple[tasks.Task, list[Clip], Maker]:
    """Find out what is wrong with the command before any model runs."""
    given = [name for name in ("model", "captioner", "data") if getattr(config, name)]
    if len(given) > 1:
        first, second = given[:2]
        raise InputError(f"--{second}", getattr(config, second), f"give this or --{first}, not both")
    task, listed = tasks.read(config.task, config.task_dir, config.folds, columns=config.columns)
    if not config.guidance or len(set(config.guidance)) < len(config.guidance):
        raise InputError(
            "--guidance", config.guidance, "give one or more of tags, none, predicted, shuffled, each once"
        )
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
    maker = _maker(config)
    results.check(config.out, maker.record["revision"])
    clips = [clip for clip in listed if clip.captions]
    if not clips:
        raise InputError("--task-dir", config.task_dir, "none of its clips has a caption")
    return task, clips, maker


def _maker(config: CaptioningConfig) -> Maker:
    if config.captions and not config.data:
        raise InputError("--captions", config.captions, "names an overlay of a dataset; give that as --data")
    if config.data:
        return DatasetMaker(config.data, config.captions)
    if config.captioner:
        return LlmMaker(config, config.guidance, _making(config), config.out)
    return CheckpointMaker(config.model, config.guidance)


def _tags(guidance: str, clips: Sequence[Clip]) -> list[tuple[str, ...]] | None:
    """Return the tags that guide each clip; None where the captioner predicts them."""
    if guidance == "predicted":
        return None
    if guidance in ("none", KIND):
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
    embedded = in_process.embed_audio(model, written.clips, config.batch_size)
    if embedded.missing:  # of captions that a dataset has, whose audio was not read yet
        keys = tuple(embedded.missing)[:3]
        raise InputError(
            "--clap", config.clap, f"the audio of {len(embedded.missing)} clips, such as {keys}, is unreadable"
        )
    return {
        name: captions.mean((embedded.vectors * in_process.embed_text(model, texts)).sum(axis=1))
        for name, texts in written.texts.items()
    }

"""An LLM that captions the clips of a task, by the code and the instructions by which `pipeline caption` uses it."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from eval.captioning.makers import GivenTags, Judged, Making
from eval.embedding import in_process
from eval.embedding.in_process import Written
from eval.results.records import ModelRecord
from pipeline import audio, storage
from pipeline.dataset import answers
from pipeline.errors import InputError
from pipeline.graph import caption_failures, captioners
from pipeline.graph.budget import LocalBudget
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.caption_failures import NO_CAPTION
from pipeline.graph.captioner import ClipBatch
from pipeline.graph.captioner_name import CaptionerName
from pipeline.graph.engine import ActorConfig
from pipeline.sources.clip import Clip
from train import checkpoint

REMEDY = "the same command goes on once that is mended"
SHARD = 0  # that answers are kept for: the clips of a task are no shards


@dataclass(frozen=True, kw_only=True)
class LlmConfig:
    """An LLM as a captioner; the fields are those of `pipeline caption`."""

    captioner: str = ""
    """In place of --model: hf:<namespace/name or folder>, or openai:<model> behind the endpoint at --captioner-url."""
    prompt: str = ""
    """Instruction to the LLM: guided, unguided, or a text of your own, with {tags} where the tags belong."""
    rewrite: Literal["", "tags"] = ""
    """Let a text LLM write the captions from the clip's tags; no audio is sent."""
    clip_s: float = 30.0
    """Seconds of each clip, from its start, that the LLM gets."""
    max_words: int = 40
    """Words that stay of a caption."""
    max_tokens: int = 96
    """Tokens that the LLM may write for a caption."""
    tagger: str = ""
    """Checkpoint with a tagging head, which predicts the tags of --guidance predicted for the LLM."""
    captioner_url: str = ""
    """Endpoint of an openai: captioner, such as http://127.0.0.1:8000/v1. It gets the audio of every clip."""
    captioner_key_variable: str = "OPENAI_API_KEY"
    """Variable of the environment that holds the key of the endpoint. Where it is not set, none is sent."""
    concurrency: int = 8
    """Requests under way."""
    max_requests: int = 0
    """Requests that the command may send. 0: no bound."""


FIELDS = tuple(each.name for each in dataclasses.fields(LlmConfig))


class LlmMaker:
    """A `Maker` that asks an LLM. Answers of an endpoint are kept in `out` until the results are there."""

    uri = ""

    def __init__(self, config: LlmConfig, guidance: Sequence[str], making: Making, out: str) -> None:
        """Raise InputError for fields that cannot be; nothing is loaded or sent."""
        self.config, self.out = config, storage.resolve(out) if out else ""
        name = CaptionerName.parse(config.captioner)
        if name.kind == "blat":
            raise InputError("--captioner", config.captioner, "a checkpoint goes to --model; give hf:... or openai:...")
        self.name = config.captioner
        self.budget = LocalBudget(config.max_requests) if config.max_requests else None
        info, *_ = [captioners.describe(self._actor(kind, making)) for kind in guidance]
        self.name = info.captioner  # with the commit of the hub
        lineage = {"stage": checkpoint.RELEASED, "captioner": info.captioner, **info.identity}
        self.record: ModelRecord = {"name": name.title, "revision": info.revision, "lineage": lineage}

    def _actor(self, guidance: str, making: Making) -> CaptionActorConfig:
        """Return the config of the captioner for one kind of guidance."""
        on_gpu = making.device != "cpu" and CaptionerName.parse(self.config.captioner).kind == "hf"
        return CaptionActorConfig(
            **{name: getattr(self.config, name) for name in FIELDS} | {"captioner": self.name},
            guidance=(guidance,),  # type: ignore[arg-type]
            decoding=making.decoding,
            tag_threshold=making.tag_threshold,
            batch_size=making.batch_size,
            actors=ActorConfig(gpus=float(on_gpu)),
        )

    def write(self, clips: Sequence[Clip], given: GivenTags, making: Making) -> Judged:
        """See `Maker.write`. A clip that the endpoint refuses has no caption."""
        untagged = sum(not clip.tags for clip in clips)
        if untagged and {"tags", "shuffled"} & set(given):
            remedy = f"{untagged} of {len(clips)} clips have no tag to give to an LLM; use --guidance none"
            raise InputError("--guidance", tuple(given), remedy)
        found = Written({name: [] for name in given}, {name: [] for name in given}, [], {})
        counts: Counter[str] = Counter()
        for kind, tags in given.items():
            counts += self._write(kind, tags or [()] * len(clips), clips, found, self._actor(kind, making))
        kept = {clip.key: clip for clip in clips if clip.key not in found.missing}
        facts = {"num_tagged": sum(bool(clip.tags) for clip in kept.values()), "notes": [], "captioning": dict(counts)}
        return Judged(found._replace(clips=list(kept.values())), facts=facts)

    def _write(
        self,
        kind: str,
        tags: Sequence[tuple[str, ...]],
        clips: Sequence[Clip],
        found: Written,
        config: CaptionActorConfig,
    ) -> Counter[str]:
        """Add the captions of one kind of guidance; return what was counted. The model is loaded for this alone.

        Raises:
            JobError: when almost all clips got none, for one reason.
        """
        captioner = captioners.make(config, self.out, self.budget)
        counts: Counter[str] = Counter()
        failed: dict[str, tuple[str, str]] = {}
        for rows, samples in in_process.batches(clips, audio.SAMPLE_RATE_HZ, config.batch_size, found.missing):
            batch = _batch([clips[row] for row in rows], [tags[row] for row in rows], samples, captioner.clip_samples)
            made = captioner.caption(batch)
            counts.update(made.counts)
            for row, captions in zip(rows, made.captions, strict=True):
                if not captions:
                    failed[clips[row].key] = made.failed.get(clips[row].key, (NO_CAPTION, "the caption was empty"))
                found.texts[kind].append(captions[0]["text"] if captions else "")
                found.tags[kind].append((captions[0]["tags"] if captions else None) or [])
        counts.update(reason for reason, _ in failed.values())
        caption_failures.check_clips(f"guidance {kind}", failed, len(found.texts[kind]), 0.0, REMEDY)
        return counts

    def forget(self) -> None:
        """Remove the kept answers, as the results are there."""
        answers.remove(self.out, SHARD)


def _batch(
    clips: Sequence[Clip], tags: Sequence[tuple[str, ...]], samples: Sequence[np.ndarray], clip_samples: int
) -> ClipBatch:
    """Return clips as a captioner takes them; the tags are those that guide, of the clip or of another one."""
    waveform = np.zeros((len(clips), clip_samples), np.int16)  # (B, T)
    for row, clip in zip(waveform, samples, strict=True):
        row[: len(clip)] = clip[:clip_samples]
    guiding = [list(each) for each in tags]
    return ClipBatch(
        keys=[clip.key for clip in clips],
        tags=guiding,
        other_tags=guiding,
        waveform=waveform,
        num_samples=[min(len(clip), clip_samples) for clip in samples],
        rate_hz=audio.SAMPLE_RATE_HZ,
        shard=SHARD,
        texts=[[] for _ in clips],
    )

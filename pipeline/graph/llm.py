"""What captioners that follow an instruction have in common: the check of their fields, and from answers to captions."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pipeline import audio
from pipeline.errors import InputError
from pipeline.graph import caption_text, prompts, tag_predictor
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.captioner import distinct
from pipeline.graph.prompts import Instruction
from pipeline.graph.shard_batch import CaptionRow


class Answer(NamedTuple):
    """What a model answered to one instruction."""

    instruction: Instruction
    text: str
    score: float | None
    decoding: str


def check(config: CaptionActorConfig) -> dict[str, object]:
    """Return what decides the captions beside model and config. Raises InputError for fields that cannot be."""
    for name in ("max_words", "max_tokens"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')}", getattr(config, name), "use 1 or more")
    if not 0 < config.clip_s <= audio.MAX_DURATION_S:
        raise InputError("--clip-s", config.clip_s, f"use a time above 0 s and up to {audio.MAX_DURATION_S:g} s")
    prompts.templates(config)
    return tag_predictor.check(config)


def captions(answers: Sequence[Answer], num_clips: int, max_words: int) -> tuple[list[list[CaptionRow]], Counter[str]]:
    """Return the captions of each clip in the order of the answers, and what was cut from these; empty ones are left out."""
    rows: list[list[CaptionRow]] = [[] for _ in range(num_clips)]
    counts: Counter[str] = Counter()
    for answer in answers:
        found = caption_text.clean(answer.text, max_words)
        counts += found.cuts
        if found.text:
            row: CaptionRow = {
                "text": found.text,
                "score": answer.score,
                "guidance": answer.instruction.guidance,
                "decoding": answer.decoding,
                "tags": answer.instruction.tags,
                "prompt": answer.instruction.prompt,
            }
            rows[answer.instruction.clip].append(row)
    return [distinct(found) for found in rows], counts

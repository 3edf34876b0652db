"""What captioners that follow an instruction have in common: the check of their fields, and from answers to captions."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pipeline import audio
from pipeline.errors import InputError
from pipeline.graph import caption_text, prompts, tag_predictor
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.caption_failures import NO_CAPTION
from pipeline.graph.captioner import distinct
from pipeline.graph.prompts import Instruction
from pipeline.graph.shard_batch import CaptionRow


class Answer(NamedTuple):
    """What a model answered to one instruction."""

    instruction: Instruction
    text: str
    score: float | None
    decoding: str
    at_limit: bool = False  # whether it ended at --max-tokens


class Captions(NamedTuple):
    """What answers come to."""

    rows: list[list[CaptionRow]]  # the captions of each clip, in the order of the answers
    counts: Counter[str]  # what was cut from the answers
    cut_off: set[int]  # clips that have no caption, though --max-tokens was the reason for one at least


def check(config: CaptionActorConfig) -> dict[str, object]:
    """Return what decides the captions beside model and config. Raises InputError for fields that cannot be."""
    for name in ("max_words", "max_tokens"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')}", getattr(config, name), "use 1 or more")
    if not 0 < config.clip_s <= audio.MAX_DURATION_S:
        raise InputError("--clip-s", config.clip_s, f"use a time above 0 s and up to {audio.MAX_DURATION_S:g} s")
    prompts.templates(config)
    return tag_predictor.check(config)


def captions(answers: Sequence[Answer], num_clips: int, max_words: int) -> Captions:
    """Return the captions in answers; empty ones are left out."""
    rows: list[list[CaptionRow]] = [[] for _ in range(num_clips)]
    counts: Counter[str] = Counter()
    for answer in answers:
        found = caption_text.clean(answer.text, max_words, answer.at_limit)
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
    cut_off = {answer.instruction.clip for answer in answers if answer.at_limit and not rows[answer.instruction.clip]}
    return Captions([distinct(found) for found in rows], counts, cut_off)


def cut_off(found: Captions, keys: Sequence[str], max_tokens: int) -> dict[str, tuple[str, str]]:
    """Return the clips whose answers were too long to hold a caption, by key: reason and its detail."""
    detail = f"no sentence of the answers ended within --max-tokens {max_tokens}"
    return {keys[clip]: (NO_CAPTION, detail) for clip in sorted(found.cut_off)}

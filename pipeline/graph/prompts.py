"""Instructions for captioners that follow one: templates, and what they come to for the clips of a batch."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.graph.caption_config import CaptionActorConfig, Guidance
from pipeline.graph.captioner import ClipBatch, ClipFilter

TAGS, CAPTIONS = "{tags}", "{captions}"
TEMPLATES = {
    "guided": (
        "Describe the sounds in this recording in one plain sentence. The recording has these tags: {tags}. "
        "Describe what is audible of them, and nothing that is not audible."
    ),
    "unguided": (
        "Describe the sounds in this recording in one plain sentence. Describe nothing that is not audible."
    ),
    "from-tags": (
        "A recording has these tags: {tags}. Describe its sounds in one plain sentence. Add no sound, place or time."
    ),
    "from-captions": (
        "Rewrite these descriptions of one recording as one plain sentence of its sounds: {captions} "
        "Leave out names and dates, and add nothing."
    ),
    "from-captions-guided": (
        "Rewrite these descriptions of one recording as one plain sentence of its sounds: {captions} "
        "The recording has these tags: {tags}. Leave out names and dates, and add nothing."
    ),
}  # fmt: skip
DEFAULTS = {  # of --rewrite: the templates with tags and without
    "": ("guided", "unguided"),
    "tags": ("from-tags", ""),
    "captions": ("from-captions-guided", "from-captions"),
}


class Instruction(NamedTuple):
    """What a captioner is asked for one clip under one kind of guidance."""

    clip: int  # index in the batch
    guidance: Guidance
    tags: list[str] | None  # that guide; None without guidance
    text: str
    prompt: str  # hash of the template


def templates(config: CaptionActorConfig) -> tuple[str, str]:
    """Return the templates with tags and without, of which `--prompt` replaces one. Raises InputError for a bad one."""
    guided, unguided = (TEMPLATES.get(name, "") for name in DEFAULTS[config.rewrite])
    if config.rewrite == "tags" and "none" in config.guidance:
        raise InputError("--guidance", "none", "gives no tags, and --rewrite tags has nothing else to write from")
    if not config.prompt:
        return guided, unguided
    text = TEMPLATES.get(config.prompt, config.prompt)
    if (CAPTIONS in text) != (config.rewrite == "captions"):
        raise InputError("--prompt", config.prompt, f"use {CAPTIONS} with --rewrite captions, and only there")
    if TAGS in text and set(config.guidance) == {"none"}:
        raise InputError(
            "--prompt", config.prompt, f"has {TAGS}, and --guidance none gives no tags; use other guidance"
        )
    if TAGS not in text and "none" not in config.guidance:
        raise InputError("--prompt", config.prompt, f"write {TAGS} where the tags belong, or use --guidance none")
    return (text, unguided) if TAGS in text else (guided, text)


def template_hash(template: str) -> str:
    """Return the hash of a template as captions state it."""
    return hashlib.sha256(template.encode()).hexdigest()[:12]


def instructions(
    config: CaptionActorConfig, clips: ClipBatch, predicted: Sequence[list[str]] | None = None
) -> list[Instruction]:
    """Return what to ask for each clip and kind of guidance, by clip; a clip without tags is not asked with its tags.

    Args:
        config: of the actor.
        clips: B clips.
        predicted: tags of each clip that a tagger predicted, where those guide.
    """
    guided, unguided = templates(config)
    listed = {"tags": clips.tags, "shuffled": clips.other_tags, "predicted": predicted or []}
    found = []
    for index in range(len(clips.keys)):
        for guidance in config.guidance:
            tags = [] if guidance == "none" else listed[guidance][index]
            if not tags and guidance in ("tags", "shuffled"):
                continue
            if config.rewrite == "tags" and not tags:
                continue
            template = guided if tags else unguided
            text = template.replace(TAGS, ", ".join(tags)).replace(CAPTIONS, " ".join(clips.texts[index]))
            found.append(Instruction(index, guidance, tags or None, text, template_hash(template)))
    return found


def clip_filter(config: CaptionActorConfig) -> ClipFilter:
    """Return which clips are captioned: guidance by given tags alone needs a tag, and texts to rewrite are needed."""
    needs_tag = set(config.guidance) <= {"tags", "shuffled"}
    return ClipFilter(needs_tag=needs_tag, needs_text=config.rewrite == "captions")


def reject(config: CaptionActorConfig, tags: Sequence[str], texts: Sequence[str]) -> tuple[str, str] | None:
    """See `Captioner.reject`."""
    if clip_filter(config).passes(tags, texts):
        return None
    if config.rewrite == "captions" and not texts:
        return "no_text", "the source gives no caption or title to rewrite; --columns captions=<column> names one"
    return "no_tags", "guidance needs a tag"

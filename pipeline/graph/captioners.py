"""Which captioners there are: `--captioner` chooses among them, and nothing else of the graph knows their kinds."""

from dataclasses import replace
from typing import TypeVar

from pipeline import sources, storage
from pipeline.errors import InputError
from pipeline.graph import blat_captioner, frame_tagger, hf_captioner, openai_captioner, prompts
from pipeline.graph.budget import Budget
from pipeline.graph.caption_config import CaptionActorConfig, CaptionConfig, check_fields
from pipeline.graph.captioner import Captioner, CaptionerInfo, ClipFilter
from pipeline.graph.frame_tagger_config import FLAG as TIMED_FLAG
from pipeline.planning.draft import PlanDraft, draft_plan

ConfigT = TypeVar("ConfigT", bound=CaptionActorConfig)


def describe(config: CaptionActorConfig) -> CaptionerInfo:
    """Check what a config asks of its captioner, before any actor starts. Raises InputError for what cannot be."""
    config.check()
    describers = {
        "blat": blat_captioner.describe,
        "hf": hf_captioner.describe,
        "openai": openai_captioner.describe,
    }
    return describers[config.kind](config)


def resolved(config: ConfigT, info: CaptionerInfo) -> ConfigT:
    """Return the config as actors on any node need it: with names that hold everywhere."""
    config = replace(config, captioner=info.captioner, tagger=storage.resolve(config.tagger) if config.tagger else "")
    if isinstance(config, CaptionConfig) and config.timed_by.tagger:
        timed_by = replace(config.timed_by, tagger=storage.resolve(config.timed_by.tagger))
        return replace(config, timed_by=timed_by)
    return config


def make(config: CaptionActorConfig, folder: str = "", budget: Budget | None = None) -> Captioner:
    """Load the captioner, in the actor.

    Args:
        config: of the captioner.
        folder: the dataset or overlay that it captions for; '' is none.
        budget: requests of the run to an endpoint; without one, --max-requests bounds this captioner alone.
    """
    if config.kind == "openai":
        return openai_captioner.OpenAiCaptioner(config, folder, budget)
    return hf_captioner.HfCaptioner(config) if config.kind == "hf" else blat_captioner.BlatCaptioner(config)


def clip_filter(config: CaptionActorConfig) -> ClipFilter:
    """Return which clips would be captioned, by their tags and texts."""
    return blat_captioner.clip_filter(config) if config.kind == "blat" else prompts.clip_filter(config)


def check_command(config: CaptionConfig) -> tuple[CaptionerInfo, PlanDraft]:
    """Find out what is wrong with the command before any engine starts; return the captioner and the plan."""
    if not config.source:
        raise InputError("--source", config.source, sources.SOURCE_HINT)
    info = describe(config)
    check_fields(config)
    info = _with_frame_tagger(config, info)
    bounds = config.clips_per_shard, config.firewall, config.max_shard_mb
    rewritten = config.rewrite == "captions"
    draft = draft_plan(
        config.out, config.source, config.folds, *bounds, config.columns, timed=config.timed, texts=rewritten
    )
    if config.timed and not (draft.plan.num_timed or config.timed_by.tagger):
        remedy = "the source has no strong labels: name a checkpoint with a tagging head, or leave out --timed"
        raise InputError(TIMED_FLAG, "", remedy)
    return info, draft


def _with_frame_tagger(config: CaptionConfig, info: CaptionerInfo) -> CaptionerInfo:
    """Return what decides the dataset, the tagger of --timed.tagger included."""
    revision = frame_tagger.revision(config.timed_by)
    if not revision:
        return info
    return replace(info, identity={**info.identity, "frame_tagger_revision": revision})

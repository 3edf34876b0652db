"""Tagged audio -> caption shards on Ray Data: `python -m pipeline caption <config>`."""

import dataclasses
import logging
from typing import TYPE_CHECKING

from pipeline import run_dir, sources, storage
from pipeline.errors import InputError
from pipeline.graph import caption_graph
from pipeline.graph.caption_graph import FREE, CaptionConfig, check
from pipeline.planning import plan
from pipeline.planning.draft import PlanDraft
from pipeline.quality import audio_filter
from pipeline.quality.audio_filter import AudioFilterConfig

if TYPE_CHECKING:
    from train.checkpoint import CheckpointInfo
    from train.models.captioner.model import CaptionerConfig

log = logging.getLogger(__name__)


def run(config: CaptionConfig) -> None:
    """Fill the plan: shards that are committed are skipped, and their inputs are not opened again."""
    checkpoint_info, drawn = check_command(config)
    config = dataclasses.replace(
        config, source=storage.resolve(config.source), captioner=storage.resolve(config.captioner)
    )
    config = _as_begun(config)
    identity = {"captioner_revision": checkpoint_info.revision, "arithmetic": config.arithmetic}
    out = run_dir.claim(config.out, config, identity, ignore=FREE)
    caption_graph.fill(config, out, plan.publish(out, drawn), checkpoint_info)


def _as_begun(config: CaptionConfig) -> CaptionConfig:
    """Return the config, without a filter where the job began before there was one. Raises InputError for thresholds."""
    marker = storage.join(run_dir.writable(config.out), run_dir.RUN_FILE)
    if not storage.exists(marker) or "audio_filter" in storage.read_json(marker):
        return config
    if config.audio_filter not in (audio_filter.OFF, AudioFilterConfig()):
        remedy = "this job began before there was a filter, and goes on without; drop the flag or choose another --out"
        raise InputError("--audio-filter", str(config.audio_filter), remedy)
    log.info("caption: this job began before there was --audio-filter; it goes on without")
    return dataclasses.replace(config, audio_filter=audio_filter.OFF)


def check_command(config: CaptionConfig) -> tuple["CheckpointInfo[CaptionerConfig]", PlanDraft]:
    """Find out what is wrong with the command before any engine starts; return the captioner's config and the plan."""
    from train import checkpoint
    from train.models.captioner.model import TagGuidedCaptioner

    if not config.source:
        raise InputError("--source", config.source, sources.SOURCE_HINT)
    checkpoint_info = checkpoint.describe(config.captioner, "--captioner", TagGuidedCaptioner)
    check(config, checkpoint_info)
    bounds = config.clips_per_shard, config.firewall, config.max_shard_mb
    return checkpoint_info, plan.draft(config.out, config.source, config.folds, *bounds, config.columns)

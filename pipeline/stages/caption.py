"""Tagged audio -> caption shards: `python -m pipeline caption <config>`."""

import dataclasses
import logging

from pipeline import run_dir, storage
from pipeline.errors import InputError
from pipeline.graph import caption_graph, captioners, run_config
from pipeline.graph.caption_config import CaptionConfig
from pipeline.planning.publish import publish_plan
from pipeline.quality import audio_filter
from pipeline.quality.audio_filter import AudioFilterConfig

log = logging.getLogger(__name__)


def run(config: CaptionConfig) -> None:
    """Fill the plan: shards that are committed are skipped, and their inputs are not opened again."""
    info, draft = captioners.check_command(config)
    config = dataclasses.replace(captioners.resolved(config, info), source=storage.resolve(config.source))
    if config.timed_by.tagger:
        timed_by = dataclasses.replace(config.timed_by, tagger=storage.resolve(config.timed_by.tagger))
        config = dataclasses.replace(config, timed_by=timed_by)
    config = _as_begun(config)
    out = run_dir.claim(config.out, config, run_config.begin(config, info).identity)
    caption_graph.fill(config, out, publish_plan(out, draft), info.clip_s)


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

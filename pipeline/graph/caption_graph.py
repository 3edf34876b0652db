"""The graph of a caption job.

A row is one shard of the plan, so that the engine can neither split nor merge shards.

    shard numbers -> Reader (CPU tasks): plan rows, bytes, decode, check, canonical FLAC   ---- FLAC, by a file ---+
                  -> CaptionActor (on GPUs where asked): batch, beam search                                       |
                  -> write_shard (CPU tasks): tar, ledger, commit mark   <----------------------------------------+

The samples travel to the actor in Arrow buffers, which are not copied within a node; only captions come back from it.
"""

import logging
from functools import partial

from pipeline import audio, storage
from pipeline.dataset import commit, staging
from pipeline.graph import budget, caption_failures, captioners, engine, fingerprint_pass
from pipeline.graph.caption_actor import CaptionActor
from pipeline.graph.caption_config import CaptionConfig, frame_tagger_of
from pipeline.graph.finalize import finalize, is_finalized
from pipeline.graph.fingerprint_pass import Fingerprinter
from pipeline.graph.job_stats import ProgressReporter, ShardReport
from pipeline.graph.reader import Reader
from pipeline.graph.write_shard import write_shard
from pipeline.planning.plan import Plan

log = logging.getLogger(__name__)
REMEDY = "the shards are kept: the same command goes on with the others, and `pipeline retry` does failed clips again"
SAMPLE_BYTES = 2  # of a sample; its FLAC, written as audio and as a part of the tar, takes half of that or less


def fill(config: CaptionConfig, out: str, plan: Plan, clip_s: float) -> None:
    """Write every shard of a published plan that is not committed, then the card; a finished dataset is left alone.

    Args:
        config: of the job.
        out: folder of the dataset.
        plan: published in it.
        clip_s: seconds of a clip that the captioner takes.
    """
    if not write_shards(config, out, plan, clip_s) and is_finalized(out, plan):
        commit.clean_up(out)  # what a second driver has left since
        log.info("caption: %s is complete already", out)
    else:
        finalize(out, plan, config.max_bad_fraction)


def write_shards(config: CaptionConfig, out: str, plan: Plan, clip_s: float) -> int:
    """Write the shards that are not committed; return how many there were. The arguments are those of `fill`.

    Raises:
        JobError: when so many clips got no caption in this run that the dataset cannot be published.
    """
    commit.recover(out)
    todo = plan.missing(out)
    staging.clean_up(out, set(plan.shards) - set(todo))
    num_shards = len(plan.shards)
    log.info("caption: %d clips, %d shards, %d committed", plan.num_clips, num_shards, num_shards - len(todo))
    if not todo:
        return 0
    in_process = config.actors.in_process
    if config.audio_filter.drop_copies:
        task = Fingerprinter(make_reader(config, out, plan, clip_s), captioners.clip_filter(config))
        fingerprint_pass.run(out, num_shards, task, in_process)
    num_clips = sum(plan.count_clips(out, todo))
    progress = ProgressReporter(num_clips, config.actors, plan.made_from.max_shard_mb or 0)
    for row in engine.rows(todo, *build_graph(config, out, plan, clip_s), in_process=in_process):
        progress.add(ShardReport.from_row(row))
        caption_failures.check_run(progress.reasons, plan.num_clips, config.max_bad_fraction, REMEDY)
    return len(todo)


def build_graph(config: CaptionConfig, out: str, plan: Plan, clip_s: float) -> list[engine.Tasks | engine.Actors]:
    """Return the steps of the graph; every row that comes out reports one committed shard."""
    make_captioner = partial(captioners.make, folder=out, budget=budget.of_run(config))
    reader = make_reader(config, out, plan, clip_s)
    num_clips = min(plan.clips_per_shard, plan.num_clips)
    seconds = num_clips * plan.duration_s / plan.num_clips  # of a shard, as listed
    return [
        engine.Tasks(reader, memory=num_clips * reader.decoded_samples * SAMPLE_BYTES),
        engine.Actors(
            CaptionActor, (config.sized(plan.num_clips), make_captioner, frame_tagger_of(config)), config.actors
        ),
        engine.Tasks(
            partial(write_shard, out=out, plan=plan), memory=round(seconds * audio.SAMPLE_RATE_HZ * SAMPLE_BYTES)
        ),
    ]


def make_reader(config: CaptionConfig, out: str, plan: Plan, clip_s: float) -> Reader:
    """Return what the reading tasks of a job do."""
    num_decoded = round(clip_s * audio.SAMPLE_RATE_HZ) if config.decode == "reader" else 0
    tables = tuple(storage.resolve(uri) for uri in config.firewall.fingerprints)
    return Reader(out, plan, tables, num_decoded, config.audio_filter)

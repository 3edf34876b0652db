"""A caption job whose model does nothing: the graph of `pipeline caption`, with a captioner that returns at once.

`python -m tests.bench.caption_job SOURCE OUT CLIPS_PER_SHARD ACTORS` prints its `Arrivals`, as JSON.
"""

import json
import sys
from collections.abc import Sequence

from pipeline import audio, run_dir
from pipeline.dataset import commit
from pipeline.graph import caption_graph, engine
from pipeline.graph.caption_actor import CaptionActor
from pipeline.graph.caption_config import CaptionActorConfig, CaptionConfig
from pipeline.graph.captioner import CaptionedBatch, ClipBatch
from pipeline.graph.engine import ActorConfig
from pipeline.graph.finalize import finalize
from pipeline.graph.run_config import RunConfig
from pipeline.graph.shard_batch import CaptionRow
from pipeline.planning.draft import draft_plan
from pipeline.planning.publish import publish_plan
from tests.bench import arrivals
from tests.bench.arrivals import Arrivals

CAPTION: CaptionRow = {"text": "a sound", "score": 0.0, "guidance": "none", "decoding": "none", "tags": None}


class NoOpCaptioner:
    """A `Captioner` that costs nothing."""

    clip_s = 10.0

    def __init__(self, _config: CaptionActorConfig) -> None:
        self.clip_samples = round(self.clip_s * audio.SAMPLE_RATE_HZ)

    def reject(self, tags: Sequence[str], texts: Sequence[str]) -> tuple[str, str] | None:
        """See `Captioner.reject`."""
        return None

    def caption(self, clips: ClipBatch) -> CaptionedBatch:
        """See `Captioner.caption`."""
        return CaptionedBatch([[CAPTION] for _ in clips.keys], 0.0)


def configure(source: str, out: str, clips_per_shard: int, actors: int) -> CaptionConfig:
    """Return the config of a job."""
    return CaptionConfig(
        source=source, out=out, captioner="none", guidance=("none",), clips_per_shard=clips_per_shard,
        actors=ActorConfig(max=actors),
    )  # fmt: skip


def run(config: CaptionConfig) -> Arrivals:
    """Write what is not committed, and the card; return when each shard came back."""
    if config.actors.in_process:
        import torch  # noqa: F401  # the engine needs it here, and its import is no part of the rate
    draft = draft_plan(config.out, config.source, (), config.clips_per_shard, config.firewall, config.max_shard_mb)
    run_config = RunConfig(config=config, captioner_revision="none", arithmetic="float32")
    out = run_dir.claim(config.out, config, run_config.identity)
    plan = publish_plan(out, draft)
    commit.recover(out)
    read, _, write = caption_graph.build_graph(config, out, plan, NoOpCaptioner.clip_s)
    steps = read, engine.Actors(CaptionActor, (config, NoOpCaptioner), config.actors), write
    done = arrivals.collect(engine.rows(plan.missing(out), *steps, in_process=config.actors.in_process))
    finalize(out, plan, config.max_bad_fraction)
    return done


def main(words: Sequence[str]) -> None:
    """Run the job of the command line."""
    source, out, clips_per_shard, actors = words
    print(json.dumps(run(configure(source, out, int(clips_per_shard), int(actors)))))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Captioning with a model that does nothing, beside the rate at which all cores decode the same clips with soundfile."""

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipeline import run_dir
from pipeline.graph import caption_graph
from pipeline.graph.caption_actor import CaptionActor
from pipeline.graph.run_config import RunConfig
from pipeline.planning.draft import draft_plan
from pipeline.planning.publish import publish_plan
from tests.bench import caption_job, inputs
from tests.bench.inputs import Format
from tests.bench.ratio import CORES, Row, Spread, alternate, seconds
from tests.bench.sizes import Sizes
from tests.bench.warm_ray import warm_ray

MIN_SHARE_CANONICAL, MIN_SHARE_ENCODED = 0.85, 0.45
CALLS = 10  # of the actor in one repetition
MAX_OVERHEAD_MS = 0.3


def in_process(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the rates of jobs in one process, for input that is canonical and for input that must be encoded."""
    yield from _rates(folder, sizes, ("flac", "wav", "wav 44.1 kHz stereo"), 0, {})


def on_ray(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the rates of jobs on a Ray that runs; nothing where Ray is left out."""
    if sizes.ray:
        with warm_ray() as environment:
            yield from _rates(folder, sizes, ("flac", "wav 44.1 kHz stereo"), 1, environment)


def _rates(
    folder: Path, sizes: Sizes, kinds: Sequence[Format], actors: int, environment: dict[str, str]
) -> Iterator[Row]:
    with inputs.raw_decoder(inputs.flac_files(inputs.write_clips(folder, "flac", sizes.clips, sizes))) as raw:
        for kind in kinds:
            source = inputs.write_clips(folder, kind, sizes.clips, sizes)
            ours = partial(_steady_rate, source, folder / "job", sizes.clips_per_shard, actors, environment)
            found = alternate(ours, raw, sizes.repeats)
            yield Row(
                what=f"caption without a model, {kind}, {'Ray' if actors else 'in process'}",
                ours=f"{found.ours.median:.0f} clips/s",
                peer=f"{found.peer.median:.0f} FLAC clips/s decoded by soundfile on {CORES} cores",
                found=found.ratio,
                at_least=MIN_SHARE_CANONICAL if kind == "flac" else MIN_SHARE_ENCODED,
            )


def overhead(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the time that the actor takes for a clip beside its model."""
    source = inputs.write_clips(folder, "flac", sizes.clips_per_shard, sizes)
    out = folder / "overhead"
    config = caption_job.configure(str(source), str(out), sizes.clips_per_shard, 0)
    draft = draft_plan(config.out, config.source, (), config.clips_per_shard, config.firewall, config.max_shard_mb)
    identity = RunConfig(config=config, captioner_revision="none", arithmetic="float32").identity
    plan = publish_plan(run_dir.claim(config.out, config, identity), draft)
    shard = caption_graph.make_reader(config, str(out), plan, caption_job.NoOpCaptioner.clip_s)(
        pa.table({"shard": [0]})
    )
    actor = CaptionActor(config, caption_job.NoOpCaptioner)
    actor(shard)

    def calls() -> None:
        for _ in range(CALLS):
            actor(shard)

    found = Spread.of([seconds(calls) / CALLS / sizes.clips_per_shard * 1e3 for _ in range(sizes.repeats)])
    yield Row(
        what="the actor beside its model",
        ours=f"{found.median:.3f} ms a clip",
        found=found,
        unit="ms",
        at_most=MAX_OVERHEAD_MS,
    )


def _steady_rate(source: Path, out: Path, clips_per_shard: int, actors: int, environment: dict[str, str]) -> float:
    """Return clips a second in the second half of a job in a process of its own.

    Shards of the first half were begun while the actor started.
    """
    shutil.rmtree(out, ignore_errors=True)
    words = (str(source), str(out), str(clips_per_shard), str(actors))
    printed = inputs.run(inputs.stage("tests.bench.caption_job", *words), **environment)
    shards: list[tuple[float, int]] = json.loads(printed.splitlines()[-1])
    half = len(shards) // 2
    return sum(clips for _, clips in shards[half + 1 :]) / (shards[-1][0] - shards[half][0])

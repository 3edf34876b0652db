"""Captioning with a model that does nothing, beside the rates at which all cores decode the same clips.

The first limit is plain soundfile, which the targets are for; the second is this repository's own decoder, a faster one.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipeline import audio, run_dir
from pipeline.graph import caption_graph
from pipeline.graph.caption_actor import CaptionActor
from pipeline.graph.run_config import RunConfig
from pipeline.planning.draft import draft_plan
from pipeline.planning.publish import publish_plan
from tests.bench import arrivals, caption_job, inputs
from tests.bench.arrivals import Arrivals
from tests.bench.inputs import Format
from tests.bench.ratio import CORES, Row, Spread, compare, measure_in_turn, seconds
from tests.bench.sizes import Sizes
from tests.bench.warm_ray import warm_ray

MIN_SHARE_CANONICAL, MIN_SHARE_ENCODED = 0.85, 0.45
CALLS = 10  # of the actor in one repetition
MAX_OVERHEAD_MS = 0.3


def in_process(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the rates of jobs in one process, for input that is canonical and for input that must be encoded."""

    def rate(source: Path) -> float:
        return arrivals.whole_rate(_job(source, folder / "job", sizes, 0, {}))

    yield from _rates(folder, sizes, ("flac",), sizes.long_job_clips, "in process", rate)  # its start weighs less
    yield from _rates(folder, sizes, ("wav", "wav 44.1 kHz stereo"), sizes.clips, "in process", rate)


def on_ray(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the rates of jobs on a Ray that runs; nothing where Ray is left out."""
    if not sizes.ray:
        return
    with warm_ray() as environment:

        def rate(source: Path) -> float:
            return arrivals.steady_rate(_job(source, folder / "job", sizes, 1, environment))

        yield from _rates(folder, sizes, ("flac", "wav 44.1 kHz stereo"), sizes.long_job_clips, "Ray", rate)


def _rates(
    folder: Path, sizes: Sizes, kinds: Sequence[Format], clips: int, where: str, rate: Callable[[Path], float]
) -> Iterator[Row]:
    """Yield two rows for each format of the input: beside soundfile, and beside our own decoder."""
    ranges = inputs.flac_files(inputs.write_clips(folder, "flac", sizes.limit_clips, sizes))
    with inputs.raw_decoder(ranges) as raw, inputs.raw_decoder(ranges, audio.decode) as own:
        for kind in kinds:
            source = inputs.write_clips(folder, kind, clips, sizes)
            ours, *limits = measure_in_turn((partial(rate, source), raw, own), sizes.repeats)
            target = MIN_SHARE_CANONICAL if kind == "flac" else MIN_SHARE_ENCODED
            names = (("", "soundfile", target), (", beside our decoder", "audio.decode", None))
            for limit, (beside, decoder, at_least) in zip(limits, names, strict=True):
                found = compare(ours, limit)
                yield Row(
                    what=f"caption without a model, {kind}, {where}{beside}",
                    ours=f"{found.ours.median:.0f} clips/s",
                    peer=f"{found.peer.median:.0f} FLAC clips/s decoded by {decoder} on {CORES} cores",
                    found=found.ratio,
                    at_least=at_least,
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


def _job(source: Path, out: Path, sizes: Sizes, actors: int, environment: dict[str, str]) -> Arrivals:
    """Run a job in a process of its own."""
    shutil.rmtree(out, ignore_errors=True)
    words = (str(source), str(out), str(sizes.clips_per_shard), str(actors))
    printed = inputs.run(inputs.stage("tests.bench.caption_job", *words), **environment)
    return Arrivals(*json.loads(printed.splitlines()[-1]))

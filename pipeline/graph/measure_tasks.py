"""Reading and writing by themselves, with a stopwatch: what `pipeline doctor` runs in tasks."""

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from pipeline import audio, sources
from pipeline.dataset import staging
from pipeline.errors import JobError
from pipeline.graph.reader import Reader, location
from pipeline.graph.shard_batch import ShardBatch
from pipeline.graph.write_shard import write_shard
from pipeline.planning.plan import Plan
from pipeline.planning.workload import Work
from pipeline.stopwatch import Stopwatch, Timing, repeat

PARTS_SHARE = 0.25  # of the time for reading, that goes to its parts


@dataclass(kw_only=True)
class ReadRates:
    """What reading takes."""

    timing: Timing
    parts: dict[str, Work]
    """fetch, decode and encode, each of one thread; seconds of a clip."""
    first_s: float
    """Of the first shard."""
    shard: pa.Table
    """A shard with clips that can be captioned."""
    failed: dict[str, int]
    """Clips that failed, by reason, each clip as often as it was read."""
    canonical_share: float
    """Of the clips: those that are kept byte for byte."""


def read_for(seconds: float, read: Reader, numbers: Sequence[int]) -> ReadRates:
    """Read shards for a while. Raises JobError when no clip can be captioned."""
    parts, canonical_share = _parts_for(PARTS_SHARE * seconds, read, numbers)
    found: list[pa.Table] = []
    failed: Counter[str] = Counter()
    times: list[float] = []

    def one(number: int) -> int:
        began = time.monotonic()
        batch = read(pa.table({"shard": [number]}))
        times.append(time.monotonic() - began)
        shard = ShardBatch.from_table(batch)
        clips = shard.clips
        failed.update(clip["reason"] for clip in clips if clip["status"] == "failed")
        if not found and any(clip["status"] == "ready" for clip in clips):
            found.append(batch)
        else:
            staging.remove(shard.audio)
        return len(clips)

    timing = repeat((1 - PARTS_SHARE) * seconds, one, numbers)
    if not found:
        reasons = ", ".join(f"{reason} {count}" for reason, count in failed.most_common()) or "all are filtered out"
        raise JobError(f"none of the {timing.clips} clips that were tried can be captioned: {reasons}; see --source")
    return ReadRates(
        timing=timing,
        parts=parts,
        first_s=times[0],
        shard=found[0],
        failed=dict(failed),
        canonical_share=canonical_share,
    )


def _parts_for(seconds: float, read: Reader, numbers: Sequence[int]) -> tuple[dict[str, Work], float]:
    """Read clips one by one in this thread; return what each part takes of a clip, and the share of canonical clips."""
    watches = {name: Stopwatch() for name in ("fetch", "decode", "encode")}
    clips = canonical = 0
    rows = itertools.chain.from_iterable(read.plan.read_shard(read.out, number) for number in numbers)
    for row in rows:
        if clips and sum(watch.wall_s for watch in watches.values()) >= seconds:
            break
        where = location(row)
        try:
            with watches["fetch"]:
                data = sources.read_encoded(where)
            with watches["decode"]:
                decoded = sources.decode_canonical(data, where)
        except audio.AudioError:
            continue  # the reading task counts it
        if decoded.flac is None:
            with watches["encode"]:
                audio.encode_flac(decoded.samples)
        clips, canonical = clips + 1, canonical + (decoded.flac is not None)
    number = max(1, clips)
    works = {name: Work(core_s=watch.cpu_s / number, wall_s=watch.wall_s / number) for name, watch in watches.items()}
    return works, canonical / number


def write_for(seconds: float, trial: str, plan: Plan, captioned: pa.Table) -> Timing:
    """Publish a captioned shard under one number after another; return the timing."""
    batch = ShardBatch.from_table(captioned)
    flac = bytes(staging.read(batch.audio))

    def one(number: int) -> int:
        staged = staging.write(trial, number, [flac])
        write_shard(replace(batch, shard=number, audio=staged).to_table(), trial, plan)
        return len(batch.clips)

    return repeat(seconds, one, itertools.count())

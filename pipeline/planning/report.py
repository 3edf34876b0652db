"""What a plan holds, and what it takes to fill it, for people."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from pipeline.planning.capacity import CapacityConfig, CapacityEstimate, estimate
from pipeline.planning.plan import Plan

FLAC_BYTES_PER_S = 40_000  # approximate; 32 kHz mono 16-bit of mixed sounds
SHOWN_TAGS = 30


def describe(plan: Plan) -> str:
    """Return what a plan holds, for people."""
    lines = [f"{count:>9,}  {name}" for name, count in islice(plan.tags.items(), SHOWN_TAGS)]
    if (hidden := len(plan.tags) - SHOWN_TAGS) > 0:
        lines.append(f"{'':>9}  and {hidden} more tags")
    lines += _describe_decontamination(plan)
    if plan.listing:
        lines.append(f"source: {plan.listing.sentence()}")
    hours = plan.duration_s / 3600
    size = f"{hours:,.1f} h as listed, some {plan.duration_s * FLAC_BYTES_PER_S / 1e9:,.1f} GB"
    lines.append(
        f"{plan.num_clips:,} clips, {plan.num_included:,} after exclusions, {plan.num_without_tags:,} without tags, "
        f"{plan.num_faults:,} with faults; {size if hours else 'lengths are not listed'}"
    )
    max_mb = plan.made_from.max_shard_mb
    bounds = f"{plan.clips_per_shard:,} clips" + (f" or {max_mb:,g} MB" if max_mb else "")
    lines.append(f"{plan.num_shards:,} shards of at most {bounds}; hash {plan.hash[:12]}")
    return "\n".join(lines)


def _describe_decontamination(plan: Plan) -> list[str]:
    lines = []
    for one in plan.matched_sets.lists:
        excluded = f"{plan.matched_sets.excluded.get(one.set, 0):,} clips excluded in all"
        lines.append(
            f"decontamination: {one.set}: {one.ids:,} ids in {one.list}: {'allowed' if one.allowed else excluded}"
        )
    if tables := plan.made_from.fingerprints:
        lines.append(f"decontamination: {len(tables)} fingerprint tables: compared when the audio is read")
    if plan.matched_sets.unchecked:
        lines.append(f"decontamination: no list, not checked: {', '.join(plan.matched_sets.unchecked)}")
    return lines


def estimates(sizes: Sequence[int], clips_per_shard: int, rates: Mapping[str, Any], config: CapacityConfig) -> str:
    """Return what it takes to caption so many clips, size beside size, for people."""
    found = [estimate(size, clips_per_shard, rates, config) for size in sizes]
    # Prices decide on the costs that are shown, the same for all sizes.
    rows = list(zip(*map(_column, found), strict=True))
    width = max(len(cell) for row in rows for _, cell in row)
    lines = [f"{row[0][0]:<32}" + "".join(f"  {cell:>{width}}" for _, cell in row) for row in rows]
    return "\n".join([*lines, *(warning for each in found for warning in each.warnings)])


def _column(found: CapacityEstimate) -> list[tuple[str, str]]:
    return [
        ("clips", f"{found.clips:,}"),
        ("audio, h", f"{found.audio_h:,.0f}"),
        ("shards", f"{found.shards:,}"),
        ("time, h", _short(found.hours)),
        ("actors", f"{found.actors:,}"),
        ("GPU nodes", f"{found.gpu_nodes:,}"),
        ("  object store, disk of each, GB", _short(found.gpu_object_store_gb)),
        ("cores reading and writing", _short(found.cores)),
        ("CPU nodes", f"{found.cpu_nodes:,}"),
        ("  object store, disk of each, GB", _short(found.cpu_object_store_gb)),
        ("  memory of their tasks, GB", _short(found.cpu_memory_gb)),
        ("shards stored, GB", _short(found.output_gb)),
        ("GET and HEAD requests", f"{found.reads:,}"),
        ("PUT, COPY, LIST requests", f"{found.writes:,}"),
        ("planning on the driver, min", _short(found.plan_min)),
        ("  its memory, GB", _short(found.plan_gb)),
        *((f"cost: {kind}", f"{amount:,.2f}") for kind, amount in found.cost.items()),
    ]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 1 else f"{value:.2g}"

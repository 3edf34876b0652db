"""What a plan holds, and what it takes to fill it, for people."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from pipeline.capacity import CapacityConfig, estimate

FLAC_BYTES_PER_S = 40_000  # about; 32 kHz mono 16-bit of mixed sounds
SHOWN_TAGS = 30


def kept(plan: dict[str, Any]) -> int:
    """Return how many clips the firewall leaves."""
    return int(plan["num_clips"] - sum(plan["firewall"]["excluded"].values()))


def describe(plan: dict[str, Any]) -> str:
    """Return what a plan holds, for people."""
    lines = [f"{count:>9,}  {name}" for name, count in islice(plan["tags"].items(), SHOWN_TAGS)]
    if (hidden := len(plan["tags"]) - SHOWN_TAGS) > 0:
        lines.append(f"{'':>9}  and {hidden} more tags")
    for one in plan["firewall"]["lists"]:
        told = (
            "allowed"
            if one["allowed"]
            else f"{plan['firewall']['excluded'].get(one['set'], 0):,} clips excluded in all"
        )
        lines.append(f"firewall: {one['set']}: {one['ids']:,} ids in {one['list']}: {told}")
    if tables := plan["made_from"]["fingerprints"]:
        lines.append(f"firewall: {len(tables)} fingerprint tables: compared when the audio is read")
    if plan["firewall"]["unchecked"]:
        lines.append(f"firewall: no list, not checked: {', '.join(plan['firewall']['unchecked'])}")
    hours = plan["duration_s"] / 3600
    size = f"{hours:,.1f} h as listed, about {plan['duration_s'] * FLAC_BYTES_PER_S / 1e9:,.1f} GB"
    lines.append(
        f"{plan['num_clips']:,} clips, {kept(plan):,} after exclusions, {plan['num_without_tags']:,} without tags, "
        f"{plan['num_faults']:,} with faults; {size if hours else 'lengths are not listed'}"
    )
    lines.append(f"{plan['num_shards']:,} shards of {plan['clips_per_shard']:,} clips; hash {plan['hash'][:12]}")
    return "\n".join(lines)


def estimates(sizes: Sequence[int], clips_per_shard: int, rates: Mapping[str, Any], config: CapacityConfig) -> str:
    """Return what it takes to caption so many clips, size beside size, for people."""
    found = [estimate(size, clips_per_shard, rates, config) for size in sizes]
    kinds = list(dict.fromkeys(kind for each in found for kind in each.cost))
    rows = [
        ("clips", [f"{each.clips:,}" for each in found]),
        ("audio, h", [f"{each.audio_h:,.0f}" for each in found]),
        ("shards", [f"{each.shards:,}" for each in found]),
        ("time, h", [_short(each.hours) for each in found]),
        ("actors", [f"{each.actors:,}" for each in found]),
        ("GPU nodes", [f"{each.gpu_nodes:,}" for each in found]),
        ("  object store of each, GB", [_short(each.gpu_object_store_gb) for each in found]),
        ("cores reading and writing", [_short(each.cores) for each in found]),
        ("CPU nodes", [f"{each.cpu_nodes:,}" for each in found]),
        ("  object store of each, GB", [_short(each.cpu_object_store_gb) for each in found]),
        ("  memory of their tasks, GB", [_short(each.cpu_memory_gb) for each in found]),
        ("shards stored, GB", [_short(each.output_gb) for each in found]),
        ("GET and HEAD requests", [f"{each.reads:,}" for each in found]),
        ("PUT, COPY, LIST requests", [f"{each.writes:,}" for each in found]),
        ("planning on the driver, min", [_short(each.plan_min) for each in found]),
        ("  its memory, GB", [_short(each.plan_gb) for each in found]),
        *((f"cost: {kind}", [f"{each.cost.get(kind, 0):,.2f}" for each in found]) for kind in kinds),
    ]
    width = max(len(cell) for _, cells in rows for cell in cells)
    lines = [f"{name:<28}" + "".join(f"  {cell:>{width}}" for cell in cells) for name, cells in rows]
    return "\n".join([*lines, *(warning for each in found for warning in each.warnings)])


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 1 else f"{value:.2g}"

"""Fix which clip goes into which shard: `python -m pipeline plan <config>`."""

from dataclasses import dataclass, field

from pipeline import errors, run_dir
from pipeline.planning import capacity, report
from pipeline.planning.capacity import CapacityConfig
from pipeline.planning.cut import MAX_SHARD_MB
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.planning.draft import PlanDraft, draft_plan
from pipeline.planning.publish import publish_plan


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Fix which clip goes into which shard, and look at it before any model runs."""

    source: str = ""
    """Where the clips are: a CSV, a folder, tars or Parquet files."""
    folds: tuple[str, ...] = ()
    """Keep only rows with one of these values in the fold column; empty keeps all."""
    columns: str = ""
    """Columns of a table that are named otherwise, as in file=path,labels=tags."""
    texts: bool = False
    """Plan the captions or titles that the source gives, for `caption --rewrite captions`."""
    out: str = ""
    """Folder or URI of the dataset; `caption` with the same --out fills the plan."""
    clips_per_shard: int = 512
    """Clips in each tar at most; 512 clips of 10 s take 200 to 300 MB."""
    max_shard_mb: float = MAX_SHARD_MB
    """Megabytes in each tar at most, by what the listing gives: 64 kB for each second of a clip, else the size of its file.
    Clips of neither count nothing; 0 bounds by clips alone."""
    timed: bool = False
    """Keep the strong labels of the clips, for `caption --timed`."""
    dry_run: bool = False
    """Print the plan without writing it."""
    firewall: DecontaminationConfig = field(default_factory=DecontaminationConfig)
    """Which evaluation clips are left out."""
    estimate: bool = False
    """Print nodes, hours, storage, requests and cost, for the plan and for --capacity.clips; nothing is written."""
    capacity: CapacityConfig = field(default_factory=CapacityConfig)
    """What to estimate for."""


def run(config: PlanConfig) -> None:
    """Write the plan and print what it holds, or what it takes to fill it."""
    if config.estimate:
        print(_estimate(config))
        return
    if not config.out and not config.dry_run:
        raise errors.InputError("--out", config.out, "give the folder or URI of the dataset, or --dry-run")
    out = run_dir.writable(config.out) if config.out else ""
    draft = _draft(config)
    print(report.describe(draft.plan))
    if config.dry_run:
        return
    try:
        publish_plan(out, draft)
    except OSError as error:
        raise errors.InputError("--out", config.out, f"cannot be written: {error}") from None


def _estimate(config: PlanConfig) -> str:
    rates = config.capacity.check()
    sizes = list(config.capacity.clips)
    if config.source or not sizes:
        sizes.insert(0, _draft(config).plan.num_included)
    clips_per_shard = capacity.clips_of_shard(config.clips_per_shard, config.max_shard_mb, rates)
    return report.estimates(sizes, clips_per_shard, rates, config.capacity)


def _draft(config: PlanConfig) -> PlanDraft:
    bounds = config.clips_per_shard, config.firewall, config.max_shard_mb
    return draft_plan(
        config.out, config.source, config.folds, *bounds, config.columns, timed=config.timed, texts=config.texts
    )

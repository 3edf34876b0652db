"""When a job ends because its captioner fails, so that a fault of the captioner does not become one of the clips.

    a shard in which almost every clip got no caption, for one reason    is not written, and the job ends
    a run in which more clips got none than --max-bad-fraction allows    ends before its other shards

The same command goes on afterwards. Clips that cannot be read do not count here.
"""

from collections import Counter
from collections.abc import Mapping

from pipeline.errors import JobError

ALMOST_ALL = 0.9  # of the clips that a captioner was given
REASONS = REFUSED, NO_CAPTION = "refused", "no_caption"  # for which a clip that can be read has no caption


def check_clips(
    where: str, failed: Mapping[str, tuple[str, str]], num_clips: int, max_bad_fraction: float, remedy: str
) -> None:
    """Check the clips of a shard, or of an evaluation, before they are written.

    Args:
        where: what the clips are of, as the message names it.
        failed: those without a caption, by key: reason and its detail.
        num_clips: that the captioner was given.
        max_bad_fraction: share of the clips that may fail; above ALMOST_ALL it takes its place.
        remedy: of the message.

    Raises:
        JobError: when almost all of them failed for one reason.
    """
    for reason, count in Counter(reason for reason, _ in failed.values()).most_common(1):
        if count > max(ALMOST_ALL, max_bad_fraction) * num_clips:
            key, detail = next((key, detail) for key, (each, detail) in failed.items() if each == reason)
            raise JobError(
                f"{where}: {count:,} of {num_clips:,} clips got no caption ({reason}; {key}: {detail}), and none of "
                f"them is written; {remedy}"
            )


def check_run(reasons: Mapping[str, int], num_clips: int, max_bad_fraction: float, remedy: str) -> None:
    """Check what a run has written so far. Raises JobError when more clips got no caption than the run may have.

    Args:
        reasons: clips by the reason for which they were not written.
        num_clips: of the dataset.
        max_bad_fraction: share of them that may fail.
        remedy: of the message.
    """
    if is_above(reasons, num_clips, max_bad_fraction):
        found = {reason: reasons[reason] for reason in REASONS if reasons.get(reason)}
        counts = ", ".join(f"{reason} {count:,}" for reason, count in found.items())
        raise JobError(
            f"{sum(found.values()):,} of {num_clips:,} clips got no caption ({counts}): more than "
            f"{max_bad_fraction:.0%}; {remedy}, or allow more with --max-bad-fraction"
        )


def is_above(reasons: Mapping[str, int], num_clips: int, max_bad_fraction: float) -> bool:
    """Return whether more clips got no caption than a run may have. The arguments are those of `check_run`."""
    return sum(reasons.get(reason, 0) for reason in REASONS) > max_bad_fraction * num_clips

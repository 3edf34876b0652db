"""The listed clips that cannot be decoded: found once, before training, and kept beside the checkpoint."""

import logging

from pipeline import storage
from pipeline.errors import JobError
from train.data.clip_sets import ListedClips

log = logging.getLogger(__name__)
FILE = "broken.json"  # {key: reason} of clips that are not trained on
VALIDATION_FILE = "broken_validation.json"  # the same of those that are not validated on


def find(clips: ListedClips, out: str, max_bad_fraction: float, name: str = FILE) -> dict[str, str]:
    """Return {key: reason} of clips that cannot be used; kept in a file, so that a resumed run has the same clips.

    Raises:
        JobError: when a larger share of them than `max_bad_fraction` cannot be used.
    """
    marker = storage.join(out, name)
    if storage.exists(marker):
        return dict(storage.read_json(marker))
    log.info("captioner: checking %d clips", len(clips.keys))
    broken = clips.find_broken()
    message = f"{len(broken)} of {len(clips.keys)} clips cannot be used, such as {dict(list(broken.items())[:5])}"
    if len(broken) > max_bad_fraction * len(clips.keys):
        raise JobError(f"{message}: more than {max_bad_fraction:.0%}; allow more with --max-bad-fraction")
    if broken:
        log.warning("captioner: %s; they are left out", message)
    storage.publish_json(marker, broken)
    return broken

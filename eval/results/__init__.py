"""Results on disk: every number with what it needs to be believed."""

from eval.results.completed import done, source
from eval.results.store import (
    SHOWN,
    check,
    check_writable,
    file_stem,
    has,
    keys,
    metric,
    outcomes_uri,
    over_folds,
    protocol,
    publish,
    read,
    record,
)

__all__ = [
    "SHOWN",
    "check",
    "check_writable",
    "done",
    "file_stem",
    "has",
    "keys",
    "metric",
    "outcomes_uri",
    "over_folds",
    "protocol",
    "publish",
    "read",
    "record",
    "source",
]

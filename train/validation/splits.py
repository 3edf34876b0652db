"""Which clips a model may be selected on: none of a test split, and none that it is trained on."""

import re
from collections.abc import Collection, Iterable

from pipeline.errors import InputError

TEST_NAME = re.compile(r"(?i)(?<![a-z])(test|eval|evaluation)(?![a-z])")


def refuse_test_split(source: str, folds: Collection[str], flag: str = "--validation") -> None:
    """Raise InputError when a source is a test split by its name or by the folds of its clips."""
    *_, folder, name = ["", *source.rstrip("/").split("/")]
    named_by_folder = name.split(".")[0] == "metadata"  # tables of this name lie in a folder that names the split
    test_fold = next((fold for fold in folds if TEST_NAME.fullmatch(fold)), None)
    if TEST_NAME.search(folder if named_by_folder else name):
        reason = "is a test split by its name"
    elif test_fold is not None:
        reason = f"holds clips of the fold {test_fold!r}"
    else:
        return
    remedy = "models that are selected on test data report wrong figures; give a validation split"
    raise InputError(flag, source, f"{reason}; {remedy}")


def refuse_shared(
    validated: Iterable[str], trained: Iterable[str], flag: str, value: object, remedy: str = "give others"
) -> None:
    """Raise InputError when clips (by their keys) are both validated and trained on."""
    held_out = set(validated)
    if shared := sorted({key for key in trained if key in held_out}):
        raise InputError(flag, value, f"{len(shared)} of its clips are trained on, such as {shared[:3]}; {remedy}")

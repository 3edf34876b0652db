"""What a downstream dataset is to an evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Task:
    """A downstream dataset."""

    name: str
    fold_rule: str
    labels: Literal["one", "many", "none"] = "one"  # that a clip has
    captioned: bool = False
    folds: tuple[str, ...] = ()  # of an official cross-validation
    train: tuple[str, ...] = ()  # folds of the official splits
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()  # names that its folder is published under, in lower case
    vocabulary: str = ""  # file that lists its classes, with AudioSet's ids
    classes: tuple[str, ...] = ()  # in order, of a task of one's own with a list of them
    label_text: Callable[[str], str] = str.lower  # label -> the words put into a prompt

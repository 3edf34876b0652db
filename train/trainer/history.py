"""What a run remembers of its steps, saved in pieces: a save writes what is new, and little of what was saved before.

<out>/training_state/history/00000000-00000042.json   a piece: the losses after step 0 up to step 42, and what else is new

A piece has the shape of history.json. A state names the pieces that make up its history, so that pieces of steps after the
state that a run goes on from do not count. Object stores cannot append to a file; pieces serve disks and stores alike.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from pipeline import storage

FOLDER = "history"
LISTS = ("loss", "epochs", "steps")


def empty() -> dict[str, Any]:
    """Return the history of a run that has not begun: the loss of each step, records of epochs and steps, skipped clips."""
    return {"loss": [], "epochs": [], "steps": [], "skipped": {}}


class Piece(NamedTuple):
    """A part of a history to be published."""

    name: str
    history: dict[str, Any]  # what came after the piece before it, in the shape of a whole history


class HistoryPieces:
    """The pieces of a history that grows at its end.

    A piece that is at most twice as long as the one after it becomes one with it. So each piece is more than twice as
    long as the next: a run of n steps has at most log2(n) + 1 pieces, and a step is written about as often.
    """

    def __init__(self, folder: str) -> None:
        """Take the folder of the states."""
        self.folder = storage.join(folder, FOLDER)
        self.ends = [_sizes(empty())]  # sizes of the whole history after each piece, and before the first

    @property
    def names(self) -> list[str]:
        """Return the names of the pieces, in order."""
        steps = [end["loss"] for end in self.ends]
        return [f"{first:08d}-{last:08d}.json" for first, last in pairwise(steps)]

    def cut(self, history: dict[str, Any]) -> Piece:
        """Make a piece of what is new in a history; it may take pieces before it in. To be published before a state."""
        now = _sizes(history)
        while len(self.ends) > 1 and self.ends[-1]["loss"] - self.ends[-2]["loss"] <= 2 * (
            now["loss"] - self.ends[-1]["loss"]
        ):
            self.ends.pop()
        begin = self.ends[-1]
        self.ends.append(now)
        part = {name: history[name][begin[name] :] for name in LISTS}
        return Piece(self.names[-1], {**part, "skipped": dict(list(history["skipped"].items())[begin["skipped"] :])})

    def publish(self, piece: Piece) -> None:
        """Publish a piece."""
        storage.publish_json(storage.join(self.folder, piece.name), piece.history)

    def read(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the history that these pieces make up, and go on after the last of them."""
        whole = empty()
        self.ends = [_sizes(whole)]
        for name in names:
            part = storage.read_json(storage.join(self.folder, name))
            for each in LISTS:
                whole[each] += part[each]
            whole["skipped"] |= part["skipped"]
            self.ends.append(_sizes(whole))
        return whole

    def clean_up(self, needed: Collection[str]) -> None:
        """Remove the pieces that no state needs."""
        for name in storage.list_names(self.folder):
            if name not in needed:
                storage.remove(storage.join(self.folder, name))


def _sizes(history: dict[str, Any]) -> dict[str, int]:
    return {name: len(history[name]) for name in (*LISTS, "skipped")}

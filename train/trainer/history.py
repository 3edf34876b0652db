"""What a run remembers of its steps, saved in pieces: a save writes what is new, and little of what was saved before.

<out>/training_state/history/00000000-00000042.json   a piece: the losses after step 0 up to step 42, and what else is new

A piece has the shape of history.json. A state names the pieces that make up its history, so that pieces of steps after the
state that a run goes on from do not count. Object stores cannot append to a file; pieces serve disks and stores alike.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, Literal, NamedTuple

from pipeline import storage

FOLDER = "history"


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What is measured after a step, at the end of an epoch or where validation is due within one."""

    step: int
    epoch: float | Literal["average"] | None = None  # epochs so far; "average" is of the averaged weights at the end
    loss: float | None = None  # mean over the epoch
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the validation clips; the first one selects

    def as_json(self) -> dict[str, float | str]:
        """Return one flat object; what is None is left out."""
        named = {"epoch": self.epoch, "step": self.step, "loss": self.loss}
        return {**{name: value for name, value in named.items() if value is not None}, **self.metrics}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "EpochRecord":
        """Rebuild a record from what `as_json` returned."""
        metrics = {name: value for name, value in record.items() if name not in ("epoch", "step", "loss")}
        return cls(step=record["step"], epoch=record.get("epoch"), loss=record.get("loss"), metrics=metrics)


class Sizes(NamedTuple):
    """How many entries of each kind a history has."""

    loss: int = 0
    epochs: int = 0
    steps: int = 0
    skipped: int = 0


@dataclass(kw_only=True)
class History:
    """What a run remembers, or a part of it; everything is in the order of the steps."""

    loss: list[float] = field(default_factory=list)  # of every step
    epochs: list[EpochRecord] = field(default_factory=list)
    steps: list[dict[str, float]] = field(
        default_factory=list
    )  # rows of train/trainer/monitor.py, each with its "step"
    skipped: dict[str, str] = field(default_factory=dict)  # {key: reason} of clips that could not be read

    @property
    def sizes(self) -> Sizes:
        """Return how much it holds."""
        return Sizes(len(self.loss), len(self.epochs), len(self.steps), len(self.skipped))

    def after(self, begin: Sizes) -> "History":
        """Return what was added since it had these sizes."""
        return History(
            loss=self.loss[begin.loss :],
            epochs=self.epochs[begin.epochs :],
            steps=self.steps[begin.steps :],
            skipped=dict(islice(self.skipped.items(), begin.skipped, None)),
        )

    def extend(self, part: "History") -> None:
        """Add the part that comes next."""
        self.loss += part.loss
        self.epochs += part.epochs
        self.steps += part.steps
        self.skipped |= part.skipped

    def as_json(self) -> dict[str, object]:
        """Return what history.json holds."""
        return {**vars(self), "epochs": [record.as_json() for record in self.epochs]}

    @classmethod
    def from_json(cls, held: Mapping[str, Any]) -> "History":
        """Rebuild a history from what `as_json` returned."""
        return cls(**{**held, "epochs": [EpochRecord.from_json(record) for record in held["epochs"]]})


class Piece(NamedTuple):
    """A part of a history to be published."""

    name: str
    history: History  # what came after the piece before it


class HistoryPieces:
    """The pieces of a history that grows at its end.

    A piece that is at most twice as long as the one after it becomes one with it. So each piece is more than twice as
    long as the next: a run of n steps has at most log2(n) + 1 pieces, and each step is written some log2(n) times.
    """

    def __init__(self, folder: str) -> None:
        """Take the folder of the states."""
        self.folder = storage.join(folder, FOLDER)
        self.ends = [Sizes()]  # sizes of the whole history after each piece, and before the first

    @property
    def names(self) -> list[str]:
        """Return the names of the pieces, in order."""
        return [f"{first.loss:08d}-{last.loss:08d}.json" for first, last in pairwise(self.ends)]

    def cut(self, history: History) -> Piece:
        """Make a piece of what is new in a history; it may absorb pieces before it. To be published before a state."""
        now = history.sizes
        while len(self.ends) > 1 and self.ends[-1].loss - self.ends[-2].loss <= 2 * (now.loss - self.ends[-1].loss):
            self.ends.pop()
        begin = self.ends[-1]
        self.ends.append(now)
        return Piece(self.names[-1], history.after(begin))

    def publish(self, piece: Piece) -> None:
        """Publish a piece."""
        storage.publish_json(storage.join(self.folder, piece.name), piece.history.as_json())

    def read(self, names: Sequence[str]) -> History:
        """Return the history that these pieces make up, and go on after the last of them."""
        whole = History()
        self.ends = [whole.sizes]
        for name in names:
            whole.extend(History.from_json(storage.read_json(storage.join(self.folder, name))))
            self.ends.append(whole.sizes)
        return whole

    def clean_up(self, needed: Collection[str]) -> None:
        """Remove the pieces that no state needs."""
        for name in storage.list_names(self.folder):
            if name not in needed:
                storage.remove(storage.join(self.folder, name))

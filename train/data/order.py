"""Which clips make up which step: one global order, a function of (seed, epoch), for any number of workers.

The clips of an epoch are a stream: blocks of neighbours in a shard, in shuffled order and shuffled inside. The stream is
cut into one run of clips for each slot of the batch, and each slot takes the clips of its run one by one. So a batch holds
clips of as many blocks as it has slots, while a slot reads one block at a time and object storage is read in large ranges.
Several datasets have a stream each, one after the other: every batch holds them in the same shares. Rank r of n takes
every n-th slot from r.

The state of the data is one number, the step: a run can go on with another number of workers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int32]
BLOCK = 16  # clips read at a time: some 5 MB of FLAC at 10 s


class StepClips(NamedTuple):
    """The clips of the global batch of a step."""

    passes: Numbers  # (batch_size,) over the dataset, from 0: the how manieth time that a clip is drawn
    clips: Numbers  # (batch_size,)


class Step(NamedTuple):
    """One step of a run on one rank."""

    number: int
    seed: int  # of what is random in it


@dataclass(frozen=True, kw_only=True)
class Order:
    """The clips of every step; clips are numbered through all datasets."""

    sizes: tuple[int, ...]  # clips of each dataset
    batch_size: int  # global, over all ranks
    seed: int
    weights: tuple[float, ...] = ()  # passes over each dataset in an epoch; 1 each when left out

    @property
    def draws(self) -> tuple[int, ...]:
        """Clips that an epoch takes of each dataset."""
        return tuple(round(w * n) for w, n in zip(self.weights or (1.0,) * len(self.sizes), self.sizes, strict=True))

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the last few clips of its order wait for another epoch's."""
        return sum(self.draws) // self.batch_size

    def step(self, step: int) -> StepClips:
        """Return the clips of the global batch of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return StepClips(*(each[:, position] for each in _slots(self, epoch)))

    def keyed(self, step: int, rank: int) -> Step:
        """Return a step with its seed on a rank: a function of (seed, step, rank), so that a resumed run draws the same."""
        return Step(step, hash((self.seed, step, rank)) % 2**62)


@lru_cache(maxsize=1)  # steps are asked for in order, and each rank holds this by itself
def _slots(order: Order, epoch: int) -> StepClips:
    """Return passes and clips of an epoch, each (batch_size, steps)."""
    offsets = np.cumsum([0, *order.sizes])
    draws = [range(epoch * count, (epoch + 1) * count) for count in order.draws]
    passes = [np.array(drawn, np.int64) // size for drawn, size in zip(draws, order.sizes, strict=True)]
    clips = [offsets[i] + _take(order, i, drawn.start, drawn.stop) for i, drawn in enumerate(draws)]
    shape = order.batch_size, order.steps_per_epoch
    whole = (np.concatenate(each)[: math.prod(shape)].astype(np.int32) for each in (passes, clips))
    return StepClips(*(each.reshape(shape) for each in whole))


def _take(order: Order, dataset: int, first: int, last: int) -> npt.NDArray[np.int64]:
    """Return the clips of draws `first` to `last` of one dataset, passes over it following one another."""
    size = order.sizes[dataset]
    passes: Sequence[int] = range(first // size, (last - 1) // size + 1) if last > first else ()
    whole = np.concatenate([np.zeros(0, np.int64), *(_shuffled(order.seed, dataset, each, size) for each in passes)])
    start = first - first // size * size
    return whole[start : start + last - first]


def _shuffled(seed: int, dataset: int, number: int, size: int) -> npt.NDArray[np.int64]:
    """Return one pass over a dataset: blocks in shuffled order, clips shuffled inside them."""
    rng = np.random.default_rng([seed, dataset, number])
    position = rng.permutation((size + BLOCK - 1) // BLOCK)  # of each block
    return np.lexsort((rng.random(size), position[np.arange(size) // BLOCK]))

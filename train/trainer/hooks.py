"""What a stage gives to the training loop: the gradients of a step, and what is done between steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from train.data.loader import Batch
from train.data.order import Step
from train.trainer.history import EpochRecord
from train.trainer.monitor import ScalarWriter
from train.trainer.optim import Group

# Adds the gradients of a batch on the model's device to the parameters; returns the loss, detached. On a GPU it should not
# wait for what it computes.
Backward = Callable[[nn.Module, Batch, Step], Tensor]
Validate = Callable[[nn.Module], Mapping[str, float]]  # on every rank, in eval mode; the first value selects
Keep = Callable[[EpochRecord], None]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a stage adds to a run."""

    groups: Callable[[], Sequence[Group]] | None = None  # with learning rates; asked when FSDP2 has replaced parameters
    validate: Validate | None = None
    validate_every_steps: int = 0  # beside the end of each epoch
    keep: Keep | None = None  # called on the leading rank with the record when it is the best so far
    extras: Callable[[], Mapping[str, float]] = dict  # more numbers to log
    writers: Sequence[ScalarWriter] = ()  # of the leading rank
    flops_per_pair: float = 0.0  # both as in `ThroughputSpec`
    peak_flops: float = 0.0

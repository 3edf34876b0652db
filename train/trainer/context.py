"""Where a process stands among the workers of a run, and who may ask it to stop."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from train.data.loader import Load
from train.trainer.monitor import ScalarWriter

STOP = "stop"
StopSignal = Callable[[], str]


def no_stop_signal() -> str:
    """Return that nothing is going to stop this process."""
    return ""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where this process stands among the workers. The defaults are a single process."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stop_signal: StopSignal = (
        no_stop_signal  # asked after each step: why to save at once, or ''; STOP also ends the run
    )
    load: Load | None = None  # decodes clips on other machines
    gauge: ScalarWriter | None = None  # writes scalars to the cluster's own metrics

    @property
    def leads(self) -> bool:
        """True on the one process that logs and saves."""
        return self.rank == 0

"""Where the time of a step goes: waiting for data, copying it to the device, computing. What is left of it is the rest."""

import time
from typing import NamedTuple

import torch


class StepTimes(NamedTuple):
    """Seconds of one step."""

    data: float  # without a batch
    copy: float  # without the batch on the device
    compute: float


class Laps(NamedTuple):
    """Moments of one step: its start, batch there, batch on the device, computed."""

    moments: tuple[float, ...]  # of this thread, seconds
    events: tuple[torch.cuda.Event, ...] = ()  # of the GPU, but for the start; none on a CPU

    def wait(self) -> None:
        """Wait until the GPU has computed the step."""
        if self.events:
            self.events[-1].synchronize()


class StepClock:
    """Times steps. On a GPU by events, which are read when the step is over: this thread runs ahead of the GPU."""

    def __init__(self, device: torch.device) -> None:
        """Take the device of the run."""
        self.device = device
        self.moments: list[float] = []
        self.events: list[torch.cuda.Event] = []
        self.previous: torch.cuda.Event | None = None  # the end of the step that was read last

    def start(self) -> None:
        """Begin a step."""
        self.moments, self.events = [time.monotonic()], []

    def lap(self) -> None:
        """Note the next moment of `Laps`."""
        self.moments.append(time.monotonic())
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            self.events.append(event)

    @property
    def laps(self) -> Laps:
        """Return the moments of the step."""
        return Laps(tuple(self.moments), tuple(self.events))

    def read(self, laps: Laps) -> StepTimes:
        """Return the times of a step that is over; steps are read in their order.

        A GPU that still computes the step before does not miss the next batch. Data counts as far as the GPU was idle.
        """
        start, fetched, copied, computed = laps.moments
        if not laps.events:
            return StepTimes(fetched - start, copied - fetched, computed - copied)
        there, on_device, end = laps.events
        idle = self.previous.elapsed_time(there) / 1e3 if self.previous is not None else fetched - start
        self.previous = end
        return StepTimes(
            min(fetched - start, idle), there.elapsed_time(on_device) / 1e3, on_device.elapsed_time(end) / 1e3
        )

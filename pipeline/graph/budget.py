"""The requests that a run may send, counted in one place.

Every request takes one, whichever actor sends it and however often Ray makes an actor anew.
"""

import threading
from typing import Any, Protocol

from pipeline.errors import JobError
from pipeline.graph import engine
from pipeline.graph.caption_config import CaptionActorConfig


class Budget(Protocol):
    """What a client asks before it sends a request."""

    def take(self) -> bool:
        """Take one request; return False where none is left."""
        ...


class LocalBudget:
    """A budget in this process; many threads use it."""

    def __init__(self, max_requests: int) -> None:
        self.left = max_requests
        self.lock = threading.Lock()

    def take(self) -> bool:
        """See `Budget.take`."""
        with self.lock:
            self.left -= 1
            return self.left >= 0


class RayBudget:
    """A budget in an actor on the driver's node, which lives as long as the driver; pickled to those who send."""

    def __init__(self, max_requests: int) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        engine.connect()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.actor: Any = ray.remote(LocalBudget).options(num_cpus=0, scheduling_strategy=here).remote(max_requests)

    def take(self) -> bool:
        """See `Budget.take`. Raises JobError when the driver's node is lost."""
        import ray
        import ray.exceptions

        try:
            return bool(ray.get(self.actor.take.remote()))
        except ray.exceptions.RayActorError as error:
            raise JobError(f"--max-requests: the count of requests is lost ({error}); run the command again") from None


def of_run(config: CaptionActorConfig) -> Budget | None:
    """Return the budget of a run, for all of its actors; None where --max-requests sets no bound."""
    if not config.max_requests:
        return None
    return LocalBudget(config.max_requests) if config.actors.in_process else RayBudget(config.max_requests)

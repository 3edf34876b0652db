"""What every command on an index takes."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """An index, and the model that embeds queries."""

    index: str = ""
    """Index that `eval index-search` wrote: a folder or a URI."""
    model: str = ""
    """Checkpoint that made the index, where it is no longer where the index names it."""
    device: str = "cpu"
    """Where the model computes: cpu or cuda."""

"""An indexing command that kills itself by SIGKILL before one of the changes that it makes to its index.

    python -m tests.support.killed NUMBER index-search laptop --data ...

Changes are the commits of LanceDB and the files that are published, counted from 1. Without so many changes it ends as
the command does.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from lancedb.merge import LanceMergeInsertBuilder
from lancedb.table import LanceTable

import eval.__main__ as eval_room
from pipeline import cli, storage

CHANGES = [
    (LanceMergeInsertBuilder, "execute"),
    *((LanceTable, name) for name in ("delete", "create_index", "optimize")),
    *((storage, name) for name in ("create", "publish_json")),
]


def count(number: int) -> None:
    """Let this process end by SIGKILL before change `number`."""
    done = 0

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return call

    for holder, name in CHANGES:
        setattr(holder, name, counted(getattr(holder, name)))


if __name__ == "__main__":
    count(int(sys.argv[1]))
    sys.exit(cli.main("eval", "", eval_room.STAGES, sys.argv[2:]))

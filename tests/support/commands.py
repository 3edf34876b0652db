"""Run the commands of a file, one a line, in one process: `python -m tests.support.commands FILE`.

A study starts a process for each of its commands, most of whose time in a test would be imports.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import eval.__main__ as eval_room
import pipeline.__main__ as pipeline_room
import train.__main__ as train_room
from pipeline import cli

ROOMS = {"pipeline": pipeline_room, "train": train_room, "eval": eval_room}


def run(commands: Sequence[Sequence[str]]) -> None:
    """Run what stands behind `python` in each command, up to the first that fails."""
    for module, room, *arguments in commands:
        assert module == "-m" and cli.main(room, "", ROOMS[room].STAGES, arguments) == 0, arguments


if __name__ == "__main__":
    run([shlex.split(line) for line in Path(sys.argv[1]).read_text().splitlines()])

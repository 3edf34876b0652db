"""A training command that is interrupted at given steps: its workers do it themselves, so that no test has to be in time.

    python -m tests.support.interrupted '[["kill_worker", 4], ["kill_driver", 8]]' FOLDER captioner tiny --source ...

Each interruption happens once, in this order, after that many steps of a process; a mark in FOLDER says that it is done.

    kill_worker        SIGKILL for the process that trains
    kill_driver        SIGKILL for the process of the command; the worker goes no further
    terminate_driver   SIGTERM for it; the worker goes no further than the state that is saved then
    lose_node          the workers wait until their node is taken away
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import train.launch
from pipeline import cli
from train.__main__ import STAGES
from train.launch import SAVE_FILE, ScaleConfig, Worker, launch
from train.stages import training
from train.trainer.context import Context, StopSignal

Kind = Literal["kill_worker", "kill_driver", "terminate_driver", "lose_node"]
Interruption = tuple[Kind, int]  # what, after how many steps


class Interrupting:
    """A stop signal, which a run asks after each step, that interrupts the run before it answers."""

    def __init__(self, interruptions: list[Interruption], folder: str, driver: int, out: str, context: Context) -> None:
        self.interruptions, self.folder, self.driver, self.out = interruptions, Path(folder), driver, out
        self.rank, self.answer = context.rank, context.stop_signal
        self.steps, self.ended = 0, False

    def __call__(self) -> str:
        self.steps += 1
        if self.ended:
            self.answer()  # it sees that the state is saved, and lets the driver end
            wait_for_ever()
        number = len(list(self.folder.glob("*.done")))
        if number < len(self.interruptions) and self.steps == self.interruptions[number][1]:
            if self.rank == 0:
                (self.folder / f"{number}.done").touch()
            self.interrupt(self.interruptions[number][0])
        return self.answer()

    def interrupt(self, kind: Kind) -> None:
        if kind == "kill_worker":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "kill_driver":
            os.kill(self.driver, signal.SIGKILL)
        if kind != "terminate_driver":
            wait_for_ever()
        train.launch.CHECK_EVERY_S = 0.0
        os.kill(self.driver, signal.SIGTERM)
        if self.driver != os.getpid():
            while not Path(self.out, SAVE_FILE).exists():
                time.sleep(0.05)
            self.ended = True


def wait_for_ever() -> None:
    threading.Event().wait()


def interrupt(
    worker: Worker, interruptions: list[Interruption], folder: str, driver: int, out: str, context: Context
) -> None:
    """Do the work of a worker, with interruptions."""
    signals: StopSignal = Interrupting(interruptions, folder, driver, out, context)
    worker(replace(context, stop_signal=signals))


def launch_interrupted(
    interruptions: list[Interruption],
    folder: str,
    worker: Worker,
    scale: ScaleConfig,
    out: str,
    ingest: Literal["local", "ray"] = "local",
) -> None:
    """Launch a run as `launch` does, with interruptions."""
    launch(partial(interrupt, worker, interruptions, folder, os.getpid(), out), scale, out, ingest)


if __name__ == "__main__":
    training.launch = partial(launch_interrupted, json.loads(sys.argv[1]), sys.argv[2])
    sys.exit(cli.main("train", "", STAGES, sys.argv[3:]))

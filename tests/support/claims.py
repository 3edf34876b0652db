"""Commands that claim the same folders at the same moments, each a process of its own that imports nothing else."""

import multiprocessing
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier

from pipeline import run_dir
from pipeline.errors import InputError


@dataclass(frozen=True)
class Inner:
    width: int = 1
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    number: int = 0
    inner: Inner = field(default_factory=Inner)
    workers: int = field(default=1, metadata=run_dir.NOT_IDENTITY)


def race(root: str, folders: int, number: int, start: Barrier, answers: multiprocessing.Queue) -> None:
    """Claim folder after folder at the same moments as the other commands do."""
    for folder in range(folders):
        start.wait()
        try:
            run_dir.claim(f"{root}/{folder}", Config(number=number))
            answers.put((folder, number, ""))
        except InputError as error:
            answers.put((folder, number, str(error)))

"""Writers that stop after any operation, in any order of two: one attempt at a shard shows, whole, and never changes.

All places are tried: where a writer stops, where a second one does, and where the recovery does.
`test_pipeline_commit.py` kills real processes.
"""

import itertools
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.dataset import commit
from tests.support.stopping import Files, MemoryStore, Steps, Stopped, Turns, stopping

NAMES = ("00003.tar", "00003.parquet", "00003_stats.json")
DATA = "data"


def attempt(writer: str) -> Files:
    return {name: f"{name} by {writer}".encode() for name in NAMES}


def parts(writer: str) -> dict[str, list[bytes]]:
    return {name: [content[:3], content[3:]] for name, content in attempt(writer).items()}


class Watch:
    """Looks at a dataset after every change: once its commit mark is there, one attempt shows, and it stays."""

    def __init__(self) -> None:
        self.shown: Files = {}

    def __call__(self, files: Files) -> None:
        shown = {name: files[f"{DATA}/{name}"] for name in NAMES if f"{DATA}/{name}" in files}
        if NAMES[-1] in shown or self.shown:
            assert shown in [attempt(writer) for writer in "abc"], "a mixture, or a part"
            assert self.shown in ({}, shown), "what was committed has changed"
            self.shown = shown


@pytest.fixture(params=["disk", "bucket"])
def new_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], MemoryStore]:
    """Make an empty store and let `commit` use it."""

    def make() -> MemoryStore:
        store = MemoryStore(request.param == "bucket", Watch())
        monkeypatch.setattr(commit, "storage", store)
        return store

    return make


def publish(writer: str) -> None:
    commit.publish(DATA, "00003", parts(writer))


def stops(store: MemoryStore, steps: float, work: Callable[[], None]) -> bool:
    """Do the work up to so many operations; tell whether it has stopped before its end."""
    store.step = Steps(steps)
    try:
        work()
    except Stopped:
        return True
    return False


def num_steps(new_store: Callable[[], MemoryStore]) -> int:
    """Count the operations of a writer that is alone."""
    store = new_store()
    store.step = steps = Steps()
    publish("a")
    return steps.taken


def check_the_end(store: MemoryStore) -> None:
    """After a recovery the shard is there or no name of it is; a next writer leads to a whole one, and nothing else."""
    store.step = Steps()
    commit.recover(DATA)
    shown = {name for name in NAMES if f"{DATA}/{name}" in store.files}
    assert shown in (set(), set(NAMES))
    publish("c")
    commit.clean_up(DATA)
    assert set(store.files) == {f"{DATA}/{name}" for name in NAMES}
    assert store.watch.shown, "never committed"


def test_wherever_two_writers_and_a_recovery_stop(new_store: Callable[[], MemoryStore]) -> None:
    """One after the other: a stops, b finds what a left and stops, a recovery of both stops, and another one ends it."""
    cases = 0
    for first in itertools.count():
        for second in itertools.count():
            for third in itertools.count():
                store = new_store()
                first_stops = stops(store, first, lambda: publish("a"))
                second_stops = stops(store, second, lambda: publish("b"))
                third_stops = stops(store, third, lambda: commit.recover(DATA))
                check_the_end(store)
                cases += 1
                if not third_stops:
                    break
            if not second_stops:
                break
        if not first_stops:
            break
    assert cases > 300


def run_in_turns(store: MemoryStore, parts: list[tuple[int, float]], killed: tuple[bool, bool]) -> None:
    """Let two writers take turns by `parts` (writer, steps); then each ends or is killed."""
    writers = [Turns(lambda: publish("a")), Turns(lambda: publish("b"))]
    for number, steps in parts:
        store.step = writers[number].step
        writers[number].advance(steps)
    for writer, dies in zip(writers, killed, strict=True):
        store.step = writer.step
        writer.kill() if dies else writer.advance(math.inf)
    for writer in writers:
        if writer.error:
            raise writer.error


@pytest.mark.parametrize("killed", list(itertools.product((False, True), repeat=2)))
def test_whatever_the_order_of_two_writers(new_store: Callable[[], MemoryStore], killed: tuple[bool, bool]) -> None:
    """Writer a is interrupted by b, b by a, and either may be killed where it stands."""
    most = num_steps(new_store) + 2  # one that finds another's work takes a little longer
    further = range(0, most, 4) if killed[0] else (0,)  # one that is not killed goes on to its end
    for a, b, more in itertools.product(range(most), range(most), further):
        store = new_store()
        run_in_turns(store, [(0, a), (1, b), (0, more)], killed)
        check_the_end(store)


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_the_real_stores_do_what_the_one_in_memory_does(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A writer stops after every number of operations of `storage`; another finds a whole shard, or none."""
    root = str(tmp_path) if place == "disk" else f"{request.getfixturevalue('s3')}/steps"
    for stopped_after in itertools.count():
        data, ended = f"{root}/{stopped_after}", False
        with stopping(stopped_after), suppress(Stopped):
            commit.publish(data, "00003", parts("a"))
            ended = True
        commit.recover(data)
        shown = {name: storage.read(f"{data}/{name}") for name in NAMES if storage.exists(f"{data}/{name}")}
        assert shown in ({}, attempt("a"))
        commit.publish(data, "00003", parts("b"))
        commit.clean_up(data)
        assert {name: storage.read(f"{data}/{name}") for name in NAMES} == (shown or attempt("b"))
        assert storage.list_names(data) == sorted(NAMES)
        if ended:
            break
    assert stopped_after > 10

"""An output folder has one config: of several commands at once one writes it; fields added since count as their default."""

import dataclasses
import multiprocessing
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline import run_dir, storage
from pipeline.errors import InputError

FOLDERS, COMMANDS = 10, 4


@dataclass(frozen=True)
class Inner:
    width: int = 1
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    number: int = 0
    inner: Inner = field(default_factory=Inner)


def race(root: str, number: int, start: "multiprocessing.synchronize.Barrier", answers: multiprocessing.Queue) -> None:
    """Claim folder after folder at the same moments as the other commands do."""
    for folder in range(FOLDERS):
        start.wait()
        try:
            run_dir.claim(f"{root}/{folder}", Config(number=number))
            answers.put((folder, number, ""))
        except InputError as error:
            answers.put((folder, number, str(error)))


def check_race(root: str) -> None:
    """Two commands with one config, two with others: the config that is written goes on, each other one is refused."""
    spawn = multiprocessing.get_context("spawn")
    start, answers = spawn.Barrier(COMMANDS), spawn.Queue()
    numbers = [0, 0, 1, 2]
    running = [spawn.Process(target=race, args=(root, number, start, answers)) for number in numbers]
    for process in running:
        process.start()
    found = [answers.get(timeout=120) for _ in range(FOLDERS * COMMANDS)]
    for process in running:
        process.join()
    for folder in range(FOLDERS):
        stored = storage.read_json(f"{root}/{folder}/run.json")["number"]
        of_folder = [(number, message) for where, number, message in found if where == folder]
        assert Counter(number for number, message in of_folder if not message) == {stored: numbers.count(stored)}
        refused = [(number, message) for number, message in of_folder if message]
        assert len(refused) == COMMANDS - numbers.count(stored)
        assert all(f"number was {stored}, now {number}" in message for number, message in refused)
        assert storage.list_names(f"{root}/{folder}") == ["run.json"]


def test_of_commands_at_once_one_config_wins_on_disk(tmp_path: Path) -> None:
    check_race(str(tmp_path))


def test_of_commands_at_once_one_config_wins_on_s3(s3: str) -> None:
    check_race(f"{s3}/claims")


def test_a_disk_without_hard_links_takes_a_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(_source: str, _target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    out = str(tmp_path / "out")
    assert run_dir.claim(out, Config()) == run_dir.claim(out, Config()) == out
    assert os.listdir(out) == ["run.json"]
    assert not storage.create(f"{out}/run.json", b"other")


def test_a_field_that_run_json_lacks_counts_as_its_default(tmp_path: Path) -> None:
    """As when a later version of the code has more fields, also inside of others; other values than the default differ."""
    out = str(tmp_path)
    storage.publish_json(f"{out}/run.json", {"out": "/elsewhere", "inner": {"width": 3}})
    config = Config(inner=Inner(width=3))
    assert run_dir.claim(out, config) == out
    for changed, message in (
        (dataclasses.replace(config, number=7), "number was 0, now 7"),
        (Config(inner=Inner(width=3, names=("a",))), r"inner was .*'names': \[\].*now .*'names': \['a'\]"),
        (Config(inner=Inner(width=2)), "inner was"),
    ):
        with pytest.raises(InputError, match=message):
            run_dir.claim(out, changed)
    assert storage.read_json(f"{out}/run.json") == {"out": "/elsewhere", "inner": {"width": 3}}


def test_an_identity_that_is_gone_or_new_is_a_difference(tmp_path: Path) -> None:
    """A revision that run.json lacks counts as None."""
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    run_dir.claim(old, Config(), {"content": "a"})
    assert run_dir.claim(old, Config(), {"content": "a", "revision": None}) == old
    with pytest.raises(InputError, match="revision was None, now 'r'"):
        run_dir.claim(old, Config(), {"content": "a", "revision": "r"})
    run_dir.claim(new, Config(), {"revision": "r"})
    with pytest.raises(InputError, match="revision was 'r', now None"):
        run_dir.claim(new, Config(), {"revision": None})

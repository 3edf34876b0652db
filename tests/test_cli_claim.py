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
from pipeline.graph.caption_config import CaptionConfig
from pipeline.stages.assign import AssignConfig
from pipeline.stages.audit import AuditConfig
from pipeline.stages.export import ExportConfig
from pipeline.stages.index import IndexConfig
from pipeline.stages.recaption import RecaptionConfig
from pipeline.stages.score import ScoreConfig
from tests.support.claims import Config, Inner, race
from train.stages.captioner import TrainCaptionerConfig
from train.stages.convert import ConvertConfig
from train.stages.finetune import FinetuneConfig
from train.stages.pretrain.config import PretrainConfig

FOLDERS, COMMANDS = 10, 4


@dataclass(frozen=True)
class Search:
    recipe: Config = field(default_factory=Config)


def check_race(root: str) -> None:
    """Two commands with one config, two with others: the config that is written goes on, each other one is refused."""
    spawn = multiprocessing.get_context("spawn")
    start, answers = spawn.Barrier(COMMANDS), spawn.Queue()
    numbers = [0, 0, 1, 2]
    running = [spawn.Process(target=race, args=(root, FOLDERS, number, start, answers)) for number in numbers]
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


@dataclass(frozen=True)
class Renamed:
    count: int = field(default=0, metadata={"was": "number"})
    within: Inner = field(default_factory=Inner, metadata={"was": "inner"})


def test_a_renamed_field_has_the_value_of_its_old_name(tmp_path: Path) -> None:
    """In a claim and when a config is rebuilt; a nested config as well."""
    older = Config(number=3, inner=Inner(width=2))
    run_dir.claim(str(tmp_path), older)
    run_dir.claim(str(tmp_path), Renamed(count=3, within=Inner(width=2)))
    with pytest.raises(InputError, match="count was 3, now 4"):
        run_dir.claim(str(tmp_path), Renamed(count=4, within=Inner(width=2)))
    with pytest.raises(InputError, match="within was"):
        run_dir.claim(str(tmp_path), Renamed(count=3))
    assert run_dir.restore(Renamed, storage.read_json(str(tmp_path / "run.json"))) == Renamed(3, Inner(width=2))


def test_a_field_that_is_not_identity_may_change(tmp_path: Path) -> None:
    out = run_dir.claim(str(tmp_path), Config())
    assert run_dir.claim(str(tmp_path), Config(workers=8)) == out
    assert storage.read_json(f"{out}/run.json")["workers"] == 1


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


COMMON = {"scale", "loader", "watch", "speed", "columns"}
LLM = {"captioner_url", "captioner_key_variable", "concurrency", "max_requests", "tagger"}
FREE_FIELDS = {
    AssignConfig: {"source", "texts", "model", "batch_size"},
    CaptionConfig: LLM | {
        "max_bad_fraction", "actors", "source", "folds", "captioner", "decode", "speed", "firewall", "precision",
        "max_shard_mb", "columns",
    },
    RecaptionConfig: LLM | {"data", "captioner", "actors", "speed", "max_bad_fraction"},
    ScoreConfig: {"data", "model", "batch_size", "actors"},
    AuditConfig: {"data", "labels", "in_process"},
    ExportConfig: {"data", "in_process"},
    IndexConfig: {"max_bad_fraction"},
    TrainCaptionerConfig: COMMON | {"source", "labelled", "max_bad_fraction", "init_audio"},
    PretrainConfig: COMMON | {"data", "mixture", "init", "init_audio", "validation"},
    FinetuneConfig: COMMON | {"data", "init_audio"},
    ConvertConfig: {"weights", "class_labels", "cnn"},
}  # fmt: skip


@pytest.mark.parametrize("config", FREE_FIELDS, ids=lambda config: config.__name__)
def test_these_fields_may_change_between_runs(config: type) -> None:
    """A field that comes to this list, or leaves it, changes which commands go on in a folder."""
    free = {each.name for each in dataclasses.fields(config) if not each.metadata.get("identity", True)}
    assert free == FREE_FIELDS[config]


def test_what_may_change_inside_a_nested_config_may_change(tmp_path: Path) -> None:
    out = str(tmp_path / "search")
    run_dir.claim(out, Search(recipe=Config(workers=1)))
    run_dir.claim(out, Search(recipe=Config(workers=8)))
    with pytest.raises(InputError, match="recipe was"):
        run_dir.claim(out, Search(recipe=Config(number=1)))

"""A retry restores the whole config of its job: a field of the config that is new is restored too."""

import dataclasses
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import run_dir, storage
from pipeline.configs import CAPTION
from pipeline.errors import InputError
from pipeline.graph.caption_config import CaptionConfig, CaptionSpeedConfig
from pipeline.graph.engine import ActorConfig
from pipeline.graph.run_config import RunConfig
from pipeline.stages import retry
from pipeline.stages.retry import RetryConfig

OF_THE_RUN = {"actors", "max_bad_fraction", "precision", "source", "captioner"}  # what a retry's own flags decide
OF_THE_PLAN = {"folds", "clips_per_shard", "max_shard_mb"}


def other(hint: Any, value: Any) -> Any:
    """Return another value of a type than a given one."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return changed(value)
    if typing.get_origin(hint) is tuple:
        (item, _) = typing.get_args(hint)
        return (*value, *(choice for choice in typing.get_args(item) if choice not in value)) or ("a", "b")
    if typing.get_origin(hint) is typing.Literal:
        return next(choice for choice in typing.get_args(hint) if choice != value)
    if typing.get_args(hint):  # such as float | None
        return other(typing.get_args(hint)[0], value)
    return {
        bool: lambda: not value,
        str: lambda: f"{value}x",
        int: lambda: value + 1,
        float: lambda: (value or 0) + 0.25,
    }[hint]()


def changed(config: Any) -> Any:
    """Return a config in which no field of any depth is as it was."""
    hints = typing.get_type_hints(type(config))
    return type(config)(**{name: other(hint, getattr(config, name)) for name, hint in hints.items()})


def leaves(config: Any) -> dict[str, Any]:
    """Return the fields of any depth by their names."""
    found = {}
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        inside = leaves(value) if dataclasses.is_dataclass(value) else {"": value}
        found |= {f"{each.name}.{name}".rstrip("."): leaf for name, leaf in inside.items()}
    return found


ODD: CaptionConfig = changed(CaptionConfig())


def test_every_field_is_other_than_by_default() -> None:
    """Which the tests below rely on."""
    assert [name for name, leaf in leaves(CaptionConfig()).items() if leaves(ODD)[name] == leaf] == []


@pytest.mark.parametrize("config", [ODD, *(config for _, config in CAPTION.values())])
def test_json_gives_back_every_field(config: CaptionConfig) -> None:
    held = storage.plain(dataclasses.asdict(config)) | {"captioner_revision": "f00"}
    assert run_dir.restore(CaptionConfig, held) == config


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(CaptionConfig)])
def test_a_field_that_json_lacks_has_its_default(name: str) -> None:
    held = storage.plain(dataclasses.asdict(ODD))
    del held[name]
    restored = run_dir.restore(CaptionConfig, held)
    assert restored == dataclasses.replace(ODD, **{name: getattr(CaptionConfig(), name)})


def test_a_retry_changes_nothing_but_what_its_flags_say() -> None:
    run_config = RunConfig(config=ODD, captioner_revision="f00", arithmetic="bfloat16")
    made_from = SimpleNamespace(source="/moved", folds=["9"], max_shard_mb=3.0)
    plan = SimpleNamespace(clips_per_shard=7, made_from=made_from)
    flags = RetryConfig(fingerprints=("t.parquet",), actors=ActorConfig(max=3), max_bad_fraction=0.5)
    restored = retry._restore(flags, run_config, plan)
    same = {each.name for each in dataclasses.fields(CaptionConfig)} - OF_THE_RUN - OF_THE_PLAN - {"firewall"}
    assert {name: getattr(restored, name) for name in same} == {name: getattr(ODD, name) for name in same}
    assert restored.decode == "actor", "which was forgotten once"
    assert restored.firewall == dataclasses.replace(ODD.firewall, fingerprints=("t.parquet",))
    assert (restored.actors, restored.max_bad_fraction) == (flags.actors, flags.max_bad_fraction)
    assert (restored.precision, restored.source, restored.folds) == ("bfloat16", "/moved", ("9",))
    assert (restored.clips_per_shard, restored.max_shard_mb) == (7, 3.0)
    assert restored.captioner == storage.resolve(ODD.captioner)


@pytest.mark.parametrize(
    ("wanted", "gpus", "clips", "expected"),
    [
        ("auto", 1.0, 2 * 5_500 * 32, "on"),
        ("auto", 1.0, 2 * 5_500 * 32 - 1, "off"),
        ("auto", 0.0, 10**6, "off"),
        ("on", 0.0, 1, "on"),
        ("off", 1.0, 10**6, "off"),
    ],
)
def test_the_encoder_is_compiled_where_it_pays(wanted: str, gpus: float, clips: int, expected: str) -> None:
    config = CaptionConfig(speed=CaptionSpeedConfig(compile=wanted), actors=ActorConfig(max=2, gpus=gpus))  # type: ignore[arg-type]
    assert config.sized(clips).speed.compile == expected


def test_a_later_commit_on_the_hub_names_the_commit_to_go_on_with(tmp_path: Path) -> None:
    begun, now = ("hf:team/model@" + letter * 40 for letter in "ab")
    config = CaptionConfig(captioner=begun)
    run_dir.claim(str(tmp_path / "out"), config, {"captioner_revision": "a" * 40})
    later, revision = dataclasses.replace(config, captioner=now), {"captioner_revision": "b" * 40}
    with pytest.raises(InputError, match=f"began with, give {begun}$"):
        run_dir.claim(str(tmp_path / "out"), later, revision)
    run_dir.claim(str(tmp_path / "out"), config, {"captioner_revision": "a" * 40})
    with pytest.raises(InputError, match=r"guidance was .* choose another folder"):
        run_dir.claim(str(tmp_path / "out"), dataclasses.replace(later, guidance=("none",)), revision)

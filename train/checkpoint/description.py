"""Checkpoints by name: where they lie and what they are, found out before anything heavy starts."""

import dataclasses
from typing import Any, Literal, overload

from pipeline import storage
from pipeline.errors import InputError
from pipeline.storage import hf
from train.checkpoint.info import (
    CONFIG_FILE,
    KINDS,
    TRANSFORMERS,
    CheckpointInfo,
    Kind,
    Lineage,
    NetworkConfig,
)
from train.models.captioner.config import CaptionerConfig
from train.models.configs import HfTowersConfig, TowersConfig
from train.models.encoders.configs import AudioConfig

WRITTEN_BY: dict[Kind, str] = {
    "captioner": "train captioner",
    "clap": "train pretrain",
    "tagger": "train convert",
    "classifier": "train finetune",
}
NOT_SHAPE = ("num_classes", "dropout", "block_dropout", "clip_dropout", "jitter")  # fields that no weight depends on


def resolve(uri: str, flag: str = "--model") -> str:
    """Return the absolute path or the URI of a checkpoint, or the `hf:` name that fixes a model of transformers.

    Raises:
        InputError: naming the flag, when there is no model of an `hf:` name.
    """
    return hf.find(uri, flag).name if hf.is_name(uri) else storage.resolve(uri)


def title(uri: str) -> str:
    """Return the last part of the name of a checkpoint."""
    return hf.title(uri) if hf.is_name(uri) else storage.resolve(uri).rpartition("/")[2]


def lineage(uri: str) -> Lineage:
    """Return the lineage of a checkpoint, {} where it has none. Raises OSError or ValueError when it cannot be read."""
    if hf.is_name(uri):
        return {"stage": TRANSFORMERS, "model": uri}
    content = storage.read_json(storage.join(storage.resolve(uri), CONFIG_FILE))
    return content.get("lineage") or {} if isinstance(content, dict) else {}


def exists(uri: str) -> bool:
    """Return whether a complete checkpoint is there."""
    return storage.exists(storage.join(uri, CONFIG_FILE))


@overload
def describe(uri: str, flag: str, kind: Literal["captioner"], /) -> CheckpointInfo[CaptionerConfig]: ...
@overload
def describe(uri: str, flag: str, kind: Literal["clap"], /) -> CheckpointInfo[TowersConfig]: ...
@overload
def describe(uri: str, flag: str, /, *kinds: Kind) -> CheckpointInfo[NetworkConfig]: ...
def describe(uri: str, flag: str, /, *kinds: Kind) -> CheckpointInfo[Any]:
    """Read config.json and check that it is a checkpoint of one of these kinds, before anything heavy starts.

    Args:
        uri: folder or URI of a checkpoint, or the `hf:` name of two towers of transformers, which is fetched and checked.
        flag: that holds it.
        kinds: those that will do.

    Raises:
        InputError: naming the flag when there is no checkpoint, or one of another kind.
    """
    if hf.is_name(uri):
        if "clap" not in kinds:
            raise InputError(flag, uri, f"names two towers of transformers, not a {' or '.join(kinds)}")
        from train.checkpoint import hf as hf_towers  # here: it imports torch

        return hf_towers.describe(uri, flag)
    remedy = f"give a directory that `python -m {'` or `python -m '.join(WRITTEN_BY[kind] for kind in kinds)}` wrote"
    try:
        found = bool(uri) and exists(storage.resolve(uri))
    except OSError as error:
        raise InputError(flag, uri, f"cannot be read: {error}") from None
    if not found:
        raise InputError(flag, uri, f"no checkpoint there; {remedy}" if uri else remedy)
    try:
        content = dict(storage.read_json(storage.join(storage.resolve(uri), CONFIG_FILE)))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(flag, uri, f"its {CONFIG_FILE} cannot be read ({error}); {remedy}") from None
    if "kind" not in content and "model_type" in content:
        raise InputError(flag, uri, f"is a model of transformers; write {hf.PREFIX}{uri}")
    if content.get("kind") not in kinds:
        held = content.get("kind", "something else")
        raise InputError(flag, uri, f"holds a {held}, not a {' or '.join(kinds)}; {remedy}")
    if lacking := [key for key in ("network", "revision", "lineage") if key not in content]:
        raise InputError(flag, uri, f"its {CONFIG_FILE} lacks {', '.join(lacking)}; {remedy}")
    try:
        return CheckpointInfo.from_json(content)
    except (KeyError, TypeError) as error:
        raise InputError(flag, uri, f"its {CONFIG_FILE} describes no network of ours ({error}); {remedy}") from None


def describe_audio(uri: str, flag: str, wanted: AudioConfig) -> str:
    """Check that the audio encoder of a checkpoint of any kind has the wanted shape; return the checkpoint's revision.

    Raises:
        InputError: naming the flag, and what differs.
    """
    checkpoint_info = describe(uri, flag, *KINDS)
    if isinstance(checkpoint_info.network, HfTowersConfig):
        what = "is two towers of transformers, whose audio tower fits no network of ours"
        raise InputError(flag, uri, f"{what}; `train pretrain --init` trains both towers")
    held, needed = (storage.plain(dataclasses.asdict(each)) for each in (checkpoint_info.network.audio, wanted))
    differing = [
        f"{name} is {held.get(name)!r}, wanted {value!r}"
        for name, value in needed.items()
        if name not in NOT_SHAPE and held.get(name) != value
    ]
    if differing:
        raise InputError(flag, uri, f"its audio encoder differs ({'; '.join(differing)}); use the config that matches")
    return checkpoint_info.revision

"""The config.json of a checkpoint: kind, network, revision, lineage, versions. It is published last: it means complete."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, overload

from pipeline import storage
from pipeline.errors import InputError
from train.models.captioner.config import CaptionerConfig
from train.models.configs import ClapConfig, ClassifierConfig, TaggerConfig, TextConfig
from train.models.encoders import configs
from train.models.encoders.configs import AudioConfig

CONFIG_FILE, TAGS_FILE = "config.json", "tags.json"
RELEASED = "train convert"  # stage in the lineage of released weights: the clips that they were trained on are unknown
Kind = Literal["captioner", "clap", "tagger", "classifier"]
NetworkConfig = CaptionerConfig | ClapConfig | TaggerConfig | ClassifierConfig
ConfigT = TypeVar("ConfigT", bound=NetworkConfig, covariant=True)
Lineage = dict[str, Any]  # JSON: `stage`, and what that stage records of its data, its start and its last epoch
KINDS: tuple[Kind, ...] = ("captioner", "clap", "tagger", "classifier")
CONFIGS: dict[Kind, type[NetworkConfig]] = {
    "captioner": CaptionerConfig,
    "clap": ClapConfig,
    "tagger": TaggerConfig,
    "classifier": ClassifierConfig,
}
WRITTEN_BY: dict[Kind, str] = {
    "captioner": "train captioner",
    "clap": "train pretrain",
    "tagger": "train convert",
    "classifier": "train finetune",
}
NOT_SHAPE = ("num_classes", "dropout", "block_dropout", "clip_dropout", "jitter")  # fields that no weight depends on


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo(Generic[ConfigT]):
    """What config.json states. The order of the fields is their order in the file."""

    kind: Kind
    """Which network the weights belong to."""
    network: ConfigT
    """Shape of the network; a field that an older file lacks has its default."""
    revision: str
    """Hash of the weights, hexadecimal: it names this model wherever its work is recorded."""
    lineage: Lineage
    """What the model was made from: `stage`, and what that stage records."""
    versions: Mapping[str, str]
    """Versions of the libraries that wrote the weights, by name."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of config.json."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "CheckpointInfo[NetworkConfig]":
        """Return what config.json holds. Raises KeyError or TypeError when it lacks a field or has an unknown one."""
        network = {**content["network"], "audio": configs.restore(content["network"]["audio"])}
        if "text" in network:
            network["text"] = TextConfig(**network["text"])
        return CheckpointInfo(
            kind=content["kind"],
            network=CONFIGS[content["kind"]](**network),
            revision=content["revision"],
            lineage=content["lineage"],
            versions=content.get("versions", {}),
        )


def exists(uri: str) -> bool:
    """Return whether a complete checkpoint is there."""
    return storage.exists(storage.join(uri, CONFIG_FILE))


@overload
def describe(uri: str, flag: str, kind: Literal["captioner"], /) -> CheckpointInfo[CaptionerConfig]: ...
@overload
def describe(uri: str, flag: str, kind: Literal["clap"], /) -> CheckpointInfo[ClapConfig]: ...
@overload
def describe(uri: str, flag: str, /, *kinds: Kind) -> CheckpointInfo[NetworkConfig]: ...
def describe(uri: str, flag: str, /, *kinds: Kind) -> CheckpointInfo[Any]:
    """Read config.json and check that it is a checkpoint of one of these kinds, before anything heavy starts.

    Raises:
        InputError: naming the flag when there is no checkpoint, or one of another kind.
    """
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
    held, needed = (storage.plain(dataclasses.asdict(each)) for each in (checkpoint_info.network.audio, wanted))
    differing = [
        f"{name} is {held.get(name)!r}, wanted {value!r}"
        for name, value in needed.items()
        if name not in NOT_SHAPE and held.get(name) != value
    ]
    if differing:
        raise InputError(flag, uri, f"its audio encoder differs ({'; '.join(differing)}); use the config that matches")
    return checkpoint_info.revision

"""The config.json of a checkpoint: kind, network, revision, lineage, versions. It is published last: it means complete."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from train.models.captioner.config import CaptionerConfig
from train.models.configs import (
    ClapConfig,
    ClassifierConfig,
    HfTowersConfig,
    TaggerConfig,
    TextConfig,
)
from train.models.encoders import configs

CONFIG_FILE, TAGS_FILE = "config.json", "tags.json"
RELEASED, TRANSFORMERS = "train convert", "transformers"
UNKNOWN_CLIPS = (
    RELEASED,
    TRANSFORMERS,
)  # stages in the lineage of released weights, which others trained on other clips
Kind = Literal["captioner", "clap", "tagger", "classifier"]
NetworkConfig = CaptionerConfig | ClapConfig | HfTowersConfig | TaggerConfig | ClassifierConfig
ConfigT = TypeVar("ConfigT", bound=NetworkConfig, covariant=True)
Lineage = dict[str, Any]  # JSON: `stage`, and what that stage records of its data, its start and its last epoch
KINDS: tuple[Kind, ...] = ("captioner", "clap", "tagger", "classifier")
CONFIGS: dict[Kind, type[NetworkConfig]] = {
    "captioner": CaptionerConfig,
    "clap": ClapConfig,
    "tagger": TaggerConfig,
    "classifier": ClassifierConfig,
}


LATER = (("frames", False),)  # fields of a network and their defaults


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
        """Return the content of config.json. A later field is left out at its default, so that earlier versions read it."""
        content = dataclasses.asdict(self)
        content["network"] = {name: value for name, value in content["network"].items() if (name, value) not in LATER}
        return content

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "CheckpointInfo[NetworkConfig]":
        """Return what config.json holds. Raises KeyError or TypeError when it lacks a field or has an unknown one."""
        return CheckpointInfo(
            kind=content["kind"],
            network=_network(content["kind"], content["network"]),
            revision=content["revision"],
            lineage=content["lineage"],
            versions=content.get("versions", {}),
        )


def _network(kind: Kind, fields: Mapping[str, Any]) -> NetworkConfig:
    if "transformers" in fields:
        return HfTowersConfig(**fields)
    network = {**fields, "audio": configs.restore(fields["audio"])}
    if "text" in network:
        network["text"] = TextConfig(**network["text"])
    return CONFIGS[kind](**network)

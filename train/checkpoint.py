"""A checkpoint is a directory that loads without any flag: config, weights, words; nothing in it is unpickled.

config.json          kind, network, lineage, versions; published last: its presence means complete
model.safetensors    weights and buffers
vocabulary.json      captioner: words in id order        tags.json   captioner: tags in index order
tokenizer.json       clap: the tokenizers library's own format
clips.json           keys of the clips it was trained on
training_state/      weights, optimizer moments and state.json of a run that is not finished
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from tokenizers import Tokenizer

from pipeline import storage
from pipeline.cli import InputError
from train.models.captioner import CaptionerConfig, TagGuidedCaptioner
from train.models.clap import Clap, ClapConfig
from train.models.cnn14 import Cnn14Config
from train.models.text import TextConfig
from train.models.words import Vocabulary

CONFIG_FILE, WEIGHTS_FILE, CLIPS_FILE = "config.json", "model.safetensors", "clips.json"
NESTED = {"audio": Cnn14Config, "text": TextConfig}
Network = TypeVar("Network", TagGuidedCaptioner, Clap)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded checkpoint."""

    model: Any  # the network, in eval mode, on the CPU
    config: dict[str, Any]  # config.json
    revision: str  # sha256 of the weights file: names this model wherever its work is recorded


def save(uri: str, model: TagGuidedCaptioner | Clap, lineage: dict[str, Any], clips: Sequence[str]) -> None:
    """Publish a checkpoint directory; `clips` are the keys it was trained on."""
    files: dict[str, Any] = {CLIPS_FILE: list(clips)}
    if isinstance(model, TagGuidedCaptioner):
        kind = "captioner"
        files |= {"vocabulary.json": model.vocabulary.words, "tags.json": model.tags}
    else:
        kind = "clap"
        files |= {"tokenizer.json": json.loads(model.tokenizer.to_str())}
    weights = save_tensors({name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()})
    storage.publish(storage.join(uri, WEIGHTS_FILE), weights)
    for name, content in files.items():
        storage.publish_json(storage.join(uri, name), content)
    config = {
        "kind": kind,
        "network": dataclasses.asdict(model.config),
        "revision": hashlib.sha256(weights).hexdigest(),
        "lineage": lineage,
        "versions": {"torch": str(torch.__version__)},
    }
    storage.publish_json(storage.join(uri, CONFIG_FILE), config)


def exists(uri: str) -> bool:
    """Tell whether a complete checkpoint is there."""
    return storage.exists(storage.join(uri, CONFIG_FILE))


def describe(uri: str, kind: type[Network], flag: str) -> dict[str, Any]:
    """Read config.json and check that it is a checkpoint of this kind, before anything heavy starts.

    Raises:
        InputError: naming the flag when there is no checkpoint, or one of another kind.
    """
    wanted = "captioner" if kind is TagGuidedCaptioner else "clap"
    remedy = f"give a directory that `python -m train {'captioner' if wanted == 'captioner' else 'pretrain'}` wrote"
    try:
        found = bool(uri) and exists(storage.resolve(uri))
    except OSError as error:
        raise InputError(flag, uri, f"cannot be read: {error}") from None
    if not found:
        raise InputError(flag, uri, f"no checkpoint there; {remedy}" if uri else remedy)
    config: dict[str, Any] = storage.read_json(storage.join(storage.resolve(uri), CONFIG_FILE))
    if config.get("kind") != wanted:
        raise InputError(flag, uri, f"holds a {config.get('kind', 'something else')}, not a {wanted}; {remedy}")
    return config


def trained_on(uri: str) -> set[str]:
    """Return the keys of the clips a checkpoint was trained on. Raises OSError when it is not to be reached from here."""
    return set(storage.read_json(storage.join(storage.resolve(uri), CLIPS_FILE)))


def load(uri: str, kind: type[Network]) -> Checkpoint:
    """Load a network of this kind; strict: missing or extra weights raise."""
    folder = storage.resolve(uri)
    config = storage.read_json(storage.join(folder, CONFIG_FILE))
    weights = storage.read(storage.join(folder, WEIGHTS_FILE))
    network = _nested(config["network"])
    model: TagGuidedCaptioner | Clap
    if kind is TagGuidedCaptioner:
        words, tags = (storage.read_json(storage.join(folder, name)) for name in ("vocabulary.json", "tags.json"))
        model = TagGuidedCaptioner(CaptionerConfig(**network), Vocabulary(words), tags)
    else:
        tokenizer = Tokenizer.from_str(storage.read(storage.join(folder, "tokenizer.json")).decode())
        model = Clap(ClapConfig(**network), tokenizer)
    model.load_state_dict(load_tensors(weights))
    return Checkpoint(model=model.eval(), config=config, revision=config["revision"])


def _nested(network: dict[str, Any]) -> dict[str, Any]:
    """Turn the JSON of nested configs back into dataclasses."""
    return {
        name: NESTED[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})
        if name in NESTED
        else value
        for name, value in network.items()
    }

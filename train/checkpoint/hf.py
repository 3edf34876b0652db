"""Checkpoints that are two towers of transformers: described and loaded by an `hf:` name, and kept in folders of ours.

A checkpoint of ours that was trained from one holds it in its folder transformers/, as transformers writes and loads it.
"""

import hashlib
import tempfile
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from pipeline import storage
from pipeline.errors import InputError
from pipeline.storage import hf
from train.checkpoint.info import TRANSFORMERS, CheckpointInfo
from train.models.configs import HfTowersConfig
from train.models.hf_towers import loading
from train.models.hf_towers.loading import ARCHITECTURES
from train.models.hf_towers.towers import HfTowers

FOLDER = "transformers"  # in a checkpoint of ours
FRAME_LEVEL = "PeAudioFrameLevelModel"
TEXT_FILES, WEIGHTS, OLDER_WEIGHTS = ("*.json", "*.txt"), "*.safetensors", "*.bin"
PIECE = 2**24  # bytes hashed at a time


def describe(name: str, flag: str) -> CheckpointInfo[HfTowersConfig]:
    """Find a model by its name, and check that it can be loaded.

    Raises:
        InputError: naming the flag, when there is none, it is no model of audio and text, or its files are incomplete.
    """
    found, folder = _fetch(name, flag)
    try:
        return _info(found, _config(folder, _stamps(folder)), folder)
    except ValueError as error:
        raise InputError(flag, name, f"cannot be loaded: {error}") from None


def load(name: str) -> tuple[HfTowers, CheckpointInfo[HfTowersConfig]]:
    """Load a model by its name, and describe it. Raises InputError as `describe`."""
    found, folder = _fetch(name, "--model")
    try:
        model = loading.load(folder)
    except ValueError as error:
        raise InputError("--model", name, f"cannot be loaded: {error}") from None
    return model, _info(found, model.config, folder)


def publish(uri: str, model: HfTowers) -> str:
    """Write a model into a checkpoint of ours; return its revision."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        for file in sorted(Path(folder).iterdir()):
            storage.publish(storage.join(uri, FOLDER, file.name), file.read_bytes())
        return _hash(_files(Path(folder)))


def read(uri: str) -> HfTowers:
    """Load the model in a checkpoint of ours. Raises OSError or ValueError when it is incomplete."""
    source = storage.join(uri, FOLDER)
    if "://" not in uri:
        return loading.load(Path(source))
    with tempfile.TemporaryDirectory() as folder:
        for name in storage.list_names(source):
            Path(folder, name).write_bytes(storage.read(storage.join(source, name)))
        return loading.load(Path(folder))


def _fetch(name: str, flag: str) -> tuple[hf.HfModel, Path]:
    found = hf.find(name, flag)
    if found.model_type not in ARCHITECTURES:
        kind = f"is a {found.model_type}" if found.model_type else "is no model of transformers"
        raise InputError(
            flag, name, f"{kind}; give a {' or '.join(ARCHITECTURES)}, such as hf:laion/clap-htsat-unfused"
        )
    if FRAME_LEVEL in found.classes:
        what = f"is a {FRAME_LEVEL}, which was trained to embed frames of 40 ms and gives no embedding of a clip"
        raise InputError(flag, name, f"{what}; give one for clips, such as hf:facebook/pe-av-small")
    folder = hf.fetch(found, (*TEXT_FILES, WEIGHTS), flag)
    if not list(folder.glob(WEIGHTS)):
        folder = hf.fetch(found, (OLDER_WEIGHTS,), flag)
    return found, folder


def _files(folder: Path) -> list[Path]:
    """Return the files that a model is loaded from, by name."""
    weights = WEIGHTS if list(folder.glob(WEIGHTS)) else OLDER_WEIGHTS
    return sorted(file for pattern in (*TEXT_FILES, weights) for file in folder.glob(pattern))


def _info(found: hf.HfModel, config: HfTowersConfig, folder: Path) -> CheckpointInfo[HfTowersConfig]:
    return CheckpointInfo(
        kind="clap",
        network=config,
        revision=_revision(folder, _stamps(folder)),
        lineage={"stage": TRANSFORMERS, "model": found.name},
        versions={"transformers": version("transformers")},
    )


Stamps = tuple[tuple[int, int], ...]


def _stamps(folder: Path) -> Stamps:
    return tuple(storage.stamps([str(file) for file in _files(folder)]))


@lru_cache(maxsize=4)  # stages ask several times, and a model has gigabytes
def _config(folder: Path, _: Stamps) -> HfTowersConfig:
    """Return the config of a model whose files have these stamps. Raises ValueError when it cannot be loaded."""
    return loading.load(folder).config


@lru_cache(maxsize=4)
def _revision(folder: Path, _: Stamps) -> str:
    return _hash(_files(folder))


def _hash(files: list[Path]) -> str:
    """Return the sha256 of the names and the bytes of files."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    return digest.hexdigest()

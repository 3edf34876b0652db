"""Released weights -> a checkpoint of ours: `python -m train convert <layout> --weights <file>`."""

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import Literal

from pipeline import run_dir, storage
from pipeline.errors import InputError
from pipeline.sources import audioset
from train import checkpoint
from train.checkpoint import Network, released
from train.models.configs import ClapConfig, TextConfig
from train.models.encoders.configs import AudioConfig, Cnn14Config, MobileNetConfig
from train.models.tagger import Tagger

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Turn released weights into a checkpoint that every stage takes, such as `--init-audio`."""

    layout: Literal["panns", "efficientat", "ast", "blat", "audiocaption"] = "panns"
    """Whose layout the weights have; the named config sets it."""
    weights: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """File of released weights; for ast the model's name on the Hugging Face hub or a local folder."""
    class_labels: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """AudioSet's class_labels_indices.csv, which names the tags of a tagger or a tag-guided captioner."""
    cnn: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """For audiocaption: checkpoint of the converted CNN14, whose frozen weights the released file leaves out."""
    out: str = ""
    """Folder or URI of the checkpoint."""
    audio: AudioConfig = field(default_factory=Cnn14Config)
    """Shape of the audio encoder, where the file does not give it."""
    text: TextConfig = field(default_factory=TextConfig)
    """For blat: the text encoder it was trained with, by name or folder; its tokenizer is copied."""


def run(config: ConvertConfig) -> None:
    """Convert and publish; a finished conversion is left alone."""
    if not config.weights:
        raise InputError("--weights", "", "give the file of released weights, or for ast a model's name")
    file, sha256 = (None, "") if config.layout == "ast" else released.read(config.weights, "--weights")
    network = _load(config, file)
    identity = {"weights_sha256": sha256}
    out = run_dir.claim(config.out, config, identity)
    if checkpoint.exists(out):
        log.info("convert: %s is complete already", out)
        return
    name = config.weights.rstrip("/").rpartition("/")[2]
    lineage = {"stage": checkpoint.RELEASED, "layout": config.layout, "weights": name, **identity}
    checkpoint.save(out, network, lineage, [])
    log.info("convert: wrote %s: %d parameters", out, sum(p.numel() for p in network.parameters()))


def _load(config: ConvertConfig, file: object) -> Network:
    flag = ("--weights", config.weights)
    if config.layout == "ast":
        return released.ast(config.weights, "--weights")
    if config.layout == "blat":
        return released.blat(file, ClapConfig(audio=config.audio, text=config.text, padding="none"), *flag)
    if config.layout == "audiocaption":
        return released.audiocaption(file, _cnn(config.cnn), _tags(config.class_labels), config.class_labels, *flag)
    if isinstance(config.audio, MobileNetConfig):
        tags = _tags(config.class_labels)
        if not tags:
            raise InputError("--class-labels", "", "give AudioSet's class_labels_indices.csv: it names the tags")
        return released.efficientat(file, dataclasses.replace(config.audio, num_classes=len(tags)), tags, *flag)
    return released.panns(file, config.audio, *flag)


def _cnn(uri: str) -> Tagger | None:
    if not uri:
        return None
    checkpoint.describe(uri, "--cnn", "tagger")
    model: Tagger = checkpoint.load(uri).model
    return model


def _tags(uri: str) -> list[str]:
    """Return the display names in index order, or none where no table is given."""
    if not uri:
        return []
    try:
        names = list(audioset.read_labels(storage.read_text(storage.resolve(uri))).values())
    except (OSError, KeyError) as error:
        raise InputError("--class-labels", uri, f"is no class_labels_indices.csv: {error!r}") from None
    if not names:
        raise InputError("--class-labels", uri, "names no tags")
    return names

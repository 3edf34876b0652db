"""A checkpoint is a directory that loads without any flag: config, weights, words; nothing in it is unpickled.

config.json          kind, network, lineage, versions; published last: its presence means complete
model.safetensors    weights and buffers
vocabulary.json      captioner: words or word pieces in id order (train/checkpoint/tokens.py)
tags.json            captioner and tagger: tags in index order; classifier: its labels
tokenizer.json       clap: format of the tokenizers library; it holds the length that captions are cut and padded to
text.json            clap: architecture of the text tower, as transformers describes it
transformers/        clap of transformers, in place of the three above and the weights: train/checkpoint/hf.py
clips.json           keys of the clips it was trained on
validation.json      keys of the clips it was validated and selected on, where there were any
history.json         loss of every step, record of every epoch
best/                captioner: the checkpoint of the epoch that validated best
training_state/      of a run that is not finished (train/trainer/state.py)
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from pipeline import storage
from pipeline.storage import hf as hf_names
from train.checkpoint import description, hf
from train.checkpoint.info import CONFIG_FILE, KINDS, TAGS_FILE, CheckpointInfo, Kind, Lineage, NetworkConfig
from train.checkpoint.tokens import publish_tokenizer, publish_vocabulary, read_tokenizer, read_vocabulary
from train.models import text
from train.models.captioner.config import CaptionerConfig
from train.models.captioner.model import TagGuidedCaptioner
from train.models.clap import Clap, TwoTowers
from train.models.classifier import Classifier
from train.models.configs import ClapConfig, ClassifierConfig, HfTowersConfig, TaggerConfig
from train.models.encoders.configs import EncoderConfig
from train.models.encoders.encoder import AudioEncoder
from train.models.hf_towers.towers import HfTowers
from train.models.tagger import Tagger

WEIGHTS_FILE = "model.safetensors"
CLIPS_FILE, VALIDATION_FILE = "clips.json", "validation.json"
TEXT_FILE = "text.json"
Network = TagGuidedCaptioner | TwoTowers | Tagger | Classifier
KIND_OF: dict[type, Kind] = {
    TagGuidedCaptioner: "captioner",
    TwoTowers: "clap",
    Tagger: "tagger",
    Classifier: "classifier",
}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded checkpoint."""

    model: Any  # the network, in eval mode, on the CPU
    info: CheckpointInfo[NetworkConfig]  # config.json

    @property
    def revision(self) -> str:
        """Hash that names this model wherever its work is recorded."""
        return self.info.revision


def save(uri: str, model: Network, lineage: Lineage, clips: Sequence[str], validated: Sequence[str] = ()) -> None:
    """Publish a checkpoint directory; `clips` are the keys it was trained on, `validated` those it was selected on."""
    files: dict[str, object] = {CLIPS_FILE: list(clips)}
    if validated:
        files[VALIDATION_FILE] = list(validated)
    if isinstance(model, TagGuidedCaptioner):
        publish_vocabulary(uri, model.vocabulary)
        files |= {TAGS_FILE: model.tags}
    elif isinstance(model, Clap):
        publish_tokenizer(uri, model.text_encoder.tokenizer)
        files |= {TEXT_FILE: json.loads(model.text_encoder.architecture.to_json_string())}
    elif not isinstance(model, HfTowers):
        files |= {TAGS_FILE: model.labels if isinstance(model, Classifier) else model.tags}
    revision = hf.publish(uri, model) if isinstance(model, HfTowers) else _publish_weights(uri, model)
    for name, content in files.items():
        storage.publish_json(storage.join(uri, name), content)
    info: CheckpointInfo[NetworkConfig] = CheckpointInfo(
        kind=next(kind for network, kind in KIND_OF.items() if isinstance(model, network)),
        network=model.config,
        revision=revision,
        lineage=lineage,
        versions={name: version(name) for name in ("torch", "transformers")},
    )
    storage.publish_json(storage.join(uri, CONFIG_FILE), info.to_json())


def trained_on(uri: str) -> set[str]:
    """Return the keys of the clips a checkpoint was trained on; none of released weights, where they are unknown.

    Raises:
        OSError: when it is not to be reached from here.
    """
    if hf_names.is_name(uri):
        return set()
    return set(storage.read_json(storage.join(storage.resolve(uri), CLIPS_FILE)))


def selected_on(uri: str) -> set[str]:
    """Return the keys of the clips a checkpoint was selected on, none where there are none; raises as `trained_on`."""
    keys = storage.join(storage.resolve(uri), VALIDATION_FILE)
    return set(storage.read_json(keys)) if storage.exists(keys) else set()


def load(uri: str) -> Checkpoint:
    """Load whatever network a directory or an `hf:` name holds; strict: missing or extra weights raise."""
    if hf_names.is_name(uri):
        found, described = hf.load(uri)
        return Checkpoint(model=found, info=described)
    folder = storage.resolve(uri)
    info = CheckpointInfo.from_json(storage.read_json(storage.join(folder, CONFIG_FILE)))
    if isinstance(info.network, HfTowersConfig):
        return Checkpoint(model=hf.read(folder), info=info)
    weights = storage.read(storage.join(folder, WEIGHTS_FILE))
    model = _build(info.network, folder)
    model.load_state_dict(load_tensors(weights))
    return Checkpoint(model=model.eval(), info=info)


def encoder_config(uri: str) -> EncoderConfig:
    """Return the config of the audio encoder of a checkpoint of any kind; two towers of transformers are loaded for it."""
    network = description.describe(uri, "--init-audio", *KINDS).network
    if not isinstance(network, HfTowersConfig):
        return network.audio
    config: EncoderConfig = load(uri).model.audio_encoder.config
    return config


def start_audio(encoder: AudioEncoder, uri: str) -> None:
    """Copy the audio encoder of a checkpoint of any kind into `encoder`; a tagging head stays behind."""
    model: Network = load(uri).model
    source: nn.Module
    if isinstance(model, TwoTowers):
        source = model.audio_encoder
    else:
        source = model.encoder.cnn if isinstance(model, TagGuidedCaptioner) else model.encoder
    encoder.load_state_dict({name: w for name, w in source.state_dict().items() if not name.startswith("classifier.")})


def _publish_weights(uri: str, model: Network) -> str:
    """Write the weights file; return the revision.

    It is the sha256 of the file, and of the padding where it is not the default: it changes embeddings too.
    """
    weights = save_tensors({name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()})
    storage.publish(storage.join(uri, WEIGHTS_FILE), weights)
    digest = hashlib.sha256(weights)
    if isinstance(model, Clap) and model.config.padding != ClapConfig.padding:
        digest.update(model.config.padding.encode())
    return digest.hexdigest()


def _build(config: NetworkConfig, folder: str) -> Network:
    def content(name: str) -> Any:  # JSON
        return storage.read_json(storage.join(folder, name))

    if isinstance(config, CaptionerConfig):
        return TagGuidedCaptioner(config, read_vocabulary(folder, config.subwords), content(TAGS_FILE))
    if isinstance(config, TaggerConfig):
        return Tagger(config, content(TAGS_FILE))
    if isinstance(config, ClassifierConfig):
        return Classifier(config, content(TAGS_FILE))
    assert isinstance(config, ClapConfig)
    return Clap(config, text.restore(config.text, content(TEXT_FILE), read_tokenizer(folder)))

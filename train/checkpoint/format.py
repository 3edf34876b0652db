"""A checkpoint is a directory that loads without any flag: config, weights, words; nothing in it is unpickled.

config.json          kind, network, lineage, versions; published last: its presence means complete
model.safetensors    weights and buffers
vocabulary.json      captioner: words, or parts of words, in id order
tags.json            captioner and tagger: tags in index order; classifier: its labels
tokenizer.json       clap: the tokenizers library's own format, with the length captions are cut and padded to
text.json            clap: architecture of the text tower, as transformers describes it
clips.json           keys of the clips it was trained on
validation.json      keys of the clips it was validated and selected on, where there were any
history.json         loss of every step, record of every epoch
best/                captioner: the checkpoint of the epoch that validated best
training_state/      of a run that is not finished (train/trainer/state.py)
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from tokenizers import Tokenizer

from pipeline import storage
from pipeline.errors import InputError
from train.models import text
from train.models.captioner.model import CaptionerConfig, TagGuidedCaptioner
from train.models.captioner.vocabulary import Subwords, Vocabulary
from train.models.clap import Clap, ClapConfig
from train.models.classifier import Classifier, ClassifierConfig
from train.models.encoders import registry
from train.models.encoders.encoder import AudioEncoder
from train.models.encoders.registry import AudioConfig
from train.models.tagger import Tagger, TaggerConfig
from train.models.text import TextConfig

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
CLIPS_FILE, VALIDATION_FILE = "clips.json", "validation.json"
VOCABULARY_FILE, TAGS_FILE, TOKENIZER_FILE, TEXT_FILE = "vocabulary.json", "tags.json", "tokenizer.json", "text.json"
Network = TagGuidedCaptioner | Clap | Tagger | Classifier
KINDS: dict[type[Network], str] = {
    TagGuidedCaptioner: "captioner",
    Clap: "clap",
    Tagger: "tagger",
    Classifier: "classifier",
}
RELEASED = "train convert"  # stage in the lineage of released weights: the clips that they were trained on are unknown
NOT_SHAPE = (
    "num_classes",
    "dropout",
    "block_dropout",
    "clip_dropout",
    "jitter",
)  # may differ from where weights come from
WRITTEN_BY = {
    "captioner": "train captioner",
    "clap": "train pretrain",
    "tagger": "train convert",
    "classifier": "train finetune",
}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded checkpoint."""

    model: Any  # the network, in eval mode, on the CPU
    config: dict[str, Any]  # config.json
    revision: str  # names this model wherever its work is recorded; see `_revision`


def save(
    uri: str, model: Network, lineage: dict[str, Any], clips: Sequence[str], validated: Sequence[str] = ()
) -> None:
    """Publish a checkpoint directory; `clips` are the keys it was trained on, `validated` those it was selected on."""
    files: dict[str, Any] = {CLIPS_FILE: list(clips)}
    if validated:
        files[VALIDATION_FILE] = list(validated)
    if isinstance(model, TagGuidedCaptioner):
        files |= {VOCABULARY_FILE: model.vocabulary.words, TAGS_FILE: model.tags}
    elif isinstance(model, Clap):
        files |= {
            TOKENIZER_FILE: json.loads(model.text_encoder.tokenizer.to_str()),
            TEXT_FILE: json.loads(model.text_encoder.architecture.to_json_string()),
        }
    else:
        files |= {TAGS_FILE: model.labels if isinstance(model, Classifier) else model.tags}
    weights = save_tensors({name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()})
    storage.publish(storage.join(uri, WEIGHTS_FILE), weights)
    for name, content in files.items():
        storage.publish_json(storage.join(uri, name), content)
    config = {
        "kind": KINDS[type(model)],
        "network": dataclasses.asdict(model.config),
        "revision": _revision(model, weights),
        "lineage": lineage,
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }
    storage.publish_json(storage.join(uri, CONFIG_FILE), config)


def exists(uri: str) -> bool:
    """Tell whether a complete checkpoint is there."""
    return storage.exists(storage.join(uri, CONFIG_FILE))


def describe(uri: str, flag: str, *kinds: type[Network]) -> dict[str, Any]:
    """Read config.json and check that it is a checkpoint of one of these kinds, before anything heavy starts.

    Raises:
        InputError: naming the flag when there is no checkpoint, or one of another kind.
    """
    wanted = [KINDS[kind] for kind in kinds]
    remedy = f"give a directory that `python -m {'` or `python -m '.join(WRITTEN_BY[kind] for kind in wanted)}` wrote"
    try:
        found = bool(uri) and exists(storage.resolve(uri))
    except OSError as error:
        raise InputError(flag, uri, f"cannot be read: {error}") from None
    if not found:
        raise InputError(flag, uri, f"no checkpoint there; {remedy}" if uri else remedy)
    try:
        config: dict[str, Any] = dict(storage.read_json(storage.join(storage.resolve(uri), CONFIG_FILE)))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(flag, uri, f"its {CONFIG_FILE} cannot be read ({error}); {remedy}") from None
    if config.get("kind") not in wanted:
        held = config.get("kind", "something else")
        raise InputError(flag, uri, f"holds a {held}, not a {' or '.join(wanted)}; {remedy}")
    if lacking := [key for key in ("network", "revision", "lineage") if key not in config]:
        raise InputError(flag, uri, f"its {CONFIG_FILE} lacks {', '.join(lacking)}; {remedy}")
    return config


def trained_on(uri: str) -> set[str]:
    """Return the keys of the clips a checkpoint was trained on. Raises OSError when it is not to be reached from here."""
    return set(storage.read_json(storage.join(storage.resolve(uri), CLIPS_FILE)))


def selected_on(uri: str) -> set[str]:
    """Return the keys of the clips a checkpoint was selected on, none where there are none; raises as `trained_on`."""
    place = storage.join(storage.resolve(uri), VALIDATION_FILE)
    return set(storage.read_json(place)) if storage.exists(place) else set()


def load(uri: str) -> Checkpoint:
    """Load whatever network a directory holds; strict: missing or extra weights raise."""
    folder = storage.resolve(uri)
    config = storage.read_json(storage.join(folder, CONFIG_FILE))
    weights = storage.read(storage.join(folder, WEIGHTS_FILE))
    model = _build(config["kind"], _nested(config["network"]), folder)
    model.load_state_dict(load_tensors(weights))
    return Checkpoint(model=model.eval(), config=config, revision=config["revision"])


def describe_audio(uri: str, flag: str, wanted: AudioConfig) -> str:
    """Check that the audio encoder of a checkpoint of any kind has the wanted shape; return the checkpoint's revision.

    Raises:
        InputError: naming the flag, and what differs.
    """
    about = describe(uri, flag, *KINDS)
    held, needed = about["network"]["audio"], storage.plain(dataclasses.asdict(wanted))
    differing = [
        f"{name} is {held.get(name)!r}, wanted {value!r}"
        for name, value in needed.items()
        if name not in NOT_SHAPE and held.get(name) != value
    ]
    if differing:
        raise InputError(flag, uri, f"its audio encoder differs ({'; '.join(differing)}); use the config that matches")
    return str(about["revision"])


def start_audio(encoder: AudioEncoder, uri: str) -> None:
    """Copy the audio encoder of a checkpoint of any kind into `encoder`; a tagging head stays behind."""
    model: Network = load(uri).model
    if isinstance(model, Clap):
        source = model.audio_encoder
    else:
        source = model.encoder.cnn if isinstance(model, TagGuidedCaptioner) else model.encoder
    encoder.load_state_dict({name: w for name, w in source.state_dict().items() if not name.startswith("classifier.")})


def _revision(model: Network, weights: bytes) -> str:
    """Return the sha256 of the weights file, and of the padding where it is not the default: it changes embeddings too."""
    digest = hashlib.sha256(weights)
    if isinstance(model, Clap) and model.config.padding != ClapConfig.padding:
        digest.update(model.config.padding.encode())
    return digest.hexdigest()


def _build(kind: str, network: dict[str, Any], folder: str) -> Network:
    def content(name: str) -> Any:
        return storage.read_json(storage.join(folder, name))

    if kind == "captioner":
        config = CaptionerConfig(**network)
        vocabulary = (Subwords if config.subwords else Vocabulary)(content(VOCABULARY_FILE))
        return TagGuidedCaptioner(config, vocabulary, content(TAGS_FILE))
    if kind == "tagger":
        return Tagger(TaggerConfig(**network), content(TAGS_FILE))
    if kind == "classifier":
        return Classifier(ClassifierConfig(**network), content(TAGS_FILE))
    tokenizer = Tokenizer.from_str(storage.read(storage.join(folder, TOKENIZER_FILE)).decode())
    towers = ClapConfig(**network)
    return Clap(towers, text.restore(towers.text, content(TEXT_FILE), tokenizer))


def _nested(network: dict[str, Any]) -> dict[str, Any]:
    """Turn the JSON of nested configs back into dataclasses."""
    made = {**network, "audio": registry.restore(network["audio"])}
    if "text" in network:
        made["text"] = TextConfig(**network["text"])
    return made

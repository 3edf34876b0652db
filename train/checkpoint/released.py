"""Released weights -> our networks: the layouts of PANNs, EfficientAT, AST, BLAT and AudioCaption, each loaded strictly.

A released file is read with `weights_only=True`: it cannot run code. A file that holds anything but tensors and the types
in `ALLOWED` is refused.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import storage
from pipeline.errors import InputError
from train.models import text
from train.models.captioner.config import CaptionerConfig
from train.models.captioner.model import TagGuidedCaptioner
from train.models.captioner.vocabulary import SPECIALS, Vocabulary
from train.models.clap import Clap
from train.models.configs import ClapConfig, TaggerConfig
from train.models.encoders.configs import AudioConfig, MobileNetConfig, TransformerConfig
from train.models.encoders.transformer import PATCH, STRIDE
from train.models.tagger import Tagger

# Trainers save plain numpy arrays beside the weights: PANNs the state of its sampler, BLAT its monitored metric.
NUMPY_MAKERS = {"_reconstruct": np.zeros(1).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
ALLOWED: list[Any] = [
    *((maker, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for name, maker in NUMPY_MAKERS.items()),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(name)) for name in ("bool", "int32", "int64", "uint32", "uint64", "float32", "float64")),
]
PANNS_IGNORED = {
    "spectrogram_extractor.stft.conv_real.weight",
    "spectrogram_extractor.stft.conv_imag.weight",
    "logmel_extractor.melW",
    "fc_audioset.weight",
    "fc_audioset.bias",
}
FRONT_END = {
    "melspec_extractor.spectrogram.window",
    "melspec_extractor.mel_scale.fb",
}  # buffers that our front end computes
POSITION_IDS = "text_encoder.model.embeddings.position_ids"  # a buffer that transformers before 4.31 saved
State = dict[str, Tensor]


def read(uri: str, flag: str) -> tuple[object, str]:
    """Read a `.pt` or `.pth` file without running code in it; return its content and sha256.

    Raises:
        InputError: naming the flag, when the file is not there, is damaged, or holds more than weights.
    """
    try:
        data = storage.read(storage.resolve(uri)) if uri else b""
    except OSError as error:
        raise InputError(flag, uri, f"cannot be read: {error}") from None
    if not data:
        raise InputError(flag, uri, "give the file of released weights")
    try:
        with torch.serialization.safe_globals(ALLOWED):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here, and its message is a page that suggests unsafe loading
        reason = next(
            (line for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line), "damaged"
        )
        remedy = f"holds something other than weights, and is refused ({reason.strip()[:200]})"
        raise InputError(flag, uri, remedy) from None
    return content, hashlib.sha256(data).hexdigest()


def panns(file: object, config: AudioConfig, flag: str, uri: str) -> Tagger:
    """Load `Cnn14_mAP=0.431.pth` (zenodo 3987831) without its front end and its head."""
    state = _state(file, "model", flag, uri)
    ignored = {name for name in state if name in PANNS_IGNORED}
    if ignored != PANNS_IGNORED:
        raise InputError(flag, uri, f"not a PANNs CNN14: no {sorted(PANNS_IGNORED - ignored)}")
    model = Tagger(TaggerConfig(audio=config), ())
    computed = {name: tensor for name, tensor in model.encoder.state_dict().items() if name in FRONT_END}
    _fill(model.encoder, {k: v for k, v in state.items() if k not in ignored} | computed, flag, uri)
    return model


def efficientat(file: object, config: MobileNetConfig, tags: Sequence[str], flag: str, uri: str) -> Tagger:
    """Load `mn*_as_mAP_*.pt` of EfficientAT's release v0.0.1, with its AudioSet head."""
    model = Tagger(TaggerConfig(audio=config), tags)
    _fill(model.encoder, _state(file, "", flag, uri), flag, uri)
    return model


def ast(name: str, flag: str) -> Tagger:
    """Load the encoder of an AST by hub name, such as MIT/ast-finetuned-audioset-10-10-0.4593, or from a local folder."""
    from transformers import ASTModel

    try:
        released = ASTModel.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(flag, name, f"no AST there: {str(error).strip().partition(chr(10))[0]}") from None
    shape = released.config
    if (shape.patch_size, shape.time_stride, shape.frequency_stride) != (PATCH, STRIDE, STRIDE):
        raise InputError(
            flag, name, f"its patches are not {PATCH} x {PATCH} at stride {STRIDE}, which this encoder needs"
        )
    config = TransformerConfig(
        max_frames=shape.max_length,
        num_mels=shape.num_mel_bins,
        hidden_dim=shape.hidden_size,
        layers=shape.num_hidden_layers,
        heads=shape.num_attention_heads,
    )
    model = Tagger(TaggerConfig(audio=config), ())
    _fill(model.encoder, {f"model.{key}": value for key, value in released.state_dict().items()}, flag, name)
    return model


def blat(file: object, config: ClapConfig, flag: str, uri: str) -> Clap:
    """Load `blat_cnn14_bertm.pth` (zenodo 8192397); architecture and tokenizer of the text tower come by name."""
    state = _state(file, "state_dict", flag, uri)
    state.pop(POSITION_IDS, None)
    try:
        model = Clap(config, text.TextEncoder(config.text, *text.pretrained(config.text)))
    except ValueError as error:
        raise InputError("--text.name", config.text.name, f"{error}; give the encoder BLAT was trained with") from None
    _fill(model, state, flag, uri)
    return model


def audiocaption(
    file: object, cnn: Tagger | None, tags: Sequence[str], class_labels: str, flag: str, uri: str
) -> TagGuidedCaptioner:
    """Load a captioner of wsntxxn/AudioCaption; its frozen CNN, which the file may lack, comes from `cnn`.

    `tags` are the names that the table `class_labels` lists; the embeddings in the file have no names.
    """
    state = _state(file, "model", flag, uri)
    if cnn is None and "encoder.cnn.fc1.weight" not in state:
        needed = "the file leaves out its frozen CNN; give the checkpoint that `python -m train convert cnn14` wrote"
        raise InputError("--cnn", "", needed)
    guided = "label_encoder.label_embedding" in state
    num_tags = len(state["label_encoder.label_embedding"]) if guided else 0
    if guided and len(tags) != num_tags:
        held = f"names {len(tags)} tags; " if class_labels else ""
        needed = f"{held}the captioner has {num_tags} tags; give the class_labels_indices.csv that it was trained with"
        raise InputError("--class-labels", class_labels, needed)
    config = CaptionerConfig(
        audio=cnn.config.audio if cnn else CaptionerConfig().audio,
        guided=guided,
        tagger=False,
        classifier_bias="decoder.classifier.bias" in state,
    )
    model = TagGuidedCaptioner(config, _vocabulary(file, flag, uri), tags if guided else ())
    given = {f"encoder.cnn.{name}": tensor for name, tensor in cnn.encoder.state_dict().items()} if cnn else {}
    computed = {name: tensor for name, tensor in model.state_dict().items() if name.endswith((".pe", *FRONT_END))}
    _fill(model, computed | given | state, flag, uri)
    return model


def _vocabulary(file: object, flag: str, uri: str) -> Vocabulary:
    held = file.get("tokenizer", file.get("vocabulary")) if isinstance(file, Mapping) else None
    if isinstance(held, Mapping):
        ids = {str(k): v for k, v in held.items()} if all(isinstance(v, int) for v in held.values()) else None
        words = sorted(ids, key=ids.__getitem__) if ids else [str(held[i]) for i in sorted(held)]
        if tuple(words[:4]) == SPECIALS:
            return Vocabulary(words)
    raise InputError(
        flag, uri, f"no vocabulary of words with {SPECIALS} as ids 0 to 3 under 'tokenizer' or 'vocabulary'"
    )


def _state(file: object, key: str, flag: str, uri: str) -> State:
    held = file.get(key) if key and isinstance(file, Mapping) else file
    if not isinstance(held, Mapping) or not held or not all(isinstance(v, Tensor) for v in held.values()):
        where = f"a state dict under {key!r}" if key else "a plain state dict"
        raise InputError(flag, uri, f"not this layout: it has no {where}")
    return dict(held)


def _fill(module: nn.Module, state: State, flag: str, uri: str) -> None:
    """Load strictly; name the first difference."""
    expected = module.state_dict()
    problems = [f"has no {name}" for name in expected if name not in state]
    problems += [f"has an unknown {name}" for name in state if name not in expected]
    problems += [
        f"{name} is {tuple(state[name].shape)}, wanted {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(flag, uri, f"not this layout: it {'; it '.join(problems[:3])}{more}")
    module.load_state_dict(state)

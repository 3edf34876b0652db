"""ONNX files of two towers: one for each tower, from windows and token ids to unit vectors.

audio.onnx   `waveform` (B, T) float32 in [-1, 1], `num_samples` (B,) int64 true lengths -> `audio_embeds` (B, D)
text.onnx    `input_ids`, `attention_mask` (B, L) int64 -> `text_embeds` (B, D)
onnx.json    what a program needs to fill them: `Described`

B is free. T is the length of a window, where the model pads clips to it; a model that takes true lengths
(`network.padding` "none") has a free T. A long clip is the mean of its windows, weighted by length, as a unit vector.

The exporter is torch's tracing one: that by torch.export refuses a free T and takes ten times as long. What tracing may
get wrong is found out: each file is compared with torch before anything is published.

Shapes: B = clips or texts, T = samples, L = tokens, D = joint size.
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import storage
from pipeline.errors import InputError, JobError
from train.models.clap import Clap
from train.models.encoders.cnn14 import Cnn14
from train.models.encoders.frontend import LogMel
from train.models.encoders.mobilenet import SHORTEST_SAMPLES
from train.models.encoders.transformer import SpectrogramTransformer
from train.models.text import TextEncoder
from train.publishing import spectra

AUDIO, TEXT, DESCRIBED = "audio.onnx", "text.onnx", "onnx.json"
OPSET = 18
TOLERANCE = 1e-4  # largest difference of a number of a unit vector
Inputs = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Described:
    """What onnx.json states."""

    sample_rate_hz: int
    """Rate of the waveform, Hz."""
    window_samples: int
    """Longer clips are cut into windows of this many samples."""
    samples: int | None
    """Every window is zero-padded to this many samples; None: it keeps its true length."""
    min_samples: int
    """Windows shorter than this are zero-padded to it."""
    max_tokens: int
    """L: texts are cut and padded to it, as tokenizer.json does."""
    joint_dim: int
    """D."""


def require(flag: str) -> None:
    """Raise InputError, naming the flag, when the packages of the extra `onnx` are not there."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise InputError(flag, True, "pip install -e '.[onnx]' brings onnx and onnxruntime") from None
    del onnx, onnxruntime


def describe(network: Clap) -> Described:
    """Return what a program needs to fill the inputs of a model's files."""
    encoder, rate_hz = network.audio_encoder, network.sample_rate_hz
    window = round(network.config.clip_s * rate_hz)
    shortest = SHORTEST_SAMPLES
    if isinstance(encoder, Cnn14):
        shortest = max(encoder.downsampling * encoder.config.hop_samples, LogMel.MIN_SAMPLES)
    # AST pads its features to one length and masks them: a padded window is the same as one of true length.
    fixed = network.config.padding == "clip" or isinstance(encoder, SpectrogramTransformer)
    return Described(
        sample_rate_hz=rate_hz,
        window_samples=window,
        samples=window if fixed else None,
        min_samples=window if fixed else shortest,
        max_tokens=network.config.text.max_tokens,
        joint_dim=network.config.joint_dim,
    )


def write(folder: Path, network: Clap) -> Described:
    """Write both files and onnx.json, and compare the files with torch; return what onnx.json states.

    Raises:
        JobError: when a file gives other vectors than torch; names the difference.
    """
    described = describe(network)
    audio, text = AudioTower(network).eval(), TextSide(network).eval()
    windows, tokens = next(_windows(described)), next(_texts(network))
    _export(audio, windows, folder / AUDIO, "audio_embeds", free_width=described.samples is None)
    _export(text, tokens, folder / TEXT, "text_embeds", free_width=False)
    compare_audio(folder, network, described)
    compare_text(folder, network)
    (folder / DESCRIBED).write_bytes(storage.json_bytes(dataclasses.asdict(described)))
    return described


def compare_audio(folder: Path, network: Clap, described: Described) -> None:
    """Compare audio.onnx with torch. Raises JobError when it differs."""
    batches = _windows(described)
    _compare(folder / AUDIO, batches, lambda given: network.encode_audio(given["waveform"], given["num_samples"]))


def compare_text(folder: Path, network: Clap) -> None:
    """Compare text.onnx with torch. Raises JobError when it differs."""
    batches = _texts(network)
    _compare(folder / TEXT, batches, lambda given: network.encode_text(given["input_ids"], given["attention_mask"]))


class AudioTower(nn.Module):
    """Windows -> unit vectors, with a front end that ONNX has the operations for."""

    def __init__(self, network: Clap) -> None:
        super().__init__()
        self.encoder, self.projection = spectra.replaced(network.audio_encoder), network.audio_proj

    def forward(self, waveform: Tensor, num_samples: Tensor) -> Tensor:
        """Map (B, T) and true lengths (B,) to (B, D)."""
        return Clap.unit(self.projection(self.encoder(waveform, num_samples).clip))


class TextSide(nn.Module):
    """Token ids -> unit vectors."""

    def __init__(self, network: Clap) -> None:
        super().__init__()
        self.encoder: TextEncoder = copy.deepcopy(network.text_encoder)
        self.encoder.model.set_attn_implementation("eager")  # tracing loses the mask of the fused one
        self.projection = network.text_proj

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map ids and mask (B, L) to (B, D)."""
        return Clap.unit(self.projection(self.encoder(input_ids, attention_mask)))


def _export(tower: nn.Module, example: Inputs, path: Path, output: str, free_width: bool) -> None:
    axes = {
        name: {0: "batch", **({1: "samples"} if free_width and array.ndim > 1 else {})}
        for name, array in example.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of traced branches and of the exporter's age: what matters is compared
        torch.onnx.export(
            tower,
            tuple(torch.from_numpy(array) for array in example.values()),
            str(path),
            input_names=list(example),
            output_names=[output],
            dynamic_axes={**axes, output: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )


def _windows(described: Described) -> Iterator[Inputs]:
    """Yield batches of noise, a tone and near silence, of other numbers and lengths than that for the export."""
    rng = np.random.default_rng(0)
    for size, rows in ((described.window_samples, 2), (described.min_samples, 1), (described.window_samples, 3)):
        tone = 0.5 * np.sin(np.arange(size) * 2 * np.pi * 440 / described.sample_rate_hz)
        sounds = np.stack([0.1 * rng.standard_normal(size), tone, 1e-4 * rng.standard_normal(size)])[:rows]
        lengths = np.array([size, size // 2, size][:rows]) if described.samples else np.full(rows, size)
        keep = np.arange(size) < lengths[:, None]
        yield {"waveform": (sounds * keep).astype(np.float32), "num_samples": lengths.astype(np.int64)}


def _texts(network: Clap) -> Iterator[Inputs]:
    """Yield batches of random token ids of several lengths."""
    tokenizer, width = network.text_encoder.tokenizer, network.config.text.max_tokens
    padding, rng = tokenizer.padding, np.random.default_rng(0)
    assert padding is not None, "the tokenizer of a text tower pads to one length"
    for rows in (2, 1, 5):
        lengths = rng.integers(2, width + 1, rows)
        mask = (np.arange(width) < lengths[:, None]).astype(np.int64)
        ids = rng.integers(0, tokenizer.get_vocab_size(), (rows, width))
        yield {"input_ids": np.where(mask, ids, padding["pad_id"]), "attention_mask": mask}


@torch.no_grad()
def _compare(path: Path, batches: Iterator[Inputs], network: Callable[[dict[str, Tensor]], Tensor]) -> None:
    session = onnxruntime_session(path)
    for inputs in batches:
        expected = network({name: torch.from_numpy(array) for name, array in inputs.items()}).numpy()
        difference = float(np.abs(session.run(None, inputs)[0] - expected).max())
        if not difference <= TOLERANCE:  # of a NaN, too
            shape = next(iter(inputs.values())).shape
            raise JobError(
                f"{path.name} differs from torch by {difference:.1e} for an input {shape}, at most {TOLERANCE:.0e} is "
                "allowed; nothing is published: leave out --onnx"
            )


def onnxruntime_session(path: Path) -> Any:
    """Return an ONNX Runtime session of a file, on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

"""CLAPs of transformers behind the interface of ours: transformers' own numbers, whatever the batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.support import hf_claps
from train import checkpoint
from train.models.configs import HfTowersConfig
from train.pretrained import Embedder

RATE_HZ = 48_000
WINDOW = 10 * RATE_HZ
TEXTS = ["a dog barks", "rain", "the low hum of a middle tone", "the unheard sound"]
LENGTHS = {"short": 40_000, "half": WINDOW // 2, "just short": WINDOW - 7, "exact": WINDOW}
CLOSE = {"atol": 1e-6, "rtol": 0.0}


@pytest.fixture(scope="module", params=hf_claps.KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hf_claps.save(tmp_path_factory.mktemp(request.param), request.param)


def sound(length: int, seed: int = 0) -> np.ndarray:
    """Noise under a slow wave: loud and quiet frames."""
    noise = np.random.default_rng(seed).standard_normal(length)
    return (0.2 * noise * np.sin(np.arange(length) * 2e-4 * (seed + 1))).astype(np.float32)


def theirs(folder: Path) -> tuple[Any, Any]:
    return transformers.ClapModel.from_pretrained(folder).eval(), transformers.ClapProcessor.from_pretrained(folder)


@torch.no_grad()
def their_audio(folder: Path, clip: np.ndarray, is_longer: bool = False) -> torch.Tensor:
    model, processor = theirs(folder)
    inputs = processor(audio=clip, sampling_rate=RATE_HZ, return_tensors="pt")
    return model.get_audio_features(inputs["input_features"], torch.tensor([[is_longer]])).pooler_output


@pytest.mark.parametrize("name", LENGTHS)
def test_clips_that_the_processor_takes_whole_have_its_embeddings(folder: Path, name: str) -> None:
    clip = sound(LENGTHS[name])
    ours = checkpoint.load(f"hf:{folder}").model.embed_clips([clip])
    torch.testing.assert_close(ours, their_audio(folder, clip), **CLOSE)


def test_a_longer_clip_is_the_mean_of_windows_or_four_mels(folder: Path) -> None:
    """Two frames more than a window leave the processor of a fused model nothing to draw."""
    model = checkpoint.load(f"hf:{folder}").model
    if "unfused" in folder.name:
        clip = sound(2 * WINDOW + 100_000)
        parts = [clip[start : start + WINDOW] for start in range(0, len(clip), WINDOW)]
        mean = sum(len(part) * their_audio(folder, part) for part in parts)
        expected = torch.nn.functional.normalize(mean, dim=1)
    else:
        clip = sound(WINDOW + 99)  # less than a frame more: the processor takes it whole
        torch.testing.assert_close(model.embed_clips([clip]), their_audio(folder, clip), **CLOSE)
        clip = sound(WINDOW + 2 * 480)
        expected = their_audio(folder, clip, is_longer=True)
    torch.testing.assert_close(model.embed_clips([clip]), expected, **CLOSE)


def test_a_clip_has_one_embedding_in_every_batch(folder: Path) -> None:
    model = checkpoint.load(f"hf:{folder}").model
    clips = [sound(length, seed) for seed, length in enumerate((30_000, 3 * WINDOW, WINDOW, 2 * WINDOW + 5, 5, 70_000))]
    together = model.encode_clips(clips)
    for row, clip in enumerate(clips):
        alone = model.encode_clips([clip])
        torch.testing.assert_close(together.outputs[row : row + 1], alone.outputs, **CLOSE)
        torch.testing.assert_close(together.features[row : row + 1], alone.features, atol=1e-5, rtol=1e-5)
    assert model.embed_clips([]).shape == (0, 16)


@torch.no_grad()
def test_texts_have_the_embeddings_of_transformers(folder: Path) -> None:
    model, processor = theirs(folder)
    ours = checkpoint.load(f"hf:{folder}").model
    inputs = processor(text=TEXTS, padding=True, return_tensors="pt")
    torch.testing.assert_close(ours.embed_texts(TEXTS), model.get_text_features(**inputs).pooler_output, **CLOSE)
    cut = processor(text=["the dog " * 20], truncation=True, max_length=12, return_tensors="pt")
    expected = model.get_text_features(**cut).pooler_output
    torch.testing.assert_close(ours.embed_texts(["the dog " * 20, *TEXTS])[:1], expected, **CLOSE)


@torch.no_grad()
def test_pairs_have_the_logits_of_transformers(folder: Path) -> None:
    model, processor = theirs(folder)
    clips = [sound(WINDOW, seed) for seed in range(2)]
    inputs = processor(audio=clips, text=TEXTS[:2], padding=True, sampling_rate=RATE_HZ, return_tensors="pt")
    inputs["is_longer"] = torch.zeros_like(inputs["is_longer"])
    ours = checkpoint.load(f"hf:{folder}").model
    waveform, lengths = torch.from_numpy(np.stack(clips)), torch.tensor([WINDOW] * 2)
    found = ours(waveform, lengths, *ours.text_encoder.tokenize(TEXTS[:2]))
    logits = found.scale * found.audio @ found.text.T + found.bias
    torch.testing.assert_close(logits, model(**inputs).logits_per_audio, atol=2e-5, rtol=0.0)  # of a scale of 14


def test_the_processor_is_stated(folder: Path) -> None:
    info = checkpoint.describe(f"hf:{folder}", "--model", "clap")
    network = info.network
    assert isinstance(network, HfTowersConfig)
    assert (network.sample_rate_hz, network.clip_s, network.max_tokens, network.joint_dim) == (RATE_HZ, 10.0, 12, 16)
    assert network.long_clips == ("windows" if "unfused" in folder.name else "fusion")
    assert network.processor["padding"] == "repeatpad" and network.processor["hop_length"] == 480
    assert info.lineage == {"stage": "transformers", "model": f"hf:{folder}"}


def test_three_lines_embed_files_of_another_rate(folder: Path, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "a.wav", sound(16_000), 16_000)
    embedder = Embedder.from_pretrained(f"hf:{folder}")
    audio, text = embedder.embed_audio([str(tmp_path / "a.wav")]), embedder.embed_text(TEXTS)
    assert embedder.similarity(audio, text).shape == (1, 4) and embedder.clips == []


def test_saved_is_loaded_equal_by_us_and_by_transformers(folder: Path, tmp_path: Path) -> None:
    first = Embedder.from_pretrained(f"hf:{folder}")
    first.save_pretrained(str(tmp_path))
    again, whole = Embedder.from_pretrained(str(tmp_path)), Embedder.from_pretrained(f"hf:{tmp_path}/transformers")
    expected = their_audio(tmp_path / "transformers", sound(9_000))
    for model in (first, again, whole):
        torch.testing.assert_close(model.model.embed_clips([sound(9_000)]), expected, **CLOSE)
        assert torch.equal(model.embed_text(TEXTS), first.embed_text(TEXTS))
    held, kept = (checkpoint.describe(uri, "--model", "clap") for uri in (str(tmp_path), f"hf:{tmp_path}/transformers"))
    assert held.revision == kept.revision and held.network == kept.network and held.lineage == first.lineage


def test_the_revision_follows_weights_and_config(folder: Path, tmp_path: Path) -> None:
    first = checkpoint.describe(f"hf:{folder}", "--model", "clap").revision
    copy = hf_claps.save(tmp_path / "copy", "unfused" if "unfused" in folder.name else "fused")
    assert checkpoint.describe(f"hf:{copy}", "--model", "clap").revision == first, "wherever it lies"
    for name in ("config.json", "model.safetensors"):
        data = bytearray((copy / name).read_bytes())
        if name == "config.json":
            data += b"\n"
        else:
            data[-1] ^= 1
        before = checkpoint.describe(f"hf:{copy}", "--model", "clap").revision
        (copy / name).write_bytes(data)
        assert checkpoint.describe(f"hf:{copy}", "--model", "clap").revision != before, name

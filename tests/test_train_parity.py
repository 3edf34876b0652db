"""Clips of any length get from CNN14 and a converted BLAT what the releases' own inference gives them.

The arithmetic of the releases is written anew in `tests/support/released.py`, over the front end of torchlibrosa.
The weights are seeded numbers.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.nn import functional as nnf

from pipeline import storage
from pipeline.cli import parse
from tests.support.released import CHANNELS, PIECES, blat_state, body, google_bert, official_embedding
from train.__main__ import STAGES
from train.models.encoders.cnn14 import Cnn14
from train.models.encoders.configs import Cnn14Config
from train.pretrained import Embedder
from train.stages.convert import run

pytest.importorskip("torchlibrosa")

NARROW = Cnn14Config(channels=CHANNELS)


@pytest.mark.parametrize("samples", [9_920, 10_000, 10_239, 10_240, 32_000])
def test_cnn14_equals_the_release_from_its_shortest_clip_on(samples: int) -> None:
    model = Cnn14(NARROW).eval()
    model.load_state_dict(body(), strict=False)
    waveform = 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    expected = official_embedding(body(), waveform)
    found = model(waveform, torch.full((2,), samples)).clip
    assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() < 1e-5
    with pytest.raises(RuntimeError, match="too small"):  # where ours pads
        official_embedding(body(), waveform[:, :9_919])


def test_a_converted_blat_embeds_as_the_release_does(tmp_path: Path) -> None:
    """Clips of their true length through the published arithmetic, in a batch or alone; BERT in Google's layout."""
    state = blat_state(hidden=16, layers=2, vocab=len(PIECES), inner=32)
    audio_tower = {name.removeprefix("audio_encoder."): tensor for name, tensor in state.items()}
    front = Cnn14(NARROW).melspec_extractor.state_dict()
    state |= {f"audio_encoder.melspec_extractor.{name}": tensor for name, tensor in front.items()}
    torch.save({"state_dict": state}, tmp_path / "blat.pth")
    google_bert(tmp_path / "bert")
    words = ["--weights", str(tmp_path / "blat.pth"), "--text.name", str(tmp_path / "bert")]
    words += ["--audio.channels", *map(str, CHANNELS)]
    run(parse("train", "convert", STAGES["convert"], ["blat", *words, "--out", str(tmp_path / "blat")]))
    assert storage.read_json(str(tmp_path / "blat" / "config.json"))["network"]["padding"] == "none"
    embedder = Embedder.from_pretrained(str(tmp_path / "blat"))
    rng = np.random.default_rng(0)
    lengths = (160_000, 320_000, 9_920, 100_001, 160_000)
    clips = [(rng.normal(size=n) * np.geomspace(0.3, 0.003, n)).astype(np.float32) for n in lengths]
    together = embedder.model.embed_clips(clips)
    for clip, found in zip(clips, together, strict=True):
        features = official_embedding(audio_tower, torch.from_numpy(clip)[None])
        projected = features @ state["audio_proj.weight"].T + state["audio_proj.bias"]
        expected = nnf.normalize(projected)[0]
        assert torch.allclose(found, expected, atol=1e-5)
        assert torch.allclose(found, embedder.model.embed_clips([clip])[0], atol=1e-5)
    soundfile.write(tmp_path / "clip.wav", clips[3], 32_000, subtype="FLOAT")
    assert torch.allclose(embedder.embed_audio([str(tmp_path / "clip.wav")])[0], together[3], atol=1e-4)  # 16 bits
    embedder.model.config = dataclasses.replace(embedder.model.config, padding="clip")
    padded = embedder.model.embed_clips(clips)
    assert torch.allclose(padded[1], together[1], atol=1e-5)
    assert (padded[0] - together[0]).norm() > 0.001, "with 10 s to fill, 5 s are not the same"
    assert embedder.embed_text(["a dog barks"]).shape == (1, 1024)

"""Two towers: released counts, BLAT's numerics, and one embedding for a clip whatever it is batched with."""

import dataclasses
import math
from typing import Literal

import numpy as np
import pytest
import torch

from train.configs import TINY_CLAP
from train.models import text
from train.models.clap import TEXT_BATCH, Clap
from train.models.configs import ClapConfig, TextConfig
from train.models.encoders.configs import Cnn14Config, MobileNetConfig, TransformerConfig
from train.models.encoders.encoder import MAX_WINDOWS

CAPTIONS = ["a dog barks", "rain falls while a siren wails", "a clock ticks"]
AUDIO = [
    TINY_CLAP.audio,
    MobileNetConfig(width=0.1),
    TransformerConfig(max_frames=204, hidden_dim=32, layers=1, heads=2),
]


@pytest.fixture(params=AUDIO, ids=lambda config: config.encoder)
def model(request: pytest.FixtureRequest) -> Clap:
    torch.manual_seed(0)
    config = ClapConfig(audio=request.param, text=TINY_CLAP.text, joint_dim=16, clip_s=2.0)
    return Clap(config, text.build(config.text, CAPTIONS)).eval()


def test_two_towers_have_the_released_count() -> None:
    """Spec of `blat_cnn14_bertm.pth`: 221 tensors, 123,670,465 parameters."""
    config = ClapConfig()
    described = {
        "model_type": "bert", "vocab_size": 30_522, "hidden_size": 512, "num_hidden_layers": 8,
        "num_attention_heads": 8, "intermediate_size": 2_048,
    }  # fmt: skip
    model = Clap(config, text.restore(config.text, described, text.build_tokenizer(CAPTIONS, config.text)))
    assert len(model.state_dict()) == 221
    assert sum(p.numel() for p in model.parameters()) == 123_670_465
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert parts == {
        "audio_encoder": 79_673_792, "text_encoder": 41_373_184, "audio_proj": 2_098_176, "text_proj": 525_312,
    }  # fmt: skip
    assert model.logit_scale.item() == pytest.approx(2.65926, abs=1e-5)
    assert model.logit_scale.exp().item() == pytest.approx(14.2857, abs=1e-3)


def test_embeddings_have_length_one_with_the_floor_added(model: Clap) -> None:
    tokens, mask = model.text_encoder.tokenize(CAPTIONS)
    raw = model.text_proj(model.text_encoder(tokens, mask))
    expected = raw / (raw.norm(dim=1, keepdim=True) + 1e-7)
    assert torch.allclose(model.encode_text(tokens, mask), expected, atol=1e-7)


def test_batch_equals_single(model: Clap) -> None:
    rng = np.random.default_rng(0)
    sizes = (2 * model.sample_rate_hz, model.sample_rate_hz, 700, 5 * model.sample_rate_hz)
    clips = [rng.integers(-9_000, 9_000, size).astype(np.int16) for size in sizes]
    together = model.embed_clips(clips)
    assert together.shape == (4, 16)
    assert torch.allclose(together.norm(dim=1), torch.ones(4), atol=1e-5)
    for i, clip in enumerate(clips):
        assert torch.allclose(together[i : i + 1], model.embed_clips([clip]), atol=1e-5)
    texts = model.embed_texts(CAPTIONS)
    assert torch.allclose(texts[1:2], model.embed_texts(CAPTIONS[1:2]), atol=1e-5)


def test_equal_texts_get_equal_vectors_wherever_they_stand(model: Clap) -> None:
    """More of them than go through the model at once, in any order."""
    texts = [CAPTIONS[i % len(CAPTIONS)] + f" {i % 300}" for i in range(700)]
    vectors, order = model.embed_texts(texts), torch.randperm(700, generator=torch.Generator().manual_seed(0))
    assert len(set(texts)) > TEXT_BATCH
    assert torch.equal(model.embed_texts([texts[i] for i in order]), vectors[order])
    assert {tuple(vectors[i].tolist()) for i in range(700) if texts[i] == texts[0]} == {tuple(vectors[0].tolist())}


def test_nothing_becomes_no_vectors(model: Clap) -> None:
    for vectors in (model.embed_texts([]), model.embed_clips([])):
        assert vectors.shape == (0, 16) and vectors.dtype == torch.float32


def test_evaluation_is_deterministic(model: Clap) -> None:
    clip = np.random.default_rng(1).normal(size=30_000).astype(np.float32)
    assert torch.equal(model.embed_clips([clip]), model.embed_clips([clip]))


def test_long_clips_are_windows_averaged_by_length(model: Clap) -> None:
    size = 2 * model.sample_rate_hz
    clip = np.random.default_rng(0).integers(-9_000, 9_000, size * 3 // 2).astype(np.int16)
    whole, rest = clip[:size], clip[size:]
    parts = model.embed_clips([whole]), model.embed_clips([rest])
    expected = torch.nn.functional.normalize(parts[0] * len(whole) + parts[1] * len(rest), dim=-1)
    assert torch.allclose(model.embed_clips([rest, clip])[1:], expected, atol=1e-5)


@pytest.mark.parametrize("padding", ["clip", "none"])
def test_a_long_clip_goes_through_in_parts(model: Clap, padding: Literal["clip", "none"]) -> None:
    model.config = dataclasses.replace(model.config, padding=padding, clip_s=0.5)
    size = round(0.5 * model.sample_rate_hz)
    clip = np.random.default_rng(0).integers(-9_000, 9_000, size * (MAX_WINDOWS + 3)).astype(np.int16)
    taken: list[int] = []
    model.audio_encoder.register_forward_pre_hook(lambda _, inputs: taken.append(len(inputs[0])))
    together = model.embed_clips([clip])
    assert taken == [MAX_WINDOWS, 3]
    windows = torch.stack([model.embed_clips([clip[at : at + size]])[0] for at in range(0, len(clip), size)])
    assert torch.allclose(together, model.unit(windows.mean(dim=0, keepdim=True)), atol=1e-5)


def test_without_padding_a_clip_is_embedded_at_its_own_length(model: Clap) -> None:
    rng = np.random.default_rng(0)
    size = 2 * model.sample_rate_hz
    clips = [
        rng.normal(size=each).astype(np.float32) * 0.1 for each in (size // 2, 12_345, size // 2, size, size + 9_000)
    ]
    padded = model.embed_clips(clips)
    model.config = dataclasses.replace(model.config, padding="none")
    together = model.embed_clips(clips)
    for i, clip in enumerate(clips):
        assert torch.allclose(together[i : i + 1], model.embed_clips([clip]), atol=1e-5)
    for i, clip in enumerate(clips[:4]):
        single = model.encode_audio(torch.from_numpy(clip)[None], torch.tensor([len(clip)]))
        assert torch.allclose(together[i : i + 1], single, atol=1e-5)
    assert torch.allclose(together[3], padded[3], atol=1e-5), "a whole window has nothing to pad"
    if isinstance(model.config.audio, Cnn14Config):  # the other encoders leave padding out of their averages
        assert not torch.allclose(together[:2], padded[:2], atol=1e-4)


def test_clips_at_another_rate_have_windows_of_the_same_seconds(model: Clap) -> None:
    """A tone of two windows at 48 kHz embeds nearly as the same tone at the model's own rate."""

    def tone(rate_hz: int) -> np.ndarray:
        return np.sin(2 * math.pi * 440 * np.arange(4 * rate_hz) / rate_hz).astype(np.float32)

    found, expected = model.embed_clips([tone(48_000)], 48_000), model.embed_clips([tone(model.sample_rate_hz)])
    assert (found @ expected.T).item() > 0.99


def test_similarity_is_the_cosine_of_every_pair() -> None:
    audio, texts = torch.eye(3)[:2], torch.eye(3)
    assert torch.equal(Clap.similarity(audio, texts), torch.eye(3)[:2])


def test_training_reaches_every_trainable_weight(model: Clap) -> None:
    size = 2 * model.sample_rate_hz
    model.train()
    audio, texts, scale, *_ = model(
        torch.randn(3, size), torch.tensor([size, size, 900]), *model.text_encoder.tokenize(CAPTIONS)
    )
    (scale * audio @ texts.T).logsumexp(dim=1).sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_default_text_tower_is_blats() -> None:
    assert ClapConfig().text == TextConfig(name="prajjwal1/bert-medium", pooling="cls", max_tokens=30)

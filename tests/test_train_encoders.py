"""Audio encoders: published shapes and counts, behaviour at any length, real weights on real clips."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from torch import nn

from pipeline import audio, sources, storage
from pipeline.sources import audioset
from train.configs import SMALL_CNN
from train.models.encoders import configs
from train.models.encoders import registry as encoders
from train.models.encoders.cnn14 import Cnn14
from train.models.encoders.configs import WIDTHS, AudioConfig, Cnn14Config, MobileNetConfig, TransformerConfig
from train.models.encoders.mobilenet import MobileNet, masked_mean
from train.models.encoders.transformer import SpectrogramTransformer

SMALL_AST = TransformerConfig(max_frames=204, hidden_dim=32, layers=2, heads=2)
SMALL: list[AudioConfig] = [SMALL_CNN, MobileNetConfig(width=0.1, jitter=False), SMALL_AST]
ESC10 = {  # ESC-10's classes among AudioSet's names
    "dog": "Dog",
    "rooster": "Chicken, rooster",
    "clock tick": "Tick-tock",
    "helicopter": "Helicopter",
    "chainsaw": "Chainsaw",
    "rain": "Rain",
    "sea waves": "Waves, surf",
    "sneezing": "Sneeze",
    "crackling fire": "Fire",
    "crying baby": "Baby cry, infant cry",
}


@pytest.fixture(params=SMALL, ids=lambda config: config.encoder)
def encoder(request: pytest.FixtureRequest) -> encoders.AudioEncoder:
    torch.manual_seed(0)
    return encoders.build(request.param).eval()


@pytest.mark.parametrize(
    ("name", "parameters", "embedding_dim", "tensors"),
    [
        ("mn01", 123_783, 96, 294),
        ("mn02", 324_695, 192, 312),
        ("mn04", 983_599, 384, 312),
        ("mn05", 1_431_239, 480, 312),
        ("mn10", 4_876_831, 960, 312),
        ("mn20", 17_909_287, 1_920, 312),
        ("mn30", 39_086_367, 2_880, 312),
        ("mn40", 68_427_303, 3_840, 312),
    ],
)
def test_efficientat_family_has_the_released_counts(
    name: str, parameters: int, embedding_dim: int, tensors: int
) -> None:
    model = MobileNet(MobileNetConfig(width=WIDTHS[name], num_classes=527))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.embedding_dim == embedding_dim
    assert len(model.state_dict()) == tensors


def test_cnn14_and_ast_have_the_released_counts() -> None:
    assert sum(p.numel() for p in Cnn14(Cnn14Config()).parameters()) == 79_673_792
    assert sum(p.numel() for p in SpectrogramTransformer(TransformerConfig()).parameters()) == 86_187_264


@pytest.mark.parametrize(
    ("samples", "frames"), [(9_919, 1), (9_920, 1), (10_240, 1), (32_000, 3), (160_000, 15), (320_000, 31)]
)
def test_cnn14_valid_frames_follow_the_length_rule(samples: int, frames: int) -> None:
    """9,919 samples have none by the rule, floor((floor(9919 / 320) + 1) / 32) = 0: such a clip is padded and has one."""
    narrow = Cnn14(Cnn14Config(channels=(2, 2, 2, 2, 2, 4))).eval()
    features = narrow(torch.randn(1, samples), torch.tensor([samples]))
    assert features.num_frames.item() == frames
    assert features.frames.shape[1] == frames
    assert torch.isfinite(features.clip).all()


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_shallow_cnn14_takes_clips_below_half_a_window(blocks: int) -> None:
    model = Cnn14(Cnn14Config(channels=(4,) * blocks)).eval()
    for samples in (1, 320, 512, 513):
        assert torch.isfinite(model(torch.randn(1, samples), torch.tensor([samples])).clip).all()


def test_frames_mask_and_clip_agree_in_shape(encoder: encoders.AudioEncoder) -> None:
    waveform = torch.randn(2, 2 * encoder.sample_rate_hz)
    features = encoder(waveform, torch.tensor([waveform.shape[1], waveform.shape[1] // 2]))
    assert features.frames.shape[2] == features.clip.shape[1] == encoder.embedding_dim
    assert features.mask.shape == features.frames.shape[:2]
    assert features.mask.sum(dim=1).tolist() == features.num_frames.tolist()
    assert features.num_frames[1] < features.num_frames[0]


@pytest.mark.parametrize("samples", [1, 200, 513, 9_919])
def test_very_short_clips_are_finite_alone_and_in_a_batch(encoder: encoders.AudioEncoder, samples: int) -> None:
    short = torch.randn(1, samples)
    single = encoder(short, torch.tensor([samples]))
    assert torch.isfinite(single.clip).all()
    batch = torch.zeros(2, 2 * encoder.sample_rate_hz)
    batch[0, :samples], batch[1] = short[0], torch.randn(batch.shape[1])
    together = encoder(batch, torch.tensor([samples, batch.shape[1]]))
    assert torch.isfinite(together.clip).all()
    assert torch.isfinite(together.frames).all()
    assert together.num_frames[0] >= 1


def test_batch_equals_single(encoder: encoders.AudioEncoder) -> None:
    size = 2 * encoder.sample_rate_hz
    waveform, length = torch.randn(3, size), torch.tensor([size, size // 2, 9_000])
    for i, clip in enumerate(length):
        waveform[i, clip:] = 0.0
    together = encoder(waveform, length).clip
    single = torch.cat([encoder(waveform[i : i + 1], length[i : i + 1]).clip for i in range(3)])
    assert torch.allclose(together, single, atol=1e-5)


def test_resampling_happens_inside(encoder: encoders.AudioEncoder) -> None:
    """A clip at another rate gives nearly the embedding of the clip resampled beforehand with soxr."""
    rng = np.random.default_rng(0)
    slow = np.cumsum(rng.normal(size=44_100 * 2)).astype(np.float32)  # little near the cut-off, where resamplers differ
    slow /= np.abs(slow).max()
    at_rate = torch.from_numpy(soxr.resample(slow, 44_100, encoder.sample_rate_hz, quality="HQ"))[None]
    expected = encoder(at_rate, torch.tensor([at_rate.shape[1]]))
    found = encoder(torch.from_numpy(slow)[None], torch.tensor([len(slow)]), 44_100)
    assert found.num_frames.tolist() == expected.num_frames.tolist()
    assert torch.cosine_similarity(found.clip, expected.clip).item() > 0.99


def test_configs_survive_json(encoder: encoders.AudioEncoder) -> None:
    config = encoder.config
    assert configs.restore(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_a_frozen_encoder_keeps_weights_and_statistics_and_its_dropout(encoder: encoders.AudioEncoder) -> None:
    waveform, length = torch.randn(4, encoder.sample_rate_hz), torch.full((4,), encoder.sample_rate_hz)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.freeze().train()
    assert not any(p.requires_grad for p in encoder.parameters())
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    outputs = [encoder(waveform, length).clip for _ in range(2)]
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    if isinstance(encoder, Cnn14):
        assert not torch.equal(*outputs)  # dropout is on
        encoder.eval()
        assert torch.equal(encoder(waveform, length).clip, encoder(waveform, length).clip)


def test_a_trained_encoder_moves_its_statistics() -> None:
    """The counterpart of freezing: without it, train mode updates BatchNorm and gradients reach the first layer."""
    model = MobileNet(MobileNetConfig(width=0.1)).train()
    before = model.features[0][1].running_mean.clone()
    model(torch.randn(2, 32_000), torch.tensor([32_000, 32_000])).clip.sum().backward()
    assert not torch.equal(before, model.features[0][1].running_mean)
    assert model.features[0][0].weight.grad.abs().sum() > 0


def test_masked_mean_is_the_mean_of_the_valid_part() -> None:
    x = torch.randn(2, 3, 4, 5)
    found = masked_mean(x, torch.tensor([5, 2]))
    assert torch.allclose(found[0], x[0].mean(dim=(1, 2)), atol=1e-6)
    assert torch.allclose(found[1], x[1, :, :, :2].mean(dim=(1, 2)), atol=1e-6)


def test_ast_features_equal_the_released_extractor() -> None:
    from transformers import ASTFeatureExtractor

    waveform = 0.1 * torch.randn(40_000)
    model = SpectrogramTransformer(TransformerConfig(layers=1)).eval()
    found, num_frames = model.front_end(waveform[None], torch.tensor([40_000]))
    expected = ASTFeatureExtractor()(waveform.numpy(), sampling_rate=16_000, return_tensors="pt")["input_values"]
    assert torch.allclose(found, expected, atol=1e-5)
    assert num_frames.item() == 248
    clip = model(waveform[None], torch.tensor([40_000])).clip
    assert torch.allclose(clip, model.model(expected).pooler_output, atol=1e-4)


@pytest.fixture(scope="session")
def mn04(blat_data: Path) -> MobileNet:
    weights = blat_data / "weights" / "mn04_as_mAP_432.pt"
    if not weights.exists():
        pytest.skip(f"no real mn04 weights at {weights}")
    model = MobileNet(MobileNetConfig(width=0.4, num_classes=527))
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def probabilities(model: MobileNet, clips: list[np.ndarray]) -> torch.Tensor:
    waveform = torch.from_numpy(np.stack(clips))
    with torch.no_grad():
        features = model(waveform, torch.full((len(clips),), waveform.shape[1]))
        return model.tag_logits(features).sigmoid()


def read(path: Path) -> np.ndarray:
    """Return int16 (T,) at the models' rate."""
    return audio.decode(sources.read_bytes(str(path)), audio.SAMPLE_RATE_HZ)


def test_real_mn04_gives_the_published_probabilities(mn04: MobileNet, blat_data: Path) -> None:
    names = ("1-100032-A-0", "1-17150-A-12", "1-19898-A-41")
    found = probabilities(mn04, [read(blat_data / "esc50" / "audio" / f"{name}.ogg") for name in names])
    expected = [
        {72: 0.6375, 75: 0.6269, 74: 0.5769, 73: 0.4803, 78: 0.2512},
        {50: 0.0833, 510: 0.0484, 298: 0.0463, 125: 0.0326, 72: 0.0321},
        {300: 0.4632, 326: 0.4232, 353: 0.0892, 489: 0.0754, 509: 0.0618},
    ]
    for row, top in zip(found, expected, strict=True):
        assert row.topk(5).indices.tolist() == list(top)
        assert row.topk(5).values.tolist() == pytest.approx(list(top.values()), abs=2e-3)  # int16 decode, another codec


def test_real_mn04_hears_silence_and_a_tone(mn04: MobileNet) -> None:
    time_s = np.arange(320_000) / 32_000
    clips = [np.zeros(320_000, np.float32), (0.5 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)]
    found = probabilities(mn04, clips)
    assert found[0, 500].item() == pytest.approx(0.5411, abs=1e-3)
    assert found[1, 501].item() == pytest.approx(0.7126, abs=1e-3)


def test_padding_does_not_hide_a_bark(mn04: MobileNet, blat_data: Path) -> None:
    """5 s padded to 10 s: the reference's plain average drops Bark from 0.63 to 0.10, ours leaves the padding out."""
    clip = read(blat_data / "esc50" / "audio" / "1-100032-A-0.ogg")
    padded = torch.from_numpy(np.pad(clip, (0, len(clip))))[None]
    with torch.no_grad():
        counted = mn04.tag_logits(mn04(padded, torch.tensor([2 * len(clip)]))).sigmoid()[0, 75]
        masked = mn04.tag_logits(mn04(padded, torch.tensor([len(clip)]))).sigmoid()[0, 75]
    assert counted.item() == pytest.approx(0.105, abs=5e-3)
    assert masked.item() > 0.58


def test_real_mn04_names_the_esc10_clips(mn04: MobileNet, blat_data: Path) -> None:
    text = storage.read_text(str(blat_data / "meta" / "audioset_class_labels_indices.csv.gz"))
    index = {name: i for i, name in enumerate(audioset.read_labels(text).values())}
    clips = [clip for clip in sources.read_clips(str(blat_data / "esc50")) if clip.tags[0] in ESC10]
    classes = list(ESC10)
    columns = [index[ESC10[name]] for name in classes]
    right = 0
    for first in range(0, len(clips), 32):
        batch = clips[first : first + 32]
        scores = probabilities(mn04, [read(Path(clip.uri)) for clip in batch])[:, columns]
        right += sum(classes[best] == clip.tags[0] for best, clip in zip(scores.argmax(1).tolist(), batch, strict=True))
    assert len(clips) == 320
    print(f"mn04 on ESC-10: {right} of {len(clips)} clips, {100 * right / len(clips):.1f} %")
    assert right / len(clips) >= 0.96

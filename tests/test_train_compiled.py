"""Encoders as they run on a GPU: one compiled graph, channels last; here with a backend that compiles no kernels."""

import copy
import dataclasses
import pickle

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from tests.support.simulated import FakeTensorMode, move_to_cuda
from train.configs import SMALL_CNN
from train.models.encoders import registry as encoders
from train.models.encoders.cnn14 import Cnn14
from train.models.encoders.configs import AudioConfig
from train.models.encoders.mobilenet import MobileNetConfig
from train.models.encoders.transformer import SpectrogramTransformer, TransformerConfig

SMALL: list[AudioConfig] = [
    SMALL_CNN,
    MobileNetConfig(width=0.1, jitter=False),
    TransformerConfig(max_frames=204, hidden_dim=32, layers=2, heads=2),
]


@pytest.fixture(params=SMALL, ids=lambda config: config.encoder)
def encoder(request: pytest.FixtureRequest) -> encoders.AudioEncoder:
    torch.manual_seed(0)
    return encoders.build(request.param).eval()


def test_the_network_compiles_to_one_graph(encoder: encoders.AudioEncoder) -> None:
    """Once, without breaks, whatever the rate of the clips: the front end and resampling stay outside."""
    clips = [(torch.randn(2, 2 * hz), torch.tensor([2 * hz, hz]), hz) for hz in (encoder.sample_rate_hz, 44_100)]
    with torch.no_grad():
        expected = [encoder(*clip) for clip in clips]
        torch._dynamo.reset()
        counters.clear()
        encoder.compile_network(backend="aot_eager")
        found = [encoder(*clip) for clip in clips * 2]
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    for before, after in zip(expected * 2, found, strict=True):
        assert torch.allclose(before.clip, after.clip, atol=1e-5)
        assert torch.allclose(before.frames, after.frames, atol=1e-5)
        assert torch.equal(before.num_frames, after.num_frames)


def test_a_compiled_network_trains_as_the_plain_one() -> None:
    """The same gradients and statistics of BatchNorm."""
    torch.manual_seed(0)
    plain = Cnn14(dataclasses.replace(SMALL_CNN, block_dropout=0.0, clip_dropout=0.0)).train()
    compiled = copy.deepcopy(plain).compile_network(backend="aot_eager")
    waveform, length = torch.randn(3, 32_000), torch.tensor([32_000, 20_000, 32_000])
    for model in (plain, compiled):
        model(waveform, length).clip.square().sum().backward()
    for (name, expected), found in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(found.grad, expected.grad, rtol=1e-3, atol=1e-5), name
    for (name, value), other in zip(plain.named_buffers(), compiled.buffers(), strict=True):
        assert torch.allclose(value.float(), other.float(), atol=1e-5), name


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_convolutions_on_a_gpu_keep_the_layout_of_the_weights(
    encoder: encoders.AudioEncoder, layout: torch.memory_format
) -> None:
    """From the first one on, so that no image is converted. AST has none but its patches."""
    encoder.to(memory_format=layout)  # type: ignore[call-overload]
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    layouts = []
    for convolution in convolutions:
        convolution.register_forward_hook(
            lambda _module, _inputs, image: layouts.append(image.is_contiguous(memory_format=layout))
        )
    with FakeTensorMode(), torch.no_grad():
        move_to_cuda(encoder)
        waveform = torch.empty(2, 2 * encoder.sample_rate_hz, dtype=torch.int16, device="cuda")
        features = encoder(waveform, torch.full((2,), waveform.shape[1], device="cuda"))
    assert features.clip.device.type == "cuda"
    assert len(layouts) == len(convolutions)
    assert all(layouts) or isinstance(encoder, SpectrogramTransformer)


def test_a_copy_of_a_compiled_encoder_is_its_own(encoder: encoders.AudioEncoder) -> None:
    waveform, length = torch.randn(1, encoder.sample_rate_hz), torch.tensor([encoder.sample_rate_hz])
    copied = copy.deepcopy(encoder.compile_network(backend="eager"))
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(2.0)
        again = pickle.loads(pickle.dumps(copied))
        assert torch.allclose(copied(waveform, length).clip, again(waveform, length).clip, atol=1e-5)
    assert "network" in vars(encoder)
    assert "network" not in vars(copied)

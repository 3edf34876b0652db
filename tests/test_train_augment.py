"""Augmentation: stripes are blank only in training; mixed pairs are sums with joined captions."""

import numpy as np
import pytest
import torch
from torch import nn

from train.data import augment
from train.models.encoders import registry
from train.models.encoders.configs import Cnn14Config, MobileNetConfig
from train.models.encoders.frontend import EfficientLogMel, KaldiFbank, LogMel

FRONT_ENDS = [LogMel(32_000, 320, 64), EfficientLogMel(32_000, 320, 64, jitter=False), KaldiFbank(64)]


@pytest.mark.parametrize("front_end", FRONT_ENDS, ids=lambda each: type(each).__name__)
def test_two_stripes_each_way_are_blank_in_training(front_end: nn.Module) -> None:
    torch.manual_seed(0)
    holder = nn.Sequential(front_end)
    augment.add_spec_augment(holder, "--spec-augment")
    waveform = torch.randn(16, 32_000 * 4) * 0.1
    holder.train()
    mel = front_end(waveform)
    if isinstance(front_end, KaldiFbank):
        mel = mel.transpose(1, 2)
    blank = mel == 0  # (B, M, F)
    assert torch.isfinite(mel).all() and blank.any()
    rows, columns = blank.all(dim=2).sum(dim=1), blank.all(dim=1).sum(dim=1)  # mel bins, frames
    assert rows.max() <= 2 * 7 and columns.max() <= 2 * 63
    assert len(set(rows.tolist())) > 2 and len(set(columns.tolist())) > 2  # drawn for each clip
    holder.eval()
    assert not (front_end(waveform) == 0).any()


@pytest.mark.parametrize("config", [Cnn14Config(channels=(4, 8)), MobileNetConfig(width=0.1)])
def test_encoders_get_the_masks_and_keep_their_weights_names(config: Cnn14Config | MobileNetConfig) -> None:
    encoder = registry.build(config)
    names = list(encoder.state_dict())
    augment.add_spec_augment(encoder, "--spec-augment")
    assert list(encoder.state_dict()) == names
    assert sum(len(module._forward_hooks) for module in encoder.modules()) == 1


def test_mixed_pairs_are_sums_with_both_captions() -> None:
    waveform = torch.stack([torch.full((4,), value, dtype=torch.int16) for value in (1000, 3000, -2000)])
    lengths, texts = torch.tensor([2, 4, 3]), ["a", "b", "c"]
    mixture = augment.draw_mixture(3, 1.0, seed=0)
    mixed, longer = augment.mix(waveform, lengths, mixture)
    assert augment.mix_texts(texts, mixture.chosen) == ["a and b", "b and c", "c and a"]
    assert longer.tolist() == [4, 4, 3] and mixed.dtype == torch.int16
    assert 0.3 * 1000 + 0.7 * 3000 >= mixed[0, 0] >= 0.7 * 1000 + 0.3 * 3000 - 1
    again = augment.draw_mixture(3, 1.0, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(mixture, again, strict=True))
    none = augment.draw_mixture(3, 0.0, seed=0)
    assert torch.equal(augment.mix(waveform, lengths, none)[0], waveform)
    assert augment.mix_texts(texts, none.chosen) == texts


def test_what_is_drawn_for_a_step_does_not_change() -> None:
    """Runs of earlier versions go on: these are the numbers that they drew."""
    mixture = augment.draw_mixture(4, 0.5, seed=7)
    random = torch.Generator().manual_seed(7)
    assert mixture.chosen.tolist() == (torch.rand(4, generator=random) < 0.5).tolist()
    assert torch.equal(mixture.ratio, 0.3 + 0.4 * torch.rand(4, generator=random))
    drawn = torch.from_numpy(np.random.default_rng(7).beta(0.3, 0.3, 4)).float()
    assert torch.equal(augment.draw_mixup(4, 0.3, seed=7), torch.maximum(drawn, 1 - drawn))

"""fit(): a run that is cut and resumed ends with the weights of an undisturbed one; a bad loss names its clips."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.cli import JobError
from tests.test_train_data import Counting
from train.data import Batch, Loader, Order
from train.loop import Context, OptimConfig, fit, schedule

CONFIG = OptimConfig(epochs=3, batch_size=4, lr=1e-2, save_every_s=0.0)


class Interrupted(Exception):
    pass


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def train(out: str, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model, seen = Net(), 0

    def loss(net: nn.Module, batch: Batch) -> torch.Tensor:
        nonlocal seen
        seen += 1
        if stop_at is not None and seen > stop_at:
            raise Interrupted
        return net.layers(batch.waveform.float()).square().mean()

    loader = Loader(Counting(16), Order(num_clips=16, batch_size=4, seed=0), 5, 0, 1)
    fit(model, loss, loader, CONFIG, Context(), out)
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_resumed_run_equals_undisturbed_run(tmp_path: Path, stop_at: int) -> None:
    expected = train(str(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        train(str(tmp_path / "cut"), stop_at)
    found = train(str(tmp_path / "cut"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert len(list((tmp_path / "cut" / "training_state").glob("*.safetensors"))) == 1


def test_nan_loss_stops_and_names_the_clips(tmp_path: Path) -> None:
    loader = Loader(Counting(16), Order(num_clips=16, batch_size=4, seed=0), 5, 0, 1)

    def loss(net: nn.Module, batch: Batch) -> torch.Tensor:
        return net.layers[3].weight.sum() * np.nan

    with pytest.raises(JobError, match=r"nan at step 0.*'k\d+'.*--optim\.lr"):
        fit(Net(), loss, loader, CONFIG, Context(), str(tmp_path))


def test_schedule_rises_then_falls_to_zero() -> None:
    values = [schedule(step, 100, 0.1) for step in range(101)]
    assert values[0] == pytest.approx(0.1)
    assert values[9] == 1.0
    assert values[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))
    assert values[55] == pytest.approx(0.5)
    assert math.isclose(values[100], 0.0, abs_tol=1e-12)

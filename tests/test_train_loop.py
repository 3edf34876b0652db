"""fit(): a run that is cut and resumed ends with the weights of an undisturbed one; a bad loss names its clips."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from torch import nn

from pipeline.cli import InputError, JobError
from tests.test_train_data import Counting
from train.data import Batch, Loader, Order
from train.loop import Context, fit
from train.optim import OptimConfig, exponential, schedule

CONFIG = OptimConfig(epochs=3, batch_size=4, lr=1e-2, save_every_s=0.0)


histories: dict[str, dict[str, list[Any]]] = {}  # of finished runs by `out`


class Interrupted(Exception):
    pass


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))


def train(out: str, stop_at: int | None = None, config: OptimConfig = CONFIG) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model, seen = Net(), 0

    def loss(net: nn.Module, batch: Batch, step: int) -> torch.Tensor:
        nonlocal seen
        seen += 1
        if stop_at is not None and seen > stop_at:
            raise Interrupted
        return net.layers(batch.waveform.float()).square().mean()

    loader = Loader(Counting(16), Order(num_clips=16, batch_size=4, seed=0), 5, 0, 1)
    history = fit(model, loss, loader, config, Context(), out)
    histories[out] = history
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

    def loss(net: nn.Module, batch: Batch, step: int) -> torch.Tensor:
        return net.layers[3].weight.sum() * np.nan

    with pytest.raises(JobError, match=r"nan at step 0.*'k\d+'.*--optim\.lr"):
        fit(Net(), loss, loader, CONFIG, Context(), str(tmp_path))


def test_schedule_rises_then_falls_to_zero() -> None:
    values = [schedule(step, 100, OptimConfig(lr=1.0, warmup_fraction=0.1)) for step in range(101)]
    assert values[0] == pytest.approx(0.1)
    assert values[9] == 1.0
    assert values[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))
    assert values[55] == pytest.approx(0.5)
    assert math.isclose(values[100], 0.0, abs_tol=1e-12)


def test_the_exponential_schedule_is_that_of_the_released_recipe() -> None:
    """Values of spec: 25 epochs of 1,558 steps, the first fifth of them rising."""
    config = OptimConfig(lr=5e-4, decay="exponential", final_lr=5e-7, warmup_fraction=0.2)
    told = {1: 6.4e-8, 7_790: 5e-4, 15_580: 8.9e-5, 31_160: 2.8e-6, 38_950: 5e-7}
    for count, lr in told.items():
        assert exponential(count, 38_950, config) == pytest.approx(lr, rel=0.01)
    assert schedule(0, 38_950, config) == exponential(2, 38_950, config)
    assert schedule(38_949, 38_950, config) == pytest.approx(5e-7)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 0}, "--optim.epochs 0"),
        ({"lr": 0.0}, "--optim.lr"),
        ({"warmup_fraction": 2.0}, "--optim.warmup-fraction"),
        ({"decay": "exponential", "final_lr": 0.0}, "--optim.final-lr"),
        ({"swa_epochs": 21}, "--optim.swa-epochs 21: use 0 to the 20 epochs"),
    ],
)
def test_what_cannot_be_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        OptimConfig(**change).check()


def test_averaged_weights_are_the_mean_of_the_last_epochs(tmp_path: Path) -> None:
    average = train(str(tmp_path / "swa"), config=replace(CONFIG, swa_epochs=2))
    snapshots = [_after(tmp_path, epochs) for epochs in (2, 3)]
    for name, value in average.items():
        if value.is_floating_point():
            assert torch.allclose(value, (snapshots[0][name] + snapshots[1][name]) / 2, atol=1e-7), name
    assert not torch.equal(average["layers.0.weight"], snapshots[1]["layers.0.weight"])


def _after(tmp_path: Path, epochs: int) -> dict[str, torch.Tensor]:
    """Return the weights after some of three epochs: those of the state that a stop leaves behind."""
    out = tmp_path / f"after-{epochs}"
    if epochs == 3:
        return train(str(out))
    with pytest.raises(Interrupted):
        train(str(out), stop_at=4 * epochs)
    (state,) = (out / "training_state").glob("*.safetensors")
    return {k[6:]: v for k, v in load_tensors(state.read_bytes()).items() if k.startswith("model.")}


@pytest.mark.parametrize("stop_at", [6, 9, 11])
def test_an_averaged_run_resumes_to_the_same_average_and_history(tmp_path: Path, stop_at: int) -> None:
    config = replace(CONFIG, swa_epochs=2)
    expected = train(str(tmp_path / "whole"), config=config)
    with pytest.raises(Interrupted):
        train(str(tmp_path / "cut"), stop_at, config)
    found = train(str(tmp_path / "cut"), config=config)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert histories[str(tmp_path / "cut")] == histories[str(tmp_path / "whole")]
    assert len(histories[str(tmp_path / "cut")]["loss"]) == 12


def test_validation_tells_the_best_epoch(tmp_path: Path) -> None:
    scores, kept = iter([0.2, 0.5, 0.4]), []
    loader = Loader(Counting(16), Order(num_clips=16, batch_size=4, seed=0), 5, 0, 1)
    model = Net()

    def loss(net: nn.Module, batch: Batch, step: int) -> torch.Tensor:
        assert net.training
        return net.layers(batch.waveform.float()).square().mean()

    def validate() -> dict[str, float]:
        assert not model.training
        return {"cider_d": next(scores)}

    history = fit(
        model, loss, loader, CONFIG, Context(), str(tmp_path), validate, lambda record: kept.append(record["epoch"])
    )
    assert kept == [1, 2]
    assert [(each["epoch"], each["cider_d"]) for each in history["epochs"]] == [(1, 0.2), (2, 0.5), (3, 0.4)]


def test_bfloat16_is_the_arithmetic_of_the_model(tmp_path: Path) -> None:
    seen = set()
    loader = Loader(Counting(16), Order(num_clips=16, batch_size=4, seed=0), 5, 0, 1)

    def loss(net: nn.Module, batch: Batch, step: int) -> torch.Tensor:
        made = net.layers(batch.waveform.float())
        seen.add(made.dtype)
        return made.float().square().mean()

    model = Net()
    fit(model, loss, loader, replace(CONFIG, precision="bfloat16"), Context(), str(tmp_path))
    assert seen == {torch.bfloat16} and {p.dtype for p in model.parameters()} == {torch.float32}

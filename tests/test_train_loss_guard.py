"""A bad loss never reaches the weights, also where it is read a step later: with torch's fused optimizers, on a CPU, too."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import JobError
from tests.test_train_loader import LENGTH, Numbered, order
from train.data.loader import Batch, Loader
from train.data.order import Step
from train.trainer import optim
from train.trainer.context import Context
from train.trainer.hooks import Backward
from train.trainer.loop import fit
from train.trainer.loss_guard import LOSS_WINDOW, LossGuard
from train.trainer.optim import OptimConfig
from train.trainer.performance import prepare

BAD = [float("nan"), float("inf"), -float("inf"), 60.0]


@pytest.fixture(params=["read at once", "read later"])
def read_later(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Fused kernels of a CPU follow the same rules as those of a GPU."""
    if request.param == "read later":
        monkeypatch.setattr(optim, "fuses", lambda groups: True)
    return bool(request.param == "read later")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(LENGTH, 1)


def backward(bad: dict[int, float], seen: list[dict[str, torch.Tensor]]) -> Backward:
    """Return a loss of 5 with gradients that move the weights; `seen` gets the weights that each step begins with."""

    def add(model: nn.Module, batch: Batch, step: Step) -> torch.Tensor:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        value = bad.get(step.number, 5.0)
        (model(batch.waveform.float()).sum() * value).backward()
        return torch.tensor(value)

    return add


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_loss_stops_before_it_reaches_weights_or_states(tmp_path: Path, bad: float, read_later: bool) -> None:
    clips = Numbered(tmp_path).listed
    config = OptimConfig(epochs=40, batch_size=4, save_every_s=1e9, save_every_steps=1)
    seen: list[dict[str, torch.Tensor]] = []
    net, loader, out = network(), Loader(clips, order(clips), LENGTH), str(tmp_path / "out")
    keys = next(loader.batches(110, 111)).keys
    with pytest.raises(JobError, match=rf"loss is {bad} at step 110[,;] .*--optim\.lr"):
        fit(prepare(net, torch.device("cpu")), backward({110: bad}, seen), loader, config, Context(), out)
    written = json.loads((tmp_path / "out" / "bad_batch_0.json").read_text())
    assert written["step"] == 110 and list(written["clips"]) == keys
    for name, value in net.state_dict().items():
        assert torch.equal(value, seen[110][name]), name
    assert max(path.stem for path in (tmp_path / "out" / "training_state").glob("*.json")) == "00000110"
    assert read_later or len(seen) == 111


def test_a_gradient_that_is_not_finite_stops_as_a_bad_loss_does(tmp_path: Path, read_later: bool) -> None:
    """The loss before it is finite: it says nothing of what the gradient is."""
    clips = Numbered(tmp_path).listed
    seen: list[dict[str, torch.Tensor]] = []
    good = backward({}, seen)

    def add(model: nn.Module, batch: Batch, step: Step) -> torch.Tensor:
        loss = good(model, batch, step)
        if step.number == 3:
            model.get_parameter("weight").grad[0, 0] = torch.inf
        return loss

    net, config = network(), OptimConfig(epochs=4, batch_size=4, save_every_s=1e9, save_every_steps=1)
    with pytest.raises(JobError, match=r"gradient is not finite, the loss is 5\.0 at step 3; .*--optim\.lr"):
        loader = Loader(clips, order(clips), LENGTH)
        fit(prepare(net, torch.device("cpu")), add, loader, config, Context(), str(tmp_path / "out"))
    assert all(torch.equal(value, seen[3][name]) for name, value in net.state_dict().items())
    assert max(path.stem for path in (tmp_path / "out" / "training_state").glob("*.json")) == "00000003"


def test_a_late_loss_is_read_before_the_next_but_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step after the bad one runs, and changes nothing."""
    monkeypatch.setattr(optim, "fuses", lambda groups: True)
    clips = Numbered(tmp_path).listed
    seen: list[dict[str, torch.Tensor]] = []
    net, loader = network(), Loader(clips, order(clips), LENGTH)
    config = OptimConfig(epochs=2, batch_size=4, save_every_s=1e9)
    with pytest.raises(JobError, match="loss is nan at step 2;"):
        fit(prepare(net, torch.device("cpu")), backward({2: BAD[0]}, seen), loader, config, Context(), str(tmp_path))
    assert len(seen) == 4
    assert all(torch.equal(value, seen[2][name]) for name, value in net.state_dict().items())


def test_late_losses_make_the_history_of_prompt_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = Numbered(tmp_path).listed
    losses = []
    for name in ("prompt", "late"):
        if name == "late":
            monkeypatch.setattr(optim, "fuses", lambda groups: True)
        varied = {step: 1.0 + step for step in range(15)}
        config = OptimConfig(epochs=3, batch_size=4, save_every_s=1e9, save_every_steps=2, ema_decay=0.5)
        ready, loader = prepare(network(), torch.device("cpu"), copied=True), Loader(clips, order(clips), LENGTH)
        history = fit(ready, backward(varied, []), loader, config, Context(), str(tmp_path / name))
        losses.append(replace(history, steps=[]))
    assert losses[0] == losses[1] and losses[0].loss == [1.0 + step for step in range(15)]


def test_after_a_bad_loss_the_optimizer_stands_still() -> None:
    """Its moments and its count of steps, too."""
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)
    guard = LossGuard(optimizer, explosion=10.0, on_device=True)
    states = []
    for value in (5.0, float("nan"), 5.0):
        net(torch.ones(1, LENGTH)).sum().backward()
        guard.admit(torch.tensor(value), torch.tensor(1.0), [5.0] * LOSS_WINDOW)
        optimizer.step()
        state = optimizer.state[net.weight]
        states.append(
            [net.weight.detach().clone(), *(state[name].clone() for name in ("step", "exp_avg", "exp_avg_sq"))]
        )
    for first, second, third in zip(*states, strict=True):
        assert torch.equal(first, second) and torch.equal(first, third)

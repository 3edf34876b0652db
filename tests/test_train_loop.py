"""fit(): a run that is cut and resumed ends with the weights of an undisturbed one; a bad loss names its clips."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from torch import nn

from pipeline import audio
from pipeline.errors import JobError
from pipeline.sources.clip import Clip
from train.data.clip_sets import ListedClips
from train.data.loader import Batch, Loader
from train.data.order import Order, Step
from train.trainer.context import STOP, Context
from train.trainer.history import History
from train.trainer.hooks import Backward, Hooks
from train.trainer.loop import Stopped, fit
from train.trainer.optim import Group, OptimConfig
from train.trainer.performance import prepare

CONFIG = OptimConfig(epochs=3, batch_size=4, lr=1e-2, save_every_s=0.0)


histories: dict[str, History] = {}  # of finished runs by `out`


class Interrupted(Exception):
    pass


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return self.layers(waveform.float())


@pytest.fixture(scope="module", autouse=True)
def clips(tmp_path_factory: pytest.TempPathFactory) -> ListedClips:
    """Sixteen clips whose samples hold their own number."""
    global listed
    folder = tmp_path_factory.mktemp("clips")
    found = []
    for i in range(16):
        (folder / f"k{i}.flac").write_bytes(audio.encode_flac(np.arange(i, i + 8, dtype=np.int16)))
        found.append(Clip(key=f"k{i}", uri=f"{folder}/k{i}.flac", source_id=f"k{i}", captions=("a text",)))
    listed = ListedClips(found, ())
    return listed


listed: ListedClips


def loader() -> Loader:
    return Loader(listed, Order(sizes=(16,), batch_size=4, seed=0), 5)


def squares(stop_at: int | None = None) -> Backward:
    """Return a loss whose step is cut off after some calls."""
    seen = 0

    def backward(net: nn.Module, batch: Batch, step: Step) -> torch.Tensor:
        nonlocal seen
        seen += 1
        if stop_at is not None and seen > stop_at:
            raise Interrupted
        assert net.training
        value = net(batch.waveform).float().square().mean()
        value.backward()
        return value.detach()

    return backward


def train(
    out: str, stop_at: int | None = None, config: OptimConfig = CONFIG, hooks: Hooks | None = None, **where: Any
) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    ready = prepare(Net(), torch.device("cpu"), precision=config.precision, copied=bool(config.ema_decay))
    history = fit(ready, squares(stop_at), loader(), config, Context(**where), out, hooks)
    histories[out] = history
    return {name: value.clone() for name, value in ready.evaluated.state_dict().items()}


def timeless(history: History) -> History:
    """Return what of a history does not depend on how fast it went."""
    return replace(history, steps=[])


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_resumed_run_equals_undisturbed_run(tmp_path: Path, stop_at: int) -> None:
    expected = train(str(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        train(str(tmp_path / "cut"), stop_at)
    found = train(str(tmp_path / "cut"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert len(list((tmp_path / "cut" / "training_state").glob("*.safetensors"))) == 1


def test_nan_loss_stops_and_names_the_clips(tmp_path: Path) -> None:
    def backward(net: nn.Module, batch: Batch, step: Step) -> torch.Tensor:
        return torch.tensor(np.nan)

    with pytest.raises(JobError, match=r"nan at step 0.*'k\d+'.*--optim\.lr"):
        fit(prepare(Net(), torch.device("cpu")), backward, loader(), CONFIG, Context(), str(tmp_path))
    batch = json.loads((tmp_path / "bad_batch_0.json").read_text())
    assert batch["step"] == 0 and len(batch["clips"]) == 4 and set(batch["clips"].values()) == {"a text"}


def test_a_loss_that_explodes_stops_before_it_reaches_the_weights(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=30, save_every_s=1e9)

    def backward(net: nn.Module, batch: Batch, step: Step) -> torch.Tensor:
        (0 * net(batch.waveform).sum()).backward()
        return torch.tensor(60.0 if step.number == 110 else 5.0)

    with pytest.raises(JobError, match=r"60\.0 at step 110, 5\.000 in the mean before"):
        fit(prepare(Net(), torch.device("cpu")), backward, loader(), config, Context(), str(tmp_path))
    assert (tmp_path / "bad_batch_0.json").exists()


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
    return saved(out)


@pytest.mark.parametrize("stop_at", [6, 9, 11])
def test_an_averaged_run_resumes_to_the_same_average_and_history(tmp_path: Path, stop_at: int) -> None:
    config = replace(CONFIG, swa_epochs=2)
    expected = train(str(tmp_path / "whole"), config=config)
    with pytest.raises(Interrupted):
        train(str(tmp_path / "cut"), stop_at, config)
    found = train(str(tmp_path / "cut"), config=config)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert timeless(histories[str(tmp_path / "cut")]) == timeless(histories[str(tmp_path / "whole")])
    assert len(histories[str(tmp_path / "cut")].loss) == 12


def test_validation_chooses_the_best_epoch(tmp_path: Path) -> None:
    scores, kept = iter([0.2, 0.5, 0.4]), []

    def validate(network: nn.Module) -> dict[str, float]:
        assert not network.training
        return {"cider_d": next(scores)}

    train(str(tmp_path), hooks=Hooks(validate=validate, keep=lambda record: kept.append(record.epoch)))
    assert kept == [1, 2]
    epochs = histories[str(tmp_path)].epochs
    assert [(each.epoch, each.metrics["cider_d"]) for each in epochs] == [(1, 0.2), (2, 0.5), (3, 0.4)]


def test_validation_in_the_middle_of_epochs_does_not_change_the_run(tmp_path: Path) -> None:
    steps: list[int] = []

    def validate(network: nn.Module) -> dict[str, float]:
        torch.randn(3)  # draws that must not reach the training
        return {"score": float(len(steps))}

    hooks = Hooks(validate=validate, validate_every_steps=3, keep=lambda record: steps.append(record.step))
    measured, plain = train(str(tmp_path / "a"), hooks=hooks), train(str(tmp_path / "b"))
    assert all(torch.equal(measured[name], plain[name]) for name in plain)
    assert [each.step for each in histories[str(tmp_path / "a")].epochs] == [3, 4, 6, 8, 9, 12]


def test_bfloat16_is_the_arithmetic_of_the_model(tmp_path: Path) -> None:
    seen = set()
    ready = prepare(Net(), torch.device("cpu"), precision="bfloat16")

    def backward(net: nn.Module, batch: Batch, step: Step) -> torch.Tensor:
        made = net(batch.waveform)
        seen.add(made.dtype)
        made.float().square().mean().backward()
        return made.detach().float().mean()

    fit(ready, backward, loader(), CONFIG, Context(), str(tmp_path))
    assert seen == {torch.bfloat16} and {p.dtype for p in ready.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("stop_at", [5, 12])
def test_a_moving_average_is_published_and_resumed(tmp_path: Path, stop_at: int) -> None:
    """By hand: the average after each step is 0.9 of the one before and 0.1 of the weights; it starts as the first."""
    config = replace(CONFIG, ema_decay=0.9)
    expected = train(str(tmp_path / "whole"), config=config)
    if stop_at < 12:
        with pytest.raises(Interrupted):
            train(str(tmp_path / "cut"), stop_at, config)
    found = train(str(tmp_path / "cut"), config=config)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    by_hand: torch.Tensor | None = None
    for step in range(1, 13):
        weights = _after_steps(tmp_path, step)["layers.0.weight"]
        by_hand = weights if by_hand is None else 0.9 * by_hand + 0.1 * weights
    assert by_hand is not None and torch.allclose(expected["layers.0.weight"], by_hand, atol=1e-6)


def _after_steps(tmp_path: Path, steps: int) -> dict[str, torch.Tensor]:
    out = tmp_path / f"steps-{steps}"
    if steps == 12:
        return train(str(out))
    with pytest.raises(Interrupted):
        train(str(out), stop_at=steps)
    return saved(out)


def saved(out: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the newest state that a stop left behind."""
    newest = max((out / "training_state").glob("*.safetensors"))
    return {k[6:]: v for k, v in load_tensors(newest.read_bytes()).items() if k.startswith("model.")}


def test_the_newest_states_are_kept_and_a_half_written_one_is_passed_over(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(str(tmp_path), 9, replace(CONFIG, keep_states=3))
    states = tmp_path / "training_state"
    names = sorted(path.name for path in states.glob("*.json"))
    assert len(names) == 3
    (states / "99999999.safetensors").write_bytes(b"half of a state")  # its .json was never written
    found = train(str(tmp_path), config=replace(CONFIG, keep_states=3))
    expected = train(str(tmp_path / "whole"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_states_come_by_steps_too(tmp_path: Path) -> None:
    config = replace(CONFIG, save_every_s=1e9, save_every_steps=5)
    with pytest.raises(Interrupted):
        train(str(tmp_path), 9, config)
    assert [path.name for path in (tmp_path / "training_state").glob("*.json")] == ["00000005.json"]


def test_a_stop_signal_saves_at_once_and_stop_ends_the_run_there(tmp_path: Path) -> None:
    config, calls = replace(CONFIG, save_every_s=1e9), iter([*[""] * 3, "a node goes", *["a node goes"] * 3, STOP])
    with pytest.raises(Stopped, match="after step 8; the same command continues"):
        train(str(tmp_path), config=config, stop_signal=lambda: next(calls))
    assert [path.name for path in (tmp_path / "training_state").glob("*.json")] == ["00000008.json"]
    found = train(str(tmp_path), config=config)
    expected = train(str(tmp_path / "whole"), config=config)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_groups_learn_at_their_own_rates(tmp_path: Path) -> None:
    """A group with half the rate moves half as far in Adam's first step; gains and biases do not decay."""
    torch.manual_seed(0)
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    slow, rest = list(net.layers[0].parameters()), [*net.layers[1].parameters(), *net.layers[3].parameters()]
    hooks = Hooks(groups=lambda: (Group(slow, 0.5), Group(rest)))
    config = replace(CONFIG, epochs=1, warmup_fraction=0.0, clip_norm=1e9)
    with pytest.raises(Interrupted):
        fit(prepare(net, torch.device("cpu")), squares(1), loader(), config, Context(), str(tmp_path), hooks)
    moved = {name: (value - before[name]).abs().max().item() for name, value in net.state_dict().items()}
    assert moved["layers.0.weight"] == pytest.approx(0.5 * config.lr, rel=1e-3)
    assert moved["layers.3.weight"] == pytest.approx(config.lr, rel=1e-3)


def test_curves_go_to_every_writer_under_the_names_of_the_field(tmp_path: Path) -> None:
    written: list[tuple[dict[str, float], int]] = []
    hooks = Hooks(
        writers=(lambda scalars, step: written.append((dict(scalars), step)),),
        extras=lambda: {"logit_scale": 14.0},
        validate=lambda network: {"text_to_audio_R@1": 0.5},
    )
    train(str(tmp_path), hooks=hooks)
    assert [step for _, step in written] == [4, 4, 8, 8, 12, 12]  # an epoch's numbers, then what was held out
    assert set(written[0][0]) == {
        "train/loss", "train/lr", "train/logit_scale", "train/samples_per_second_per_gpu", "train/batch_time",
        "train/data_time", "train/copy_time", "train/compute_time", "train/rest_time",
    }  # fmt: skip
    assert written[1][0] == {"val/text_to_audio_R@1": 0.5}
    assert [row["step"] for row in histories[str(tmp_path)].steps] == [4, 8, 12]

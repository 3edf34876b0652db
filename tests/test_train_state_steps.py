"""Training whose process ends at any operation on its store: the next run ends as one that was never disturbed."""

import itertools
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import audio, storage
from pipeline.sources.clip import Clip
from tests.support.stopping import Stopped, stopping
from train.data.clip_sets import ListedClips
from train.data.loader import Batch, Loader
from train.data.order import Order, Step
from train.trainer import state
from train.trainer.context import Context
from train.trainer.loop import fit
from train.trainer.optim import OptimConfig
from train.trainer.performance import prepare

CONFIG = OptimConfig(epochs=1, batch_size=4, lr=1e-2, save_every_s=0.0, ema_decay=0.9)  # a state after every step


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ListedClips:
    """Twelve clips, which make three steps."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(12):
        (folder / f"k{i}.flac").write_bytes(audio.encode_flac(np.arange(i, i + 8, dtype=np.int16)))
    listed = [Clip(key=f"k{i}", uri=f"{folder}/k{i}.flac", source_id=f"k{i}", captions=("a text",)) for i in range(12)]
    return ListedClips(listed, ())


def train(clips: ListedClips, out: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Run to the end; return the losses and the averaged weights."""
    torch.manual_seed(0)

    def backward(net: torch.nn.Module, batch: Batch, step: Step) -> torch.Tensor:
        value = net(batch.waveform.float()).square().mean()
        value.backward()
        return value.detach()

    network = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    ready = prepare(network, torch.device("cpu"), copied=True)
    loader = Loader(clips, Order(sizes=(12,), batch_size=4, seed=0), 5)
    history = fit(ready, backward, loader, CONFIG, Context(), out)
    state.record(out, history)
    state.clear(out)
    return history.loss, {name: value.clone() for name, value in ready.evaluated.state_dict().items()}


def test_wherever_it_stops_it_goes_on_from_a_whole_state(clips: ListedClips, tmp_path: Path) -> None:
    losses, weights = train(clips, str(tmp_path / "undisturbed"))
    assert len(losses) == 3
    for stopped_after in itertools.count():
        out, ended = str(tmp_path / str(stopped_after)), False
        with stopping(stopped_after), suppress(Stopped):
            train(clips, out)
            ended = True
        if ended:
            break
        found_losses, found = train(clips, out)
        assert found_losses == losses and all(torch.equal(found[name], weights[name]) for name in weights)
        assert storage.list_names(out) == ["history.json"]
    assert stopped_after > 30


def test_moments_come_back_in_the_layout_of_their_parameters(tmp_path: Path) -> None:
    """Fused kernels of a GPU refuse any other; those of a CPU compute something else."""
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        network = torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), fused=True)
        made.append((network, optimizer, state.TrainingState(network, optimizer, str(tmp_path), keep=1)))
    (network, optimizer, saved), (resumed, other, loaded) = made
    for step in range(4):
        if step == 2:
            saved.step = step
            saved.save()
            saved.wait()
            loaded.load()
        for net, optim in ((network, optimizer), (resumed, other))[: 1 if step < 2 else 2]:
            optim.zero_grad()
            net(torch.arange(50.0).view(1, 2, 5, 5)).square().mean().backward()
            optim.step()
    assert other.state[resumed.weight]["exp_avg"].stride() == resumed.weight.stride() != (18, 9, 3, 1)
    assert torch.equal(resumed.weight, network.weight)

"""Batches on their way to a GPU: what a CPU gets is untouched; on CUDA a copy overlaps with the step before it."""

from pathlib import Path

import pytest
import torch

from pipeline.errors import JobError
from tests.test_train_loader import LENGTH, Numbered, order
from train.data.loader import Batch, Loader
from train.data.order import Step
from train.data.prefetch import Prefetch
from train.trainer.context import Context
from train.trainer.loop import fit
from train.trainer.optim import OptimConfig
from train.trainer.performance import prepare
from train.trainer.step_clock import StepClock


def inputs(batch: Batch, step: Step) -> tuple[torch.Tensor, ...]:
    return (torch.full((len(batch.keys), 2), step.number),)


def loader(folder: Path, pin: bool = False) -> Loader:
    clips = Numbered(folder).listed
    return Loader(clips, order(clips), LENGTH, pin=pin, collate=inputs)


def test_on_a_cpu_a_batch_passes_through_with_what_was_made_of_it(tmp_path: Path) -> None:
    prefetch = Prefetch(torch.device("cpu"))
    for number, batch in enumerate(loader(tmp_path).batches(0, 7)):
        assert prefetch(batch) is batch
        assert batch.inputs[0].tolist() == [[number] * 2] * 4


def test_the_seed_of_a_step_is_that_of_earlier_versions(tmp_path: Path) -> None:
    steps = loader(tmp_path).order
    assert steps.keyed(7, 2) == Step(7, hash((3, 7, 2)) % 2**62)


def test_laps_of_a_step_are_times_of_this_thread() -> None:
    clock = StepClock(torch.device("cpu"))
    clock.start()
    for _ in range(3):
        clock.lap()
    laps = clock.laps
    times = clock.read(laps)
    assert sum(times) == pytest.approx(laps.moments[-1] - laps.moments[0]) and min(times) >= 0 and len(times) == 3


@pytest.mark.gpu
def test_batches_arrive_on_cuda_as_they_were(tmp_path: Path) -> None:
    device = torch.device("cuda")
    prefetch = Prefetch(device)
    for pinned, plain in zip(loader(tmp_path, pin=True).batches(0, 7), loader(tmp_path).batches(0, 7), strict=True):
        assert all(tensor.is_pinned() for tensor in (pinned.waveform, pinned.num_samples, pinned.valid, *pinned.inputs))
        moved = prefetch(pinned)
        for name in ("waveform", "num_samples", "valid"):
            found = getattr(moved, name)
            assert found.device.type == "cuda" and torch.equal(found.cpu(), getattr(plain, name))
        assert torch.equal(moved.inputs[0].cpu(), plain.inputs[0])


@pytest.mark.gpu
def test_this_thread_does_not_wait_for_a_step_on_cuda(tmp_path: Path) -> None:
    """Each step computes for 50 ms; the host is ahead by a step, so that a copy is issued while the GPU computes."""
    device = torch.device("cuda")
    cycles = int(0.05 * 1.5e9)
    launched: list[bool] = []
    ends: list[torch.cuda.Event] = []

    def backward(model: torch.nn.Module, batch: Batch, step: Step) -> torch.Tensor:
        launched.append(bool(ends) and not ends[-1].query())  # the step before still runs
        torch.cuda._sleep(cycles)
        value = model(batch.waveform.float()).square().mean()
        value.backward()
        ends.append(torch.cuda.Event())
        ends[-1].record()
        return value.detach()

    ready = prepare(torch.nn.Linear(LENGTH, 1), device)
    config = OptimConfig(epochs=1, batch_size=4, save_every_s=1e9)
    clips = Numbered(tmp_path, 80).listed
    feed = Loader(clips, order(clips), LENGTH, pin=True, collate=inputs)
    history = fit(ready, backward, feed, config, Context(device=device), str(tmp_path / "out"))
    assert len(history.loss) == 20 and sum(launched) >= 15
    (row,) = history.steps
    assert row["train/compute_time"] > 0.5 * row["train/batch_time"]
    parts = sum(row[f"train/{name}_time"] for name in ("data", "copy", "compute", "rest"))
    assert parts == pytest.approx(row["train/batch_time"], rel=0.05)


@pytest.mark.gpu
def test_a_bad_loss_on_cuda_reaches_no_weight(tmp_path: Path) -> None:
    device = torch.device("cuda")
    seen: list[torch.Tensor] = []

    def backward(model: torch.nn.Module, batch: Batch, step: Step) -> torch.Tensor:
        seen.append(model.weight.detach().clone())
        value = model(batch.waveform.float()).square().mean() * (float("nan") if step.number == 3 else 1.0)
        value.backward()
        return value.detach()

    net = torch.nn.Linear(LENGTH, 1)
    config = OptimConfig(epochs=2, batch_size=4, save_every_s=1e9)
    with pytest.raises(JobError, match="loss is nan at step 3;"):
        fit(prepare(net, device), backward, loader(tmp_path, pin=True), config, Context(device=device), str(tmp_path))
    assert len(seen) == 5 and torch.equal(seen[3], seen[4]) and torch.equal(net.weight.detach(), seen[3])

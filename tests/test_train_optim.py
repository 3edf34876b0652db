"""Schedules: by hand and by the released recipe; numbers that cannot be are named."""

import itertools
import math
from typing import Any

import pytest

from pipeline.errors import InputError
from train.trainer.optim import OptimConfig, exponential, schedule


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
    expected = {1: 6.4e-8, 7_790: 5e-4, 15_580: 8.9e-5, 31_160: 2.8e-6, 38_950: 5e-7}
    for count, lr in expected.items():
        assert exponential(count, 38_950, config) == pytest.approx(lr, rel=0.01)
    assert schedule(0, 38_950, config) == exponential(2, 38_950, config)
    assert schedule(38_949, 38_950, config) == pytest.approx(5e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "--optim.epochs 0"),
        ({"min_steps": -1}, "--optim.min-steps -1"),
        ({"lr": 0.0}, "--optim.lr"),
        ({"warmup_fraction": 2.0}, "--optim.warmup-fraction"),
        ({"decay": "exponential", "final_lr": 0.0}, "--optim.final-lr"),
        ({"swa_epochs": 21}, "--optim.swa-epochs 21: use 0 to the 20 epochs"),
        ({"ema_decay": 1.0}, "--optim.ema-decay 1.0"),
        ({"ema_decay": 0.9, "swa_epochs": 2}, "averages already"),
        ({"keep_states": 0}, "--optim.keep-states 0"),
    ],
)
def test_what_cannot_be_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OptimConfig(**change).check()


@pytest.mark.parametrize(("min_steps", "epochs"), [(0, 3), (30, 3), (31, 4), (100, 10), (101, 11)])
def test_whole_epochs_are_added_up_to_the_least_number_of_steps(min_steps: int, epochs: int) -> None:
    assert OptimConfig(epochs=3, min_steps=min_steps).num_epochs(steps_per_epoch=10) == epochs

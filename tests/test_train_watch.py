"""Where the numbers of a run go: real TensorBoard, W&B (offline) and MLflow (on disk) files; a page with curves."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import storage
from pipeline.errors import InputError
from tests.support.html_page import Page
from train.trainer import monitor, run_page
from train.trainer.history import EpochRecord, History
from train.trainer.monitor import Monitor, MonitorConfig, ScalarWriters, ThroughputSpec
from train.trainer.step_clock import StepTimes

SCALARS = {"train/loss": 2.5, "val/text_to_audio_R@1": 0.25}


def test_tensorboard_mlflow_and_wandb_get_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlruns")
    writers = ScalarWriters(MonitorConfig(wandb="blat", mlflow="blat"), str(tmp_path / "run"), {"lr": 1.0})
    for write in writers.all:
        write(SCALARS, 7)
    writers.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]} == {
        name: [(7, value)] for name, value in SCALARS.items()
    }
    (logged,) = mlflow.search_runs(experiment_names=["blat"], output_format="list")
    assert logged.data.metrics == {"train/loss": 2.5, "val/text_to_audio_R_at_1": 0.25}
    assert logged.data.params == {"lr": "1.0"} and logged.info.status == "FINISHED"
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_tensorboard_of_a_remote_run_is_published_at_its_end(s3: str) -> None:
    writers = ScalarWriters(MonitorConfig(), f"{s3}/watched", {})
    writers.all[0](SCALARS, 1)
    writers.close()
    (name,) = storage.list_names(f"{s3}/watched/tensorboard")
    assert name.startswith("events.")


def test_a_library_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(InputError, match=r"--watch.wandb 'p': needs `pip install -e '.\[tracking\]'`"):
        MonitorConfig(wandb="p").check()
    MonitorConfig().check()


def test_a_step_is_split_and_utilisation_is_a_share(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Four steps of 8 pairs on two workers in 2 s, beside 3 s of validation: 8 pairs a second and worker, half of 32
    FLOP/s. Each waits 0.125 s for data and copies and computes for 0.25 s; the same is left."""
    clock = iter([100.0, 100.5, 101.0, 101.0, 104.0, 104.5, 105.0])
    monkeypatch.setattr(monitor.time, "monotonic", lambda: next(clock))
    spec = ThroughputSpec(steps=8, steps_per_epoch=4, batch_size=8, world_size=2, flops_per_pair=2.0, peak_flops=32.0)
    written: list[dict[str, float]] = []
    rows: list[dict[str, float]] = []
    seen = Monitor(spec, [lambda scalars, step: written.append(dict(scalars))], rows, 0, True)
    caplog.set_level("INFO")
    for step in range(1, 5):
        if step == 3:
            with seen.paused():
                pass
        seen.step(step, float(step), 0.1, StepTimes(0.125, 0.0, 0.25), lambda: {"logit_scale": 14.0})
    assert written == [
        {
            "train/loss": 2.5,
            "train/lr": 0.1,
            "train/logit_scale": 14.0,
            "train/samples_per_second_per_gpu": 8.0,
            "train/batch_time": 0.5,
            "train/data_time": 0.125,
            "train/copy_time": 0.0,
            "train/compute_time": 0.25,
            "train/rest_time": 0.125,
            "train/mfu": 0.5,
        }
    ]
    assert rows == [{"step": 4, **written[0]}]
    assert "data 25 % + copy 0 % + compute 50 % + rest 25 %" in caplog.text


def test_percentages_add_up_to_100() -> None:
    random = np.random.default_rng(0)
    for parts in [*random.random((200, 4)), *(random.random((200, 4)) ** 5), [0.005, 0.005, 0.99, 0.0], [1, 1, 1, 0]]:
        found = monitor.percentages(list(parts))
        assert sum(found) == 100 and min(found) >= 0
        for percent, part in zip(found, parts, strict=True):
            assert abs(percent - 100 * part / sum(parts)) <= 1 + 1e-9


def test_the_page_shows_every_curve_and_escapes_names() -> None:
    history = History(
        loss=[3.0, 2.0, 1.0],
        steps=[{"step": 3, "train/loss": 2.0, "train/lr": 0.1}],
        epochs=[EpochRecord(epoch=1, step=3, loss=2.0, metrics={"text_to_audio_R@1": 0.5})],
        skipped={"<k>": "empty: 0 bytes"},
    )
    checkpoint = {"lineage": {"stage": "train pretrain", "num_clips": 3}, "revision": "f" * 64}
    page = run_page.page(history, checkpoint, {"out": "/x/my run", "optim": {"lr": 0.1}})
    shown = Page(page)
    shown.assert_loads_nothing()
    text = "".join(shown.texts)
    for words in ("train/loss: 1", "train/lr: 0.1", "val/text_to_audio_R@1: 0.5", "<k>", "optim.lr", "my run"):
        assert words in text, words
    assert len(shown.all("polyline")) == 1 and len(shown.all("circle")) == 2 and "<k>" not in page
    long = run_page.curve("x", [(step, float(step % 2)) for step in range(5000)])
    assert len(long.points) <= run_page.MAX_POINTS

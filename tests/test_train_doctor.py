"""What limits training: cases by hand, what must hold for any rates, and a real run."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.configs import DOCTOR as PIPELINE_DOCTOR
from pipeline.errors import InputError, JobError
from pipeline.stages import doctor as pipeline_doctor
from train.configs import DOCTOR, PRETRAIN
from train.launch import ScaleConfig
from train.stages import doctor
from train.stages.doctor import diagnosis
from train.stages.doctor.diagnosis import TrainingRates
from train.stages.doctor.measure import RATES_FILE, TRACE_FILE

GPU = TrainingRates(
    device="cuda a GPU", cores=16.0, batch=128, read_core_s=8e-3, read_wall_s=4e-3, processes=1, loader_wall_s=4e-3,
    step_s=0.128, step_core_s=0.064,
)  # fmt: skip


def test_a_fast_step_needs_more_processes() -> None:
    """The step takes 1 ms a clip, one process 4 ms: four of them are needed, and 16 cores read 2 clips a ms."""
    found = diagnosis.diagnose(GPU, workers=2, clips=500_000)
    assert found.limit == "processes" and found.samples_per_s == pytest.approx(500)
    assert found.eta_s == pytest.approx(1000) and found.gpu_hours == pytest.approx(2000 / 3600)
    assert found.flags == "--loader.processes 4" and found.advised_samples_per_s == pytest.approx(2000)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"loader_wall_s": 1e-4}, "step"),
        ({"read_wall_s": 0.5, "loader_wall_s": 0.5}, "store"),
        ({"cores": 1.0}, "decode"),
        ({"cores": 1.0, "step_core_s": 2.0}, "model"),
    ],
)
def test_the_limit_is_named(changes: dict[str, float], limit: str) -> None:
    found = diagnosis.diagnose(replace(GPU, **changes), 1, 1000)
    assert found.limit == limit and limit in diagnosis.LIMITS
    assert not found.flags or limit == "store"


@pytest.mark.parametrize("seed", range(200))
def test_whatever_was_measured_advice_helps(seed: int) -> None:
    rng = random.Random(seed)
    times = {
        name: 10 ** rng.uniform(-5, 0)
        for name in ("read_core_s", "read_wall_s", "loader_wall_s", "step_s", "step_core_s")
    }
    rates = replace(GPU, **times, processes=rng.randint(0, 16), cores=float(rng.choice([1, 2, 16])))
    found = diagnosis.diagnose(rates, rng.randint(1, 8), 10_000)
    assert found.advised_samples_per_s >= found.samples_per_s * (diagnosis.MIN_GAIN if found.flags else 1)
    loads = diagnosis.loads(rates, rates.processes)
    slowest = max(loads, key=lambda name: loads[name])
    allowed = {"reading": {"store", "processes"}, "cores": {"decode", "model"}, "step": {"step"}}
    assert found.limit in allowed[slowest]


def test_a_run_is_measured_and_nothing_else_is_left(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(DOCTOR["tiny"][1], data=(dataset,), out=str(tmp_path), seconds=2.0, trace=True)
    config = replace(config, loader=replace(config.loader, processes=1))
    doctor.run(config)
    assert {path.name for path in tmp_path.iterdir()} == {RATES_FILE, TRACE_FILE}
    found = json.loads((tmp_path / RATES_FILE).read_text())
    rates = TrainingRates(**found["rates"])
    assert rates.batch == config.optim.batch_size and rates.processes == 1
    assert min(rates.read_core_s, rates.read_wall_s, rates.step_s, rates.step_core_s, rates.loader_wall_s) > 0
    assert found == diagnosis.as_json(
        rates, diagnosis.diagnose(rates, 1, config.optim.epochs * (24 // rates.batch) * rates.batch)
    )
    kernels = {event.get("name") for event in json.loads((tmp_path / TRACE_FILE).read_text())["traceEvents"]}
    assert "aten::linear" in kernels or "aten::addmm" in kernels
    assert f"limit: {diagnosis.LIMITS[found['diagnosis']['limit']]}" in capsys.readouterr().out


def test_one_of_several_workers_is_measured_on_ray(ray_session: None, dataset: str, tmp_path: Path) -> None:
    config = replace(DOCTOR["tiny"][1], data=(dataset,), out=str(tmp_path), seconds=1.0)
    doctor.run(replace(config, scale=ScaleConfig(num_workers=2)))
    assert [path.name for path in tmp_path.iterdir()] == [RATES_FILE]
    found = json.loads((tmp_path / RATES_FILE).read_text())
    assert found["rates"]["batch"] == config.optim.batch_size / 2
    rates = TrainingRates(**found["rates"])
    assert found["diagnosis"]["samples_per_s"] == 2 * diagnosis.throughput(rates, rates.processes)


def test_the_pipeline_room_asks_this_one(dataset: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = replace(PIPELINE_DOCTOR["tiny"][1], data=(dataset,), training="tiny", seconds=1.0, out=str(tmp_path))
    pipeline_doctor.run(config)
    assert [path.name for path in tmp_path.iterdir()] == [RATES_FILE]
    assert "samples/s a core" in capfd.readouterr().out
    with pytest.raises(JobError, match="exit code 2"):
        pipeline_doctor.run(replace(config, data=(str(tmp_path / "nothing"),)))
    assert "nothing" in capfd.readouterr().err


def test_it_takes_the_flags_of_pretrain() -> None:
    assert DOCTOR.keys() == PRETRAIN.keys()
    with pytest.raises(InputError, match="--seconds 0"):
        doctor.run(doctor.DoctorConfig(seconds=0.0))

"""How fast each stage is: measured on real Ray tasks, and a message where it cannot be."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.__main__ import STAGES
from pipeline.cli import main
from pipeline.configs import CAPTION, PROBE
from pipeline.errors import InputError, JobError
from pipeline.planning import capacity
from pipeline.stages import probe
from pipeline.stages.probe import ProbeConfig, Timing


@pytest.fixture(scope="module")
def config(corpus: str, captioner: str) -> ProbeConfig:
    return dataclasses.replace(
        PROBE["tiny"][1], source=f"{corpus}/tagged_segments.csv", captioner=captioner, seconds=1.0
    )


def test_every_stage_is_measured_and_nothing_else_is_left(
    ray_session: None, config: ProbeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe.run(dataclasses.replace(config, out=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == [probe.RATES_FILE]
    rates = capacity.read_rates(str(tmp_path / probe.RATES_FILE))
    for stage in capacity.STAGES:
        timing = rates[stage]
        assert timing["clips"] >= 8 and timing["wall_s"] >= 1 / 3 and timing["cpu_s"] > 0
        assert timing["clips_per_s"] <= 2.001 * timing["clips"] / timing["wall_s"]  # two tasks share a core at most
    assert rates["clip"]["duration_s"] == 2.0 and rates["clip"]["failed_share"] == 0
    assert rates["about"]["captioner_revision"]
    assert "clips/s an actor, on x86_64 CPU" in capsys.readouterr().out or rates["about"]["device"]


def test_what_it_measured_can_be_estimated_with(ray_session: None, config: ProbeConfig, tmp_path: Path) -> None:
    probe.run(dataclasses.replace(config, out=str(tmp_path)))
    words = ["plan", "audioset", "--estimate", "--capacity.clips", "1000", "--capacity.rates", f"{tmp_path}/rates.json"]
    assert main("pipeline", "", STAGES, words) == 0


def test_cores_are_limited_by_arithmetic_or_by_waiting() -> None:
    assert Timing(clips=100, cpu_s=4.0, wall_s=5.0).clips_per_core_s(tasks_per_core=2) == 25.0
    assert Timing(clips=100, cpu_s=1.0, wall_s=5.0).clips_per_core_s(tasks_per_core=2) == 40.0


def test_clips_that_cannot_be_read_end_it(ray_session: None, config: ProbeConfig, corpus: str, tmp_path: Path) -> None:
    for name in ("tagged_segments.csv", "class_labels_indices.csv"):
        (tmp_path / name).write_bytes((Path(corpus) / name).read_bytes())
    broken = dataclasses.replace(config, source=str(tmp_path / "tagged_segments.csv"), out=str(tmp_path / "out"))
    with pytest.raises((JobError, InputError), match=r"can be read|no audio"):
        probe.run(broken)
    assert not list((tmp_path / "out").glob("*"))


def test_a_probe_takes_the_flags_of_caption() -> None:
    assert PROBE.keys() == CAPTION.keys()
    with pytest.raises(InputError, match="--seconds 0"):
        probe.run(ProbeConfig(seconds=0.0))

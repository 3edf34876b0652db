"""The doctor on real stages: what it measures, what it names as the limit, what it leaves behind."""

import dataclasses
import json
import logging
import os
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.__main__ import FORMER_NAMES, STAGES
from pipeline.cli import main
from pipeline.configs import CAPTION, DOCTOR
from pipeline.errors import InputError, JobError
from pipeline.graph.engine import ActorConfig
from pipeline.planning import capacity, diagnosis
from pipeline.stages import doctor
from pipeline.stages.doctor import DoctorConfig
from pipeline.stopwatch import Timing
from pipeline.storage import arrow
from pipeline.storage import s3 as store
from tests.support.chat_server import ChatServer
from tests.support.faults import FaultyProxy
from train.models.captioner.decoding import Decoding


@pytest.fixture(scope="module")
def config(corpus: str, captioner: str) -> DoctorConfig:
    return dataclasses.replace(
        DOCTOR["tiny"][1], source=f"{corpus}/tagged_segments.csv", captioner=captioner, seconds=1.0
    )


@pytest.fixture(scope="module")
def in_process(config: DoctorConfig) -> DoctorConfig:
    return dataclasses.replace(config, actors=ActorConfig(max=0))


def test_every_stage_is_measured_on_ray_and_traced(
    ray_session: None, config: DoctorConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor.run(dataclasses.replace(config, out=str(tmp_path), trace=True))
    traces = {doctor.RAY_TRACE_FILE, doctor.TORCH_TRACE_FILE}
    assert {path.name for path in tmp_path.iterdir()} == {doctor.RATES_FILE, *traces}
    rates = capacity.read_rates(str(tmp_path / doctor.RATES_FILE))
    for stage in capacity.STAGES:
        timing = rates[stage]
        assert timing["clips"] >= 8 and timing["wall_s"] > 0 and timing["cpu_s"] > 0
        assert timing["clips_per_s"] <= 2.001 * timing["clips"] / timing["wall_s"]  # two tasks share a core at most
    assert rates["clip"]["duration_s"] == 2.0 and rates["clip"]["failed_share"] == 0
    assert rates["about"]["captioner_revision"]
    assert rates["hardware"]["cores"] == 2 and rates["diagnosis"]["clips"] == 24
    assert set(rates["batches"]) == {"4", "8"}
    events = json.loads((tmp_path / doctor.RAY_TRACE_FILE).read_text())
    assert any("read_for" in event["name"] for event in events)
    kernels = {
        event.get("name") for event in json.loads((tmp_path / doctor.TORCH_TRACE_FILE).read_text())["traceEvents"]
    }
    assert "aten::linear" in kernels or "aten::addmm" in kernels
    printed = capsys.readouterr().out
    assert f"limit: {diagnosis.LIMITS[rates['diagnosis']['limit']]}" in printed and "time: " in printed


def test_what_it_measured_can_be_estimated_with(in_process: DoctorConfig, tmp_path: Path) -> None:
    doctor.run(dataclasses.replace(in_process, out=str(tmp_path), trace=True))
    assert {path.name for path in tmp_path.iterdir()} == {doctor.RATES_FILE, doctor.TORCH_TRACE_FILE}
    words = ["plan", "audioset", "--estimate", "--capacity.clips", "1000", "--capacity.rates", f"{tmp_path}/rates.json"]
    assert main("pipeline", "", STAGES, words) == 0


def test_clips_of_a_dataset_do_not_count(in_process: DoctorConfig, dataset: str, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    storage_files = {
        path.relative_to(dataset): path.read_bytes() for path in Path(dataset).rglob("*") if path.is_file()
    }
    for name, data in storage_files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    doctor.run(dataclasses.replace(in_process, out=str(out)))
    assert json.loads((out / doctor.RATES_FILE).read_text())["diagnosis"]["clips"] == 0
    with pytest.raises(InputError, match=r"--out .* holds another plan"):
        doctor.run(dataclasses.replace(in_process, out=str(out), clips_per_shard=5))


def test_a_slow_store_is_the_limit(
    in_process: DoctorConfig, corpus: str, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in Path(corpus).rglob("*"):
        if path.is_file():
            storage.publish(f"{s3}/doctor/{path.relative_to(corpus)}", path.read_bytes())
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"], share=0.0, delay_s=0.5) as proxy:
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            _connect_anew()
            source = f"{s3}/doctor/tagged_segments.csv"
            doctor.run(dataclasses.replace(in_process, source=source, out=str(tmp_path)))
        _connect_anew()
    rates = json.loads((tmp_path / doctor.RATES_FILE).read_text())
    assert rates["diagnosis"]["limit"] == "store"
    fetch = rates["parts"]["fetch"]
    assert fetch["wall_s"] >= 0.5 and fetch["core_s"] < 0.1 * fetch["wall_s"]


def _connect_anew() -> None:
    for connection in (arrow.connect, store._client):
        connection.cache_clear()


def test_clips_that_are_canonical_are_not_encoded(in_process: DoctorConfig, blat_data: Path, tmp_path: Path) -> None:
    """ESC-50 is WAV at 44.1 kHz: every clip is resampled and encoded."""
    pairs = {}
    for name, source in (("flac", in_process.source), ("wav", str(blat_data / "esc50"))):
        out = tmp_path / name
        doctor.run(dataclasses.replace(in_process, source=source, guidance=("none",), out=str(out)))
        rates = json.loads((out / doctor.RATES_FILE).read_text())
        pairs[name] = rates["clip"]["canonical_share"], rates["parts"]["encode"]["core_s"] > 0
    assert pairs == {"flac": (1.0, False), "wav": (0.0, True)}


def test_broken_clips_are_counted_and_said(
    in_process: DoctorConfig, corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in Path(corpus).rglob("*"):
        if path.is_file():
            target = tmp_path / "source" / path.relative_to(corpus)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    clips = sorted((tmp_path / "source").rglob("*.flac"))
    for clip in clips[::2]:
        clip.write_bytes(b"broken")
    broken = dataclasses.replace(
        in_process, source=str(tmp_path / "source/tagged_segments.csv"), out=str(tmp_path / "out")
    )
    doctor.run(broken)
    rates = json.loads((tmp_path / "out" / doctor.RATES_FILE).read_text())
    assert 0 < rates["clip"]["failed_share"] < 1 and rates["clip"]["failed"].keys() == {"not_audio"}
    assert "the job will fail" in capsys.readouterr().out
    for clip in clips:
        clip.write_bytes(b"broken")
    (tmp_path / "out" / doctor.RATES_FILE).unlink()
    with pytest.raises(JobError, match="can be captioned: not_audio"):
        doctor.run(broken)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(("bound", "sent"), [(5, 5), (100, 8)])
def test_an_endpoint_gets_the_requests_that_were_allowed(
    config: DoctorConfig, tmp_path: Path, bound: int, sent: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A shard of eight clips at most; without a bound nothing is sent."""
    with ChatServer(fault_every=0) as server, caplog.at_level(logging.INFO):
        asked = dataclasses.replace(
            config, captioner="openai:acme", captioner_url=server.url, decoding=Decoding(method="greedy"),
            actors=ActorConfig(max=0), out=str(tmp_path),
        )  # fmt: skip
        with pytest.raises(InputError, match="--max-requests 0: doctor sends nothing unasked"):
            doctor.run(asked)
        assert server.requests == 0 and not (tmp_path / doctor.RATES_FILE).exists()
        doctor.run(dataclasses.replace(asked, max_requests=bound))
        assert server.requests == sent
        assert f"doctor: sends up to {bound} requests to {server.url}" in caplog.text
    rates = json.loads((tmp_path / doctor.RATES_FILE).read_text())
    assert rates["caption"]["clips"] == sent and rates["caption"]["clips_per_s"] > 0
    assert rates["about"]["device"] == "served"


def test_cores_are_limited_by_arithmetic_or_by_waiting() -> None:
    assert Timing(clips=100, cpu_s=4.0, wall_s=5.0).clips_per_core_s(tasks_per_core=2) == 25.0
    assert Timing(clips=100, cpu_s=1.0, wall_s=5.0).clips_per_core_s(tasks_per_core=2) == 40.0


def test_it_takes_the_flags_of_caption_and_its_former_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert DOCTOR.keys() == CAPTION.keys()
    with pytest.raises(InputError, match="--seconds 0"):
        doctor.run(DoctorConfig(seconds=0.0))
    words = ["probe", "tiny", "--seconds", "0"]
    assert main("pipeline", "", STAGES, words, former_names=FORMER_NAMES) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == "pipeline probe: this stage is now named doctor" and "--seconds 0" in errors[-1]

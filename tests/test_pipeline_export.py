"""Plain tars for other programs: audio at the rate that a loader expects; on a real Ray."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset

from pipeline import audio
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError
from pipeline.stages import export
from pipeline.stages.export import ExportConfig


def peak_hz(samples: np.ndarray, rate_hz: int) -> float:
    """Return the strongest frequency of (T,) samples, to a hertz."""
    return float(np.abs(np.fft.rfft(samples, rate_hz)).argmax())


def test_export_at_another_rate_keeps_duration_and_pitch(dataset: str, tmp_path: Path) -> None:
    """As LAION-CLAP reads it: soundfile's samples, taken for 48 kHz whatever the header states."""
    index = ClipIndex(dataset)
    config = ExportConfig(data=dataset, out=str(tmp_path / "out"), clips_per_shard=10, rate=48_000)
    export.run(config)
    tars = {path.name: path.read_bytes() for path in sorted((tmp_path / "out").glob("*.tar"))}
    samples = list(webdataset.WebDataset([str(tmp_path / "out" / name) for name in tars], shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == index.keys
    for row, sample in enumerate(samples):
        read, stated_hz = soundfile.read(io.BytesIO(sample["flac"]), dtype="int16")
        original = audio.decode(index.flac(row))
        assert stated_hz == 48_000
        assert len(read) / 48_000 == pytest.approx(len(original) / 32_000, abs=1e-4)
        head = min(len(original) / 32_000, 1.0)
        pitch = peak_hz(original[: int(head * 32_000)], 32_000)
        assert peak_hz(read[: int(head * 48_000)], 48_000) == pytest.approx(pitch, abs=2)
        meta, before = json.loads(sample["json"]), index.meta(row)
        assert (meta.pop("sample_rate_hz"), meta.pop("num_samples")) == (48_000, len(read))
        assert meta == {name: before[name] for name in before if name not in ("sample_rate_hz", "num_samples")}
    (tmp_path / "out" / "00001.tar").unlink()
    export.run(config)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.tar")} == tars
    with pytest.raises(InputError, match="rate was 48000, now 32000"):
        export.run(dataclasses.replace(config, rate=32_000))
    with pytest.raises(InputError, match="--rate 48: use 8000 to 48000 Hz"):
        export.run(dataclasses.replace(config, rate=48))

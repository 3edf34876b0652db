"""`make gpu-check`: without a GPU it says so; its measurements run on the CPU with tiny sizes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.bench import gpu_check

BARE = """
import sys
sys.modules.update(ray=None, pyarrow=None, tyro=None, boto3=None, soundfile=None)
from tests import test_train_devices
from tests.bench import gpu_check
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_and_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == 2
    assert "no CUDA GPU" in capsys.readouterr().err


def test_it_needs_neither_ray_nor_pyarrow() -> None:
    subprocess.run([sys.executable, "-c", BARE], check=True)


def test_every_measurement_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = tmp_path / "BENCHMARKS.md"
    notes.write_text("# Benchmarks\n")
    assert gpu_check.main(["--device", "cpu", "--append", str(notes)]) == 0
    page = notes.read_text()
    assert page.startswith("# Benchmarks\n")
    for what in (
        "log-mel of PANNs",
        "resample",
        "mn04 | eager",
        "mn04 | compiled",
        "decode, beam",
        "decode, nucleus",
        "captioner training step, true words",
        "captioner training step, scheduled",
    ):
        assert f"| {what}" in page
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| training step, mn04")]
    assert {row[1] for row in rows} == {"eager", "compiled"}
    assert all(float(row[3]) > 0 and row[5] != "-" for row in rows)
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| pre-training step")]
    assert [(row[1], row[2]) for row in rows] == [
        (mode, batch) for mode in ("eager", "blocks compiled") for batch in ("2", "4")
    ]
    assert page.partition("\n")[2].strip() in capsys.readouterr().out

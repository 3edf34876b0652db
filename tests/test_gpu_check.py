"""`make gpu-check`: without a GPU it says so; its measurements run on the CPU with tiny sizes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.bench import gpu_check
from tests.bench.gpu_check import Stage
from tests.bench.gpu_table import QUICK, Bench, Row

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


def table(page: str) -> list[list[str]]:
    """The cells of the rows, without head."""
    return [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")][2:]


def test_every_measurement_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each in a row of the file that it is appended to, with a time; the same table ends what is printed."""
    notes = tmp_path / "BENCHMARKS.md"
    notes.write_text("# Benchmarks\n")
    assert gpu_check.main(["--device", "cpu", "--append", str(notes)]) == 0
    page = notes.read_text()
    assert page.startswith("# Benchmarks\n")
    assert page.partition("\n")[2].strip() in capsys.readouterr().out
    rows = table(page)
    assert all(float(row[3]) > 0 for row in rows)
    towers = "pre-training step, tiny + bert-medium"
    expected = {
        ("tests marked gpu", "passed"), ("decode, beam", "graph"), ("decode, beam", "eager"), ("tiny", "eager"),
        ("tiny", "compiled"), ("decode, greedy", "graph"), ("decode, nucleus", "graph"),
        ("GRU, whole clips", "eager"), ("GRU, clips of several lengths", "eager"),
        ("audio to caption, tiny, beam 3", "compiled"), (towers, "eager"), (towers, "compiled"),
        ("bare step", "eager"), ("log-mel of PANNs", "eager"), ("log-mel of EfficientAT", "eager"),
        ("filterbank of AST", "eager"), ("resample 44.1 to 32 kHz", "eager"),
        ("captioner training step, true words", "eager"), ("captioner training step, scheduled sampling", "eager"),
    }  # fmt: skip
    found = {(row[0], row[1].partition(" in ")[0]) for row in rows if row[0] != "trainer's loop"}
    assert found == expected
    assert [row[1].partition("% ")[2] for row in rows if row[0] == "trainer's loop"] == ["of the bare step"]
    assert all(row[5] != "-" for row in rows if row[0] == towers), "operations are counted"


def test_one_stage_runs_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--device", "cpu", "--only", "front-ends"]) == 0
    assert len(table(capsys.readouterr().out.rpartition("##")[2])) == 4


def test_a_stage_that_fails_costs_no_other_its_rows_and_a_late_one_says_what_it_leaves_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def breaks(bench: Bench) -> Iterator[Row]:
        yield Row("before", "eager", 1, 1.0)
        raise ValueError("an error")

    def is_late(bench: Bench) -> Iterator[Row]:
        for what in ("first", "second"):
            if bench.fits(what):
                yield Row(what, "eager", 1, 1.0)
            bench.deadline = 0.0

    bench = Bench(torch.device("cpu"), QUICK)
    stages = [Stage("one", 60, breaks), Stage("two", 60, is_late)]
    assert gpu_check.run(stages, bench) == ["one"]
    out, err = capsys.readouterr()
    assert "ValueError: an error" in err
    assert [row[0] for row in table(out)] == ["before", "first"]
    assert "left out: second" in out

"""What a report cannot read is one line that names it."""

import io
from pathlib import Path

import numpy as np
import pytest

import eval.__main__ as eval_room
from eval.report import headline
from eval.results.model_results import ModelResults
from eval.stages import report
from eval.stages.report import ReportConfig
from pipeline import cli
from pipeline.errors import InputError
from tests.test_eval_report import new_entry, run_of, write


def stored(**arrays: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)  # type: ignore[arg-type]
    return held.getvalue()


OUTCOMES = {"keys": np.array(list("abcd")), "scores": np.eye(4, 2), "truth": np.eye(4, 2, dtype=bool)}
WHOLE = stored(**OUTCOMES)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        WHOLE[:-30],
        WHOLE[:200] + bytes(60) + WHOLE[260:],
        stored(scores=np.eye(4)),
        stored(**OUTCOMES | {"keys": np.array(["a"])}),
        stored(**OUTCOMES | {"truth": np.eye(4, 3, dtype=bool)}),
        stored(keys=OUTCOMES["keys"], scores=np.eye(4)),
        stored(keys=np.array([{}])),
        WHOLE.replace(b"PK", b"KP"),
    ],
)
def test_damaged_outcomes_are_one_line(tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        write(tmp_path / name, run_of(linear_probe__esc50=new_entry()), linear_probe__esc50=OUTCOMES) for name in "ab"
    ]
    words = ["report", "demo", "--results", *folders, "--out", str(tmp_path / "report")]
    assert cli.main("eval", "", eval_room.STAGES, words) == 0
    (tmp_path / "b" / "outcomes" / "linear-probe-esc50.npz").write_bytes(data)
    capsys.readouterr()
    assert cli.main("eval", "", eval_room.STAGES, words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert (
        f"--results '{folders[1]}'" in line
        and "linear-probe-esc50.npz" in line
        and "run `linear-probe esc50` again" in line
    )


@pytest.mark.parametrize("lacking", ["n", "overlap", "ids_sha256"])
def test_an_entry_that_is_not_whole_is_one_line(tmp_path: Path, lacking: str) -> None:
    entry = {key: value for key, value in new_entry().items() if key != lacking}
    folder = write(tmp_path / "a", run_of(linear_probe__esc50=entry))
    with pytest.raises(
        InputError, match=rf"--results .*'linear-probe esc50' lacks {lacking}; run that evaluation again"
    ):
        report.run(ReportConfig(results=(folder,), out=str(tmp_path / "report")))


def test_an_evaluation_of_a_stage_that_is_not_known_has_no_headline() -> None:
    run = ModelResults.from_json(run_of(later__esc50=new_entry()))
    assert headline.build({"a": run}).lines == []


@pytest.mark.parametrize("sizes", [None, "{broken", '{"00000.tar": 9}'])
def test_captions_that_cannot_be_read_are_one_line(tmp_path: Path, sizes: str | None) -> None:
    (tmp_path / "data").mkdir()
    if sizes is not None:
        (tmp_path / "data" / "sizes.json").write_text(sizes)
    folder = write(tmp_path / "a", run_of(linear_probe__esc50=new_entry()))
    with pytest.raises(InputError, match=r"--captions .*cannot be read"):
        report.run(ReportConfig(results=(folder,), captions=(str(tmp_path / "data"),), out=str(tmp_path / "report")))

"""results.json: what is done already, what cannot be read or written, and the mean over folds."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from eval import report, results, tasks
from eval.report import ReportConfig
from pipeline import storage
from pipeline.cli import InputError
from tests import sounds50
from train.checkpoint import Checkpoint

ABOUT = Checkpoint(model=None, config={"lineage": {}, "network": {}}, revision="r" * 64)


@dataclass(frozen=True)
class Config:
    """Of a stage."""

    task: str = "esc50"
    batch_size: int = 8


def source(folder: str) -> str:
    return results.source(*(lambda task, clips: (task, folder, clips))(*tasks.read("esc50", folder, ())))


def publish(out: str, **entry: object) -> None:
    results.publish(
        out, "zero-shot esc50", ABOUT, "build/model", {"config": storage.plain(vars(Config())), **entry}, {}
    )


def test_an_evaluation_is_done_for_the_clips_it_read_and_no_others(tmp_path: Path) -> None:
    here = sounds50.write(tmp_path / "esc50", per_fold=1)
    more = sounds50.write(tmp_path / "other" / "esc50", per_fold=2)
    out, first = str(tmp_path / "out"), source(str(here))
    assert not results.done(out, "zero-shot esc50", Config(), first)
    publish(out)
    assert not results.done(out, "zero-shot esc50", Config(), first), "it is not known what it read"
    results.remember(out, "zero-shot esc50", first)
    assert results.done(out, "zero-shot esc50", Config(), source(str(here)))
    assert results.done(out, "zero-shot esc50", Config(batch_size=64), first)
    assert not results.done(out, "zero-shot esc50", Config(task="x"), first)
    assert not results.done(out, "zero-shot esc50", Config(), source(str(more)))


def test_a_dataset_that_is_completed_or_changed_later_is_another_source(tmp_path: Path) -> None:
    folder = sounds50.write(tmp_path / "esc50", per_fold=1)
    clip, table = next((folder / "audio").iterdir()), folder / "meta" / "esc50.csv"
    data, whole = clip.read_bytes(), source(str(folder))
    clip.unlink()
    lacking = source(str(folder))
    clip.write_bytes(data[:-2])
    cut = source(str(folder))
    table.write_text(table.read_text().replace("low_hum", "high_hum"))
    assert len({whole, lacking, cut, source(str(folder))}) == 4


def test_in_a_bucket_it_is_told_which_clips_are_there(s3: str, tmp_path: Path) -> None:
    local, remote = sounds50.write(tmp_path / "esc50", per_fold=1), f"{s3}/esc50"
    files = [local / "meta" / "esc50.csv", *(local / "audio").iterdir()]
    for file in files[:-1]:
        storage.publish(f"{remote}/{file.relative_to(local)}", file.read_bytes())
    lacking = source(remote)
    storage.publish(f"{remote}/{files[-1].relative_to(local)}", files[-1].read_bytes())
    assert source(remote) == source(remote) != lacking


@pytest.mark.parametrize("held", ["{broken", "[]", '{"model": 3, "results": {}}', "\udcff"])
def test_results_that_cannot_be_read_are_named_with_the_remedy(tmp_path: Path, held: str) -> None:
    (tmp_path / "results.json").write_bytes(held.encode("utf-8", "surrogateescape"))
    attempts = {
        "--results": lambda: report.run(ReportConfig(results=(str(tmp_path),), out=str(tmp_path / "report"))),
        "--out": lambda: publish(str(tmp_path)),
    }
    for flag, attempt in attempts.items():
        with pytest.raises(InputError, match=rf"{flag}.*results\.json.*delete it"):
            attempt()
    with pytest.raises(InputError, match="delete it"):
        results.check(str(tmp_path), "r" * 64)


def test_a_place_that_cannot_be_written_to_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for check in (lambda out: results.check(out, "r"), lambda out: report.run(ReportConfig(results=("x",), out=out))):
        with pytest.raises(InputError, match=r"--out.*cannot be written"):
            check(str(tmp_path / "file" / "out"))
    results.check(str(tmp_path / "new"), "r")
    assert list((tmp_path / "new").iterdir()) == []


def test_results_in_a_closed_folder_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(uri: str) -> bool:
        raise PermissionError(13, "Permission denied", uri)

    monkeypatch.setattr(storage, "exists", refused)
    with pytest.raises(InputError, match=r"--results.*Permission denied"):
        report.run(ReportConfig(results=("closed",), out=str(tmp_path / "report")))


def test_the_mean_over_folds_is_not_the_number_over_clips(tmp_path: Path) -> None:
    per_fold = {name: results.metric(value) for name, value in (("1", 0.5), ("2", 0.7), ("3", 0.9))}
    publish(str(tmp_path), per_fold=per_fold)
    entry = results.read(str(tmp_path))["results"]["zero-shot esc50"]
    assert entry["over_folds"] == {"value": 0.7, "sd": 0.2, "n": 3}
    assert results.over_folds({}) == results.over_folds({"test": results.metric(0.5)}) == {}

"""Every evaluation of a model by one command, on a folder of datasets; what it says of leaks and of what fails."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import eval.__main__ as eval_room
from eval import results, zero_shot
from eval.zero_shot import ZeroShotConfig
from pipeline import cli
from tests import sounds50
from train import checkpoint


def suite(model: str, tasks: Path, out: Path, *more: str) -> int:
    words = ["suite", "tiny", "--model", model, "--task-dir", str(tasks), "--out", str(out), "--batch-size", "8", *more]
    return cli.main("eval", "", eval_room.STAGES, words)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two datasets: ESC-50 as published, and Clotho with one clip that is not there."""
    folder = tmp_path_factory.mktemp("datasets")
    sounds50.write(folder / "ESC-50-master")
    clotho = folder / "clotho"
    (clotho / "evaluation").mkdir(parents=True)
    files = sorted((folder / "ESC-50-master" / "audio").iterdir())[:6]
    with open(clotho / "clotho_captions_evaluation.csv", "w", newline="") as text:
        table = csv.writer(text)
        table.writerow(["file_name", *(f"caption_{i}" for i in range(1, 6))])
        for number, file in enumerate(files):
            table.writerow([f"clip {number}.wav", *(f"sound {number} told {i} times" for i in range(1, 6))])
            if number:
                (clotho / "evaluation" / f"clip {number}.wav").write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module")
def leaky(clap: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that says it was trained on two clips of the first fold."""
    uri = str(tmp_path_factory.mktemp("leaky") / "leaky")
    checkpoint.save(uri, checkpoint.load(clap).model, {}, ["1-1000-A-0", "1-1001-A-0", "elsewhere"])
    return uri


@pytest.fixture(scope="module")
def done(leaky: str, datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "run"
    stages = ("--stages", "zero-shot", "retrieval", "linear-probe", "finetune")
    assert suite(leaky, datasets, out, *stages, "--recipe.optim.epochs", "12", "--recipe.optim.lr", "0.02") == 0
    return out


def test_everything_that_is_there_and_fits_is_run(done: Path) -> None:
    found = json.loads((done / "results.json").read_text())["results"]
    assert set(found) == {"zero-shot esc50", "retrieval clotho", "linear-probe esc50", "finetune esc50"}
    probe, tuned = found["linear-probe esc50"], found["finetune esc50"]
    for entry in (probe, tuned):
        assert entry["n"] == entry["num_listed"] == 36 and set(entry["per_fold"]) == set(sounds50.FOLDS)
        assert np.array(entry["confusion"]).sum() == 36 and len(entry["per_class"]) == 3
        assert entry["accuracy"]["value"] > 0.6 > entry["accuracy"]["chance"]
        assert entry["versions"]["torch"] and entry["config"]["task"] == "esc50"
    mean = np.mean([metric["value"] for metric in probe["per_fold"].values()])
    assert probe["accuracy"]["value"] == pytest.approx(mean, abs=1e-5)
    assert all(each["penalty"] > 0 for each in probe["chosen"].values())
    clotho = found["retrieval clotho"]
    assert (clotho["n"], clotho["num_listed"], clotho["num_captions"]) == (5, 6, 25)
    assert clotho["missing"] == {"clip_0": "missing"}
    shot = found["zero-shot esc50"]
    assert set(shot["accuracy"]) == {"{}", "the sound of {}", "this is a sound of {}", "ensemble"}
    assert {"top5", "map", "mauc", "d_prime"} <= set(shot)


def test_clips_that_were_trained_on_are_told_and_starred(done: Path) -> None:
    found = json.loads((done / "results.json").read_text())["results"]
    assert {entry["overlap"]["model"] for name, entry in found.items() if "esc50" in name} == {2}
    assert found["retrieval clotho"]["overlap"]["model"] == 0
    table = (done / "report" / "report.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("|") and ": " in line]
    assert len(rows) == 7  # three of ESC-50, with the zero-shot mAP hidden, four of Clotho
    assert all(("\\*" in row) == ("esc50" in row) for row in rows), table
    assert "trained on 2 of the 36 clips" in table
    assert (done / "report" / "report.html").exists() and (done / "report" / "report.tex").exists()


def test_the_same_command_runs_nothing_again(leaky: str, datasets: Path, done: Path) -> None:
    before = json.loads((done / "results.json").read_text())["results"]
    assert suite(leaky, datasets, done, "--stages", "zero-shot", "linear-probe") == 0
    after = json.loads((done / "results.json").read_text())["results"]
    assert after == before, "evaluated_at would tell"
    config = ZeroShotConfig(model=leaky, task="esc50", task_dir=str(datasets / "ESC-50-master"), out=str(done))
    assert results.done(str(done), "zero-shot esc50", config)
    other = ZeroShotConfig(**{**vars(config), "prompts": ("a {}",)})
    assert not results.done(str(done), "zero-shot esc50", other)


def test_outcomes_give_the_figure_back(done: Path) -> None:
    found = json.loads((done / "results.json").read_text())["results"]
    for name in ("linear-probe esc50", "finetune esc50"):
        with np.load(done / "outcomes" / f"{name.replace(' ', '-')}.npz", allow_pickle=False) as kept:
            assert len(set(kept["keys"].tolist())) == 36
            assert kept["accuracy"].mean() == pytest.approx(found[name]["accuracy"]["value"], abs=1e-6)


def test_one_evaluation_that_fails_does_not_stop_the_others(
    clap: str, datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All audio of one of two datasets is gone: the other's figures are written, the command ends with 1."""
    folder = tmp_path / "datasets"
    sounds50.write(folder / "esc50", per_fold=1)
    (folder / "clotho").mkdir()
    table = (datasets / "clotho" / "clotho_captions_evaluation.csv").read_bytes()
    (folder / "clotho" / "clotho_captions_evaluation.csv").write_bytes(table)
    assert suite(clap, folder, tmp_path / "out", "--stages", "zero-shot", "retrieval") == 1
    assert "retrieval clotho" in (told := capsys.readouterr().err) and "could be read" in told
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())["results"]) == {"zero-shot esc50"}
    assert (tmp_path / "out" / "report" / "report.html").exists()


def test_a_folder_without_a_task_is_told(clap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suite(clap, tmp_path, tmp_path / "out") == 2
    assert "--task-dir" in capsys.readouterr().err


def test_folds_go_to_ray_and_give_the_same(
    ray_session: None, clap: str, datasets: Path, done: Path, tmp_path: Path
) -> None:
    assert suite(clap, datasets, tmp_path / "out", "--stages", "linear-probe", "--workers", "2") == 0
    here, there = (
        json.loads((folder / "results.json").read_text())["results"]["linear-probe esc50"]
        for folder in (done, tmp_path / "out")
    )
    assert here["per_fold"] == there["per_fold"] and here["chosen"] == there["chosen"]


def test_prompts_that_say_nothing_are_refused(clap: str, datasets: Path, tmp_path: Path) -> None:
    config = ZeroShotConfig(
        model=clap, task="esc50", task_dir=str(datasets / "ESC-50-master"), out=str(tmp_path), prompts=("sound",)
    )
    with pytest.raises(cli.InputError, match="--prompts"):
        zero_shot.run(config)

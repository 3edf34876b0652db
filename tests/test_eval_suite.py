"""Every evaluation of a model by one command, on a folder of datasets; what it says of leaks and of what fails."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import eval.__main__ as eval_room
from eval import results
from eval.stages import zero_shot
from eval.stages.zero_shot import ZeroShotConfig
from pipeline import cli, errors, storage
from tests.support import sounds50
from train import checkpoint
from train.models.configs import TaggerConfig
from train.models.encoders.configs import MobileNetConfig
from train.models.tagger import Tagger


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
            table.writerow([f"clip {number}.wav", *(f"sound {number}, caption {i}" for i in range(1, 6))])
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
    found = results.read(str(done))["results"]
    assert set(found) == {"zero-shot esc50", "retrieval clotho", "linear-probe esc50", "finetune esc50"}
    probe, tuned = found["linear-probe esc50"], found["finetune esc50"]
    for entry in (probe, tuned):
        assert entry["n"] == entry["num_listed"] == 36 and set(entry["per_fold"]) == set(sounds50.FOLDS)
        assert np.array(entry["confusion"]).sum() == 36 and len(entry["per_class"]) == 3
        assert entry["accuracy"]["value"] > 0.6 > entry["accuracy"]["chance"]
        assert entry["versions"]["torch"] and entry["config"]["task"] == "esc50"
    mean = np.mean([metric["value"] for metric in probe["per_fold"].values()])
    assert probe["accuracy"]["value"] == pytest.approx(mean, abs=1e-5)
    assert probe["over_folds"]["value"] == pytest.approx(mean, abs=1e-5) and tuned["over_folds"]["n"] == 3
    assert all(each["penalty"] > 0 for each in probe["chosen"].values())
    clotho = found["retrieval clotho"]
    assert (clotho["n"], clotho["num_listed"], clotho["num_captions"]) == (5, 6, 25)
    assert clotho["missing"] == {"clip_0": "missing"}
    shot = found["zero-shot esc50"]
    assert set(shot["accuracy"]) == {"{}", "the sound of {}", "this is a sound of {}", "ensemble"}
    for name in ("accuracy", "top5", "map", "mauc", "d_prime"):
        assert all("interval95" in metric for metric in shot[name].values())


def test_clips_that_were_trained_on_are_told_and_starred(done: Path) -> None:
    found = results.read(str(done))["results"]
    assert {entry["overlap"]["model"] for name, entry in found.items() if "esc50" in name} == {2}
    assert found["retrieval clotho"]["overlap"]["model"] == 0
    table = (done / "report" / "report.md").read_text()
    parts = [[line for line in part.splitlines() if line[:1] == "|" and ": " in line] for part in table.split("**More")]
    assert len(parts[0]) == 7  # three of ESC-50, with the zero-shot mAP hidden, four of Clotho
    assert len(parts[1]) == 18  # four, two and two of ESC-50, ten of Clotho
    assert all(("\\*" in row) == ("esc50" in row) for row in [*parts[0], *parts[1]]), table
    assert "trained on 2 of the 36 clips" in table
    assert (done / "report" / "report.html").exists() and (done / "report" / "report.tex").exists()


def test_the_same_command_runs_nothing_again(leaky: str, datasets: Path, done: Path) -> None:
    before = results.read(str(done))["results"]
    assert suite(leaky, datasets, done, "--stages", "zero-shot", "linear-probe") == 0
    after = results.read(str(done))["results"]
    assert after == before, "evaluated_at would tell"
    source = after["zero-shot esc50"]["source_sha256"]
    config = ZeroShotConfig(model=leaky, task="esc50", task_dir=str(datasets / "ESC-50-master"), out=str(done))
    assert results.done(str(done), "zero-shot esc50", config, source)
    other = ZeroShotConfig(**{**vars(config), "prompts": ("a {}",)})
    assert not results.done(str(done), "zero-shot esc50", other, source)


def test_other_clips_and_clips_that_came_later_are_evaluated(clap: str, datasets: Path, tmp_path: Path) -> None:
    def evaluated(folder: Path) -> dict[str, Any]:
        assert suite(clap, folder, tmp_path / "out", "--stages", "zero-shot", "retrieval", "--tasks", folder.name) == 0
        return results.read(str(tmp_path / "out"))["results"]

    small, clotho = sounds50.write(tmp_path / "small" / "esc50", per_fold=1), tmp_path / "data" / "clotho"
    large = sounds50.write(tmp_path / "large" / "esc50", per_fold=2)
    assert evaluated(small)["zero-shot esc50"]["n"] == 9 and evaluated(large)["zero-shot esc50"]["n"] == 18
    shutil.copytree(datasets / "clotho", clotho)
    assert evaluated(clotho)["retrieval clotho"]["n"] == 5
    shutil.copyfile(clotho / "evaluation" / "clip 1.wav", clotho / "evaluation" / "clip 0.wav")
    assert evaluated(clotho)["retrieval clotho"]["n"] == 6


def test_outcomes_give_the_figure_back(done: Path) -> None:
    found = results.read(str(done))["results"]
    for name in ("linear-probe esc50", "finetune esc50"):
        with np.load(done / "outcomes" / f"{name.replace(' ', '-')}.npz", allow_pickle=False) as kept:
            assert len(set(kept["keys"].tolist())) == 36
            assert kept["accuracy"].mean() == pytest.approx(found[name]["accuracy"]["value"], abs=1e-6)
    with np.load(done / "outcomes" / "retrieval-clotho.npz", allow_pickle=False) as kept:
        for way in ("text_to_audio", "audio_to_text"):
            for recall in ("R@1", "R@10"):
                value = found["retrieval clotho"][way][recall]["value"]
                assert kept[f"{way} {recall}"].mean() == pytest.approx(value, abs=1e-6)


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
    assert "retrieval clotho" in (message := capsys.readouterr().err) and "could be read" in message
    assert set(results.read(str(tmp_path / "out"))["results"]) == {"zero-shot esc50"}
    assert (tmp_path / "out" / "report" / "report.html").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("odd shape"), KeyError("x")])
def test_whatever_one_evaluation_runs_into_does_not_stop_the_others(
    error: Exception, clap: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def broken(_config: object) -> None:
        raise error

    monkeypatch.setattr(zero_shot, "run", broken)
    assert suite(clap, datasets, tmp_path / "out", "--stages", "zero-shot", "retrieval") == 1
    assert "zero-shot esc50" in (message := capsys.readouterr().err) and str(error.args[-1]) in message
    assert set(results.read(str(tmp_path / "out"))["results"]) == {"retrieval clotho"}
    assert (tmp_path / "out" / "report" / "report.html").exists()


def test_a_folder_that_cannot_be_looked_into_does_not_stop_the_others(
    clap: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """As root reads everything, the refusal is played."""
    there = storage.exists

    def refused(uri: str) -> bool:
        if "/clotho/" in uri:
            raise PermissionError(13, "Permission denied", uri)
        return there(uri)

    monkeypatch.setattr(storage, "exists", refused)
    assert suite(clap, datasets, tmp_path / "out", "--stages", "zero-shot", "retrieval") == 1
    assert (
        "clotho" in (message := capsys.readouterr().err)
        and "Permission denied" in message
        and "Traceback" not in message
    )
    assert set(results.read(str(tmp_path / "out"))["results"]) == {"zero-shot esc50"}
    assert suite(clap, datasets, tmp_path / "out", "--stages", "zero-shot", "--tasks", "esc50") == 0


def test_an_out_that_cannot_be_written_to_is_one_line(clap: str, datasets: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    assert suite(clap, datasets, tmp_path / "file" / "out") == 2
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert "--out" in message and "cannot be written" in message


def test_a_folder_without_a_task_is_told(clap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suite(clap, tmp_path, tmp_path / "out") == 2
    assert "--task-dir" in capsys.readouterr().err


def test_what_is_left_out_is_told_and_no_failure(
    clap: str, datasets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A test table alone leaves the probe nothing to learn from; GTZAN without lists has no splits."""
    files = sorted((datasets / "ESC-50-master" / "audio").iterdir())[:6]
    (tmp_path / "data" / "vggsound" / "audio").mkdir(parents=True)
    for number, file in enumerate(files):
        genre = tmp_path / "data" / "gtzan" / "genres" / ("rock", "jazz")[number % 2]
        genre.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, genre / f"{genre.name}.{number:05d}.wav")
        shutil.copyfile(file, tmp_path / "data" / "vggsound" / "audio" / f"abcdefghij{number}_000010.wav")
    table = "".join(f"abcdefghij{number}_000010.mp4,{('dog', 'cat')[number % 2]}\n" for number in range(6))
    (tmp_path / "data" / "vggsound" / "vggsound_test.csv").write_text(table)
    (tmp_path / "data" / "audiocaps").mkdir()
    (tmp_path / "data" / "audiocaps" / "test.csv").write_text("audiocap_id,youtube_id,start_time,caption\n")
    caplog.set_level("INFO")
    assert suite(clap, tmp_path / "data", tmp_path / "out", "--tasks", "vggsound", "gtzan") == 0
    found = results.read(str(tmp_path / "out"))["results"]
    assert set(found) == {"zero-shot vggsound", "zero-shot gtzan"}
    message = "\n".join(line for line in caplog.messages if "leaves out" in line)
    for name in ("linear-probe vggsound: there is nothing to train on", "linear-probe gtzan: there is nothing"):
        assert name in message
    assert "retrieval gtzan, captioning gtzan" in message and "the clips have no captions" in message
    assert "finetune gtzan" in message and "only where --stages names it" in message


def test_a_tagger_is_told_what_it_lacks(datasets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    network = Tagger(TaggerConfig(audio=MobileNetConfig(width=0.1, num_classes=2)), ["a", "b"])
    checkpoint.save(str(tmp_path / "tagger"), network.eval(), {}, [])
    caplog.set_level("INFO")
    assert suite(str(tmp_path / "tagger"), datasets, tmp_path / "out") == 0
    message = "\n".join(caplog.messages)
    assert "leaves out zero-shot esc50: of a tagger it needs --text-encoder" in message
    assert "leaves out retrieval clotho: it needs two towers, and this is a tagger" in message


def test_folds_narrow_what_is_evaluated_and_not_what_there_is_to_choose_from(clap: str, tmp_path: Path) -> None:
    """The config `any` takes all folds; of one fold with one class the chance is still one in three."""
    folder = sounds50.write(tmp_path / "esc50", per_fold=1)
    table = folder / "meta" / "esc50.csv"
    kept = [line for line in table.read_text().splitlines() if ",3," not in line or "low_hum" in line]
    table.write_text("\n".join(kept))
    words = ["--task", "esc50", "--task-dir", str(folder), "--model", clap, "--out", str(tmp_path / "out")]

    def shot(*more: str) -> dict[str, Any]:
        assert cli.main("eval", "", eval_room.STAGES, ["zero-shot", "any", *words, *more]) == 0
        return results.read(str(tmp_path / "out"))["results"]["zero-shot esc50"]

    one, every = shot("--folds", "3"), shot()
    assert one["n"] == 1 and one["accuracy"]["ensemble"]["chance"] == pytest.approx(1 / 3, abs=1e-5)
    assert every["n"] == 7 and len(every["per_fold"]) == 3 and "per_fold" not in one
    mean = np.mean([metric["value"] for metric in every["per_fold"].values()])
    assert every["over_folds"]["value"] == pytest.approx(mean, abs=1e-5)


def test_folds_go_to_ray_and_give_the_same(ray_session: None, clap: str, datasets: Path, tmp_path: Path) -> None:
    found = []
    for workers in ("0", "2"):
        out = tmp_path / workers
        assert suite(clap, datasets, out, "--stages", "linear-probe", "--workers", workers) == 0
        found.append(results.read(str(out))["results"]["linear-probe esc50"])
    here, there = found
    assert here["per_fold"] == there["per_fold"] and here["chosen"] == there["chosen"]


def test_prompts_that_say_nothing_are_refused(clap: str, datasets: Path, tmp_path: Path) -> None:
    config = ZeroShotConfig(
        model=clap, task="esc50", task_dir=str(datasets / "ESC-50-master"), out=str(tmp_path), prompts=("sound",)
    )
    with pytest.raises(errors.InputError, match="--prompts"):
        zero_shot.run(config)

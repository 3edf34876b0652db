"""Fine-tuning on a task whose audio is not all there: missing clips are named, the rest is trained and tested."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from eval import results
from eval.configs import FINETUNE
from eval.stages import finetune
from eval.stages.finetune import FinetuneTaskConfig
from pipeline.errors import JobError
from tests.support import sounds50
from train import checkpoint
from train.trainer.optim import OptimConfig

LABELS = {"Hum": 200, "Tone": 900, "Whistle": 4_000}


def tune(model: str, task: str, folder: Path, out: Path) -> dict[str, Any]:
    """Fine-tune after the best linear layer, as the configs for real data do; return its results."""
    config: FinetuneTaskConfig = FINETUNE["tiny"][1]
    schedule = OptimConfig(epochs=1, batch_size=8, lr=1e-9)
    recipe = dataclasses.replace(config.recipe, probe_first=True, keep_statistics=True, optim=schedule)
    finetune.run(dataclasses.replace(config, model=model, task=task, task_dir=str(folder), out=str(out), recipe=recipe))
    return dict(results.read(str(out))["results"][f"finetune {task}"])


def files_by_fold(folder: Path) -> dict[str, list[Path]]:
    """Divide ESC-50's clips over four folds; return their files."""
    table, found = folder / "meta" / "esc50.csv", dict[str, list[Path]]()
    with open(table, newline="") as text:
        head, *rows = csv.reader(text)
    for i, row in enumerate(rows):
        row[1] = str(1 + i % 4)
        found.setdefault(row[1], []).append(folder / "audio" / row[0])
    with open(table, "w", newline="") as text:
        csv.writer(text).writerows([head, *rows])
    return found


def fsd50k(folder: Path) -> dict[str, list[Path]]:
    """Write a folder in FSD50K's official layout, a pitch for each label; return the files of each split."""
    found: dict[str, list[Path]] = {}
    dev, tested = ["fname,labels,mids,split"], ["fname,labels,mids"]
    for i in range(45):
        label, split = list(LABELS)[i % 3], ("train", "train", "train", "val", "test")[i // 3 % 5]
        part = "eval" if split == "test" else "dev"
        (tested if part == "eval" else dev).append(f"{i},{label},/m/x" + (f",{split}" if part == "dev" else ""))
        file = folder / f"FSD50K.{part}_audio" / f"{i}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, 0.3 * np.sin(2 * np.pi * LABELS[label] * np.arange(32_000) / 32_000), 32_000)
        found.setdefault(split, []).append(file)
    (folder / "FSD50K.ground_truth").mkdir()
    (folder / "FSD50K.ground_truth" / "dev.csv").write_text("\n".join(dev) + "\n")
    (folder / "FSD50K.ground_truth" / "eval.csv").write_text("\n".join(tested) + "\n")
    return found


def test_a_fold_that_is_gone_is_left_out_and_counted(clap: str, tmp_path: Path) -> None:
    folder = sounds50.write(tmp_path / "esc50")
    files = files_by_fold(folder)
    for file in files["4"]:
        file.unlink()
    for file in files["1"][:3]:  # far more than `--loader.max-bad-fraction` would skip
        file.write_bytes(b"")
    found = tune(clap, "esc50", folder, tmp_path / "out")
    assert (found["n"], found["num_listed"]) == (24, 36) and set(found["per_fold"]) == {"1", "2", "3"}
    assert found["fold_rule"] == "ESC-50 official folds, 3 of 5 folds"
    assert set(found["missing"]) == {file.stem for file in (*files["1"][:3], *files["4"])}
    assert found["missing"][files["4"][0].stem] == "missing"
    trained = checkpoint.trained_on(str(tmp_path / "out" / "finetune-esc50" / "2"))
    assert trained == {file.stem for file in (*files["1"][3:], *files["3"])}


def test_clips_of_every_official_split_may_be_gone(clap: str, tmp_path: Path) -> None:
    files = fsd50k(tmp_path / "fsd50k")
    gone = [files["train"][1], files["val"][0], files["test"][2]]
    gone[0].write_bytes(b"")
    for file in gone[1:]:
        file.unlink()
    found = tune(clap, "fsd50k", tmp_path / "fsd50k", tmp_path / "out")
    assert (found["n"], found["num_listed"]) == (8, 9) and set(found["missing"]) == {file.stem for file in gone}
    assert found["map"]["value"] > 0.5
    best = str(tmp_path / "out" / "finetune-fsd50k" / "test" / "best")
    assert checkpoint.selected_on(best) == {file.stem for file in files["val"][1:]}


def test_nothing_is_trained_where_no_clip_can_be_read(clap: str, tmp_path: Path) -> None:
    folder = sounds50.write(tmp_path / "esc50", per_fold=1)
    for file in (folder / "audio").iterdir():
        file.unlink()
    with pytest.raises(JobError, match="none of 9 clips could be read"):
        tune(clap, "esc50", folder, tmp_path / "out")
    assert not (tmp_path / "out" / "finetune-esc50").exists()

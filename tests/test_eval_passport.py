"""`eval passport`: a checkpoint under several protocols, each with its difference from ours on the same clips."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import eval.__main__ as eval_room
from eval import results
from eval.embedding.protocols import ONE_AT_A_TIME, PUBLISHED
from eval.embedding.view import View
from pipeline import cli
from pipeline.sources import AudioLocation
from tests.support import sounds50
from tests.support.html_page import Page

RAMP = np.arange(1, 8, dtype=np.int16)  # seven samples


@pytest.mark.parametrize(
    ("view", "length", "wanted"),
    [
        (View(), 3, [1, 2, 3, 4, 5, 6, 7]),
        (View(crop="first"), 3, [1, 2, 3]),
        (View(crop="middle"), 3, [3, 4, 5]),
        (View(crop="first"), 9, [1, 2, 3, 4, 5, 6, 7]),
        (View(fill="zeros"), 9, [1, 2, 3, 4, 5, 6, 7, 0, 0]),
        (View(fill="repeat"), 16, [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 0, 0]),
        (View(fill="repeat"), 3, [1, 2, 3, 4, 5, 6, 7]),
        (View(fill="loop"), 16, [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 1, 2]),
    ],
)
def test_what_a_view_does_to_samples(view: View, length: int, wanted: list[int]) -> None:
    assert view.fit(RAMP, length).tolist() == wanted


def test_a_random_crop_is_a_part_and_the_same_in_every_run() -> None:
    rng, view, starts = np.random.default_rng(0), View(crop="random"), set()
    for _ in range(40):
        samples = rng.integers(-30_000, 30_000, 100).astype(np.int16)
        part = view.fit(samples, 20)
        (start,) = (at for at in range(81) if np.array_equal(samples[at : at + 20], part))
        assert np.array_equal(view.fit(samples.copy(), 20), part)
        starts.add(start)
    assert len(starts) > 20


def test_audio_through_a_low_rate_loses_what_is_above(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "high.wav", 0.5 * np.sin(2 * np.pi * 6_000 * np.arange(32_000) / 32_000), 32_000)
    location = AudioLocation(str(tmp_path / "high.wav"))
    levels = {}
    for through_hz in (0, 8_000, 16_000):
        samples = View(through_hz=through_hz).read(location, 32_000)
        assert not isinstance(samples, str) and len(samples) == 32_000
        levels[through_hz] = float(np.abs(samples[4_000:-4_000]).mean())
    assert levels[16_000] == pytest.approx(levels[0], rel=0.01) and levels[8_000] < 0.01 * levels[0]


def test_views_have_names_of_their_own() -> None:
    names = [View(length_s=10, crop=crop, fill=fill, through_hz=rate).name  # type: ignore[arg-type]
             for crop in ("", "first", "random") for fill in ("", "repeat") for rate in (0, 8_000)]  # fmt: skip
    assert len(set(names)) == 12 and View().name == ""


def passport(model: str, tasks: Path, out: Path, *words: str) -> int:
    line = ["passport", *words, "--model", model, "--task-dir", str(tasks), "--out", str(out), "--batch-size", "8"]
    return cli.main("eval", "", eval_room.STAGES, line)


def test_a_passport_of_esc50(clap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ours is the number of `eval zero-shot`, folds are its folds, and a second run changes nothing."""
    sounds50.write(tmp_path / "esc50")
    out = tmp_path / "out"
    where = ["--model", clap, "--task-dir", str(tmp_path / "esc50"), "--out", str(out)]
    assert cli.main("eval", "", eval_room.STAGES, ["zero-shot", "any", "--task", "esc50", *where]) == 0
    assert passport(clap, tmp_path / "esc50", out, "esc50") == 0
    shown = capsys.readouterr().out
    found = results.read(str(out))["results"]
    entry, zero_shot = found["passport esc50"], found["zero-shot esc50"]
    protocols: dict[str, dict[str, Any]] = entry["protocols"]
    assert protocols["ours"]["ours"]["number"] == zero_shot["accuracy"]["ensemble"]
    assert protocols["prompt"]["class name alone"]["number"] == zero_shot["accuracy"]["{}"]
    folds = {name: each["number"]["value"] for name, each in protocols["fold"].items()}
    assert folds == {f"fold {fold} alone": each["value"] for fold, each in zero_shot["per_fold"].items()}
    assert set(protocols) == {"ours", "published protocol", *ONE_AT_A_TIME, "fold"}
    assert set(protocols["published protocol"]) == set(PUBLISHED)
    for factor in ONE_AT_A_TIME:
        for name, each in protocols[factor].items():
            moved = each["number"]["value"] - zero_shot["accuracy"]["ensemble"]["value"]
            assert each["difference"]["value"] == pytest.approx(moved, abs=2e-6), name
            assert each["difference"]["differs"] in ("yes", "no"), "two numbers of one checkpoint need no other run"
            assert name in shown
    shown = " ".join(Page((out / "passport-esc50.html").read_text()).texts)
    assert "transformers" in shown and all(name in shown for name in PUBLISHED)
    assert passport(clap, tmp_path / "esc50", out, "esc50") == 0
    assert results.read(str(out))["results"]["passport esc50"]["evaluated_at"] == entry["evaluated_at"]


def test_a_protocol_that_changes_no_clip_is_marked(clap: str, tmp_path: Path) -> None:
    """The clips are shorter than the model's five seconds: a crop leaves them as they are, padding does not."""
    sounds50.write(tmp_path / "esc50", per_fold=2)
    long = tmp_path / "esc50" / "audio" / "1-1000-A-0.wav"
    soundfile.write(long, soundfile.read(long)[0][: sounds50.RATE_HZ], sounds50.RATE_HZ)
    assert passport(clap, tmp_path / "esc50", tmp_path / "out", "esc50") == 0
    protocols = results.read(str(tmp_path / "out"))["results"]["passport esc50"]["protocols"]
    marked = {name for factor in protocols.values() for name, each in factor.items() if "changes_no_clip" in each}
    assert marked == set(ONE_AT_A_TIME["crop"])
    assert (tmp_path / "out" / "passport-esc50.html").read_text().count("changes no clip") == 3


def test_clips_of_several_labels_are_tagged(clap: str, tmp_path: Path) -> None:
    """Where clips have two labels the number is mAP."""
    clips = sounds50.write(tmp_path / "esc50", per_fold=1)
    files = sorted((clips / "audio").iterdir())
    rows = [f"{file},{'low|high' if i % 2 else 'low|middle'}" for i, file in enumerate(files)]
    (tmp_path / "clips.csv").write_text("\n".join(["file,labels", *rows]))
    assert passport(clap, tmp_path / "clips.csv", tmp_path / "out", "any", "--task", "mine") == 0
    entry = results.read(str(tmp_path / "out"))["results"]["passport mine"]
    assert entry["number"] == "map" and "fold" not in entry["protocols"]
    assert "mAP" in Page((tmp_path / "out" / "passport-mine.html").read_text()).texts


def test_a_task_without_classes_is_one_line(clap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8_000), 8_000)
    (tmp_path / "clips.csv").write_text("file,labels\na.wav,dog\n")
    assert passport(clap, tmp_path / "clips.csv", tmp_path / "out", "any", "--task", "mine") == 2
    assert "its clips have 1 classes; at least 2 are needed" in capsys.readouterr().err

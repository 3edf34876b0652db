"""Right captions against wrong ones: pairs and numbers by hand, a model without ears, and the stage on the tiny corpus."""

from pathlib import Path

import numpy as np
import pytest

from eval import results
from eval.report import headline
from eval.results.model_results import ModelResults
from eval.stages import compositional, report
from eval.stages.compositional import CompositionalConfig, Pairs, make_pairs, measure
from eval.stages.report import ReportConfig
from eval.tasks import TASKS
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from tests.support.html_page import Page
from train.metrics.foils import Statement

AXES = {"x": [1.0, 0.0], "y": [0.0, 1.0], "-x": [-1.0, 0.0]}


def vectors(texts: list[str]) -> np.ndarray:
    return np.array([AXES[text] for text in texts], np.float32)


def clip(key: str, tags: tuple[str, ...], *captions: str) -> Clip:
    return Clip(key=key, source_id=key, uri=f"{key}.wav", tags=tags, captions=captions)


def test_the_pairs_of_two_clips_by_hand() -> None:
    labels = ["Bell", "Rain", "Siren"]
    clips = [
        clip("a", ("Rain", "Bell"), "rain falls, then a bell tolls", "rain falls"),
        clip("b", ("Bell", "Siren"), "a bell tolls and then a siren wails", "after a bell, a siren wails"),
    ]
    found = make_pairs(clips, labels, TASKS["synth"])
    assert {kind: pairs.clip.tolist() for kind, pairs in found.items()} == {
        "order": [0, 1, 1],
        "presence": [0, 0, 1, 1],
        "negation": [0, 0, 1, 1],
    }
    assert found["order"].texts[0] == ("rain falls, then a bell tolls", "a bell tolls, then rain falls")
    assert found["presence"].texts[:2] == [("bell and rain", "bell and siren"), ("rain and bell", "rain and siren")]
    assert found["negation"].texts[2:] == [
        ("siren without rain", "siren without bell"),
        ("bell without rain", "bell without siren"),
    ]
    assert list(make_pairs(clips, [], TASKS["audiocaps"])) == ["order"]


def test_a_clip_counts_the_share_of_its_pairs_and_a_tie_a_half() -> None:
    """The first clip gets one of two pairs right, the second ties in its only one: (1/2 + 1/2) / 2; a third is right."""
    audio = vectors(["x", "y", "x"])
    pairs = Pairs(
        np.array([0, 0, 1, 2]), [Statement("x", "y"), Statement("y", "x"), Statement("x", "-x"), Statement("x", "y")]
    )
    found = measure(audio, pairs, vectors)
    assert found.share.tolist() == [0.5, 0.5, 1.0]
    assert found.metrics["accuracy"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert found.metrics["accuracy"]["chance"] == 0.5


def test_a_model_that_ignores_the_audio_shows_in_the_controls() -> None:
    """All clips have one vector, and the right text is closer: right also with the audio of others, by no more."""
    pairs = Pairs(np.arange(5), [Statement("x", "y")] * 5)
    numbers = measure(np.array([[0.8, 0.6]] * 5), pairs, vectors).metrics
    assert [numbers[name]["value"] for name in ("accuracy", "shuffled", "margin")] == [1.0, 1.0, 0.5]


def test_a_model_that_understands_is_above_chance_with_its_own_clips_only() -> None:
    """Half of the clips are x, half y: another clip agrees with the wrong text in 2 of 3 exchanges."""
    names = ["x", "y"] * 2
    texts = [Statement(name, {"x": "y", "y": "x"}[name]) for name in names]
    numbers = measure(vectors(names), Pairs(np.arange(4), texts), vectors).metrics
    assert numbers["accuracy"]["value"] == 1.0 and numbers["accuracy"]["interval95"] == [1.0, 1.0]
    assert numbers["shuffled"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert numbers["margin"]["value"] == pytest.approx((2 + 0.5) / 3, abs=1e-6)


def test_the_stage_on_the_tiny_corpus_and_in_the_report(corpus: str, clap: str, tmp_path: Path) -> None:
    """An untrained model: every kind has its numbers over the clips with an order, as outcomes and in the report."""
    out = str(tmp_path / "results")
    compositional.run(CompositionalConfig(task="synth", task_dir=corpus, model=clap, out=out))
    held = results.read(out)
    entry = held["results"]["compositional synth"]
    for kind in ("order", "presence", "negation"):
        for name in ("accuracy", "shuffled", "margin"):
            assert 0 <= entry[kind][name]["value"] <= 1 and len(entry[kind][name]["interval95"]) == 2
    assert 2 <= entry["n"] == entry["num_listed"]
    stored = np.load(results.outcomes_uri(out, "compositional synth"))
    assert stored["order"].mean() == pytest.approx(entry["order"]["accuracy"]["value"], abs=1e-6)
    assert all(len(stored[name]) == entry["n"] for name in ("keys", "order", "presence", "negation"))
    lines = headline.build({"model": ModelResults.from_json(held)}).lines
    assert [line.number.title for line in lines][:2] == ["order", "order, shuffled clips"]
    assert {line.chance for line in lines} == {"50.0"}
    report.run(ReportConfig(results=(out,), out=str(tmp_path / "report")))
    page = Page((tmp_path / "report" / "report.html").read_text())
    assert any("negation, shuffled clips" in text for text in page.texts)


def test_a_task_without_an_order_is_refused(clap: str, tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("file,caption\n" + "".join(f'{i}.wav,"rain {i}"\n' for i in range(3)))
    config = CompositionalConfig(
        task="mine", task_dir=str(tmp_path / "clips.csv"), model=clap, out=str(tmp_path / "out")
    )
    with pytest.raises(InputError, match=r"--task-dir .*fewer than 2 of its clips have a caption that names an order"):
        compositional.run(config)

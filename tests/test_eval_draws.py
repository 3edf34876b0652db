"""Draws in a report: runs of other clips each, paired by name, compared by Student's t over the draws."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from eval import metrics
from eval.results import draws, recipe
from eval.stages import report
from eval.stages.report import ReportConfig
from pipeline import storage
from pipeline.errors import InputError
from tests.test_eval_report import metric, run_of, write, zero_shot

NAME = "zero-shot esc50"


def write_draws(folder: Path, hits: dict[str, np.ndarray]) -> str:
    """Write one run for each draw, of one model, whose clips are those of the draw alone."""
    folder.mkdir()
    for draw, right in hits.items():
        share = round(float(right.mean()), 6)
        found = {**zero_shot(), "accuracy": {"{}": metric(share), "ensemble": metric(share)}, "ids_sha256": draw}
        found["confusion"] = [[1]]
        keys = np.array([f"{draw}-{row}" for row in range(len(right))])
        write(folder / draw, run_of(zero_shot__esc50=found), zero_shot__esc50={"keys": keys, "accuracy": right})
    return str(folder)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    both = [{f"seed{d}": (rng.random(40 + d) < rate).astype(float) for d in range(5)} for rate in (0.4, 0.8)]
    return write_draws(tmp_path / "a", both[0]), write_draws(tmp_path / "b", both[1])


def test_the_difference_is_that_of_a_paired_t_test_over_draws(pair: tuple[str, str], tmp_path: Path) -> None:
    report.run(ReportConfig(results=pair, draws=True, out=str(tmp_path / "report")))
    held = storage.read_json(str(tmp_path / "report" / "results.json"))
    one, two = (held[name]["results"][NAME]["accuracy"]["ensemble"] for name in "ab")
    found = held["b"]["differences"][NAME]["accuracy"]
    test = scipy.stats.ttest_rel(two["runs"], one["runs"])
    assert found["value"] == pytest.approx(two["value"] - one["value"], abs=1e-5)
    assert found["interval95_runs"] == pytest.approx([*test.confidence_interval()], abs=1e-5)
    assert found["p"] == pytest.approx(test.pvalue, rel=1e-2) and found["differs"] == "yes"
    assert (found["runs"], found["n"]) == ([5, 5], 40 + 41 + 42 + 43 + 44)
    assert one["sd_runs"] == pytest.approx(np.std(one["runs"], ddof=1), abs=1e-5)
    assert "confusion" not in held["a"]["results"][NAME], "its classes differ between draws"
    assert "a (5 draws)" in (tmp_path / "report" / "report.md").read_text()


def test_the_interval_over_clips_is_of_all_draws_together(tmp_path: Path) -> None:
    """Five draws of one set of outcomes under other names: the clips of a draw are five times as few."""
    rng = np.random.default_rng(1)
    gains = [(rng.random(300) < rate).astype(float) for rate in (0.4, 0.6)]
    folders = [
        write_draws(tmp_path / name, {f"seed{d}": hits.reshape(5, 60)[d] for d in range(5)})
        for name, hits in zip("ab", gains, strict=True)
    ]
    one, two = (recipe.read(folder, "--results", draws=True).folders_with(NAME) for folder in folders)
    found = draws.recipes(one, two, NAME)["accuracy"]
    whole = gains[1] - gains[0]
    low, high = metrics.bootstrap(lambda rows: float(whole[rows].mean()), len(whole))
    assert found["interval95"] == pytest.approx([low, high], abs=0.02)


def test_draws_without_a_partner_are_left_out_and_runs_of_other_clips_need_the_flag(pair: tuple[str, str]) -> None:
    first, other = (recipe.read(folder, "--results", draws=True).folders_with(NAME) for folder in pair)
    alone = draws.recipes({"seed0": first["seed0"]}, other, NAME)["accuracy"]
    assert alone["differs"] == "not known: one run" and alone["n"] == 40
    assert draws.recipes({"x": first["seed0"]}, other, NAME) == {"unavailable": "the two have no draw of the same name"}
    with pytest.raises(InputError, match=r"are one model.* or --draws to the report"):
        recipe.read(pair[0], "--results")

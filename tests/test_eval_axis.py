"""The line charts of a report: headline numbers over a quantity that the recipes differ in."""

import re
from pathlib import Path
from typing import Any

import pytest

from eval.report import axis as axes
from eval.report.axis import Axis, LineChart
from eval.stages import report
from eval.stages.report import ReportConfig
from pipeline.errors import InputError
from tests.support.html_page import Page
from tests.test_eval_recipes import write_recipe
from tests.test_eval_report import built, run_of, typed, zero_shot


def drawn(*values: float, at: tuple[float, ...], chance: float | None = 0.5) -> LineChart:
    entries = [
        {**zero_shot(), "accuracy": {"ensemble": {"value": v, "interval95": [v - 0.05, v + 0.05], "chance": chance}}}
        for v in values
    ]
    runs = {f"r{i}": run_of(zero_shot__esc50=entry) for i, entry in enumerate(entries)}
    places = Axis(title="clips", values=dict(zip(runs, at, strict=True)))
    return axes.chart(built(runs).lines[0], typed(runs), places)


def points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]


def test_equal_factors_are_equal_distances_in_any_order_of_the_folders() -> None:
    rising, mixed = drawn(0.6, 0.7, 0.8, at=(10, 100, 1000)), drawn(0.8, 0.6, 0.7, at=(1000, 10, 100))
    (a, _), (b, _), (c, _) = points(rising.mean)
    assert a < b < c and b - a == pytest.approx(c - b, abs=0.11)
    assert (mixed.mean, mixed.band, mixed.x_ticks) == (rising.mean, rising.band, rising.x_ticks)
    assert [label for _, label in rising.x_ticks] == ["10", "100", "1,000"]


def test_the_band_lies_around_the_means_and_all_is_inside_the_frame() -> None:
    found = drawn(0.6, 0.9, at=(1, 2))
    mean, band = points(found.mean), points(found.band)
    for x, y in mean:
        above, below = sorted(edge for at, edge in band if at == x)
        assert above < y < below and y - above == pytest.approx(below - y, abs=0.21)
    assert all(0 <= x <= axes.WIDTH and axes.TOP <= y <= axes.HEIGHT - axes.BOTTOM for x, y in [*mean, *band])
    assert mean[0][1] > mean[1][1], "a larger number stands higher"
    assert [label for _, label in found.y_ticks] == ["50", "60", "70", "80", "90", "100"]


@pytest.mark.parametrize(("chance", "shown"), [(0.55, True), (0.05, False), (None, False)])
def test_chance_is_drawn_where_it_is_on_the_scale(chance: float | None, shown: bool) -> None:
    assert (drawn(0.6, 0.9, at=(1, 2), chance=chance).chance is not None) == shown


def test_one_recipe_stands_in_the_middle() -> None:
    ((x, _),) = points(drawn(0.6, at=(32,)).mean)
    assert abs(x - axes.WIDTH / 2) < 20


def test_an_axis_in_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"small": [0.4, 0.5], "middle": [0.6, 0.7, 0.65], "large": [0.9]}
    folders = tuple(write_recipe(tmp_path / name, rates, seed=i) for i, (name, rates) in enumerate(sizes.items()))
    config = ReportConfig(results=folders, axis=(32, 128, 640), axis_title="clips <5 s", out=str(tmp_path / "report"))
    report.run(config)
    shown = Page(html := (tmp_path / "report" / "report.html").read_text())
    shown.assert_loads_nothing()
    assert "Over clips <5 s" in shown.texts and "<5" not in re.sub("&lt;5", "", html)
    charts = [attributes for attributes in shown.all("svg") if "lines" in attributes.get("class", "").split()]
    assert len(charts) == len(shown.all("polygon")) == len(shown.all("polyline")) == 1
    assert len(shown.all("circle")) == 6, "a dot for each run"
    assert "middle (3 runs, clips <5 s 128)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "title", "message"),
    [
        ((32.0,), "clips", r"--axis .*one number for each of the 2 --results"),
        ((32.0, 64.0, 96.0), "clips", r"--axis .*one number for each of the 2 --results"),
        ((0.0, 32.0), "clips", r"--axis .*above 0"),
        ((-1.0, 32.0), "clips", r"--axis .*above 0"),
        ((float("nan"), 32.0), "clips", r"--axis .*above 0"),
        ((float("inf"), 32.0), "clips", r"--axis .*above 0"),
        ((32.0, 32.0), "clips", r"--axis .*the same number"),
        ((32.0, 64.0), "", r"--axis-title is missing"),
        ((), "clips", r"--axis is missing"),
    ],
)
def test_an_axis_that_cannot_be_drawn_is_one_line(
    tmp_path: Path, values: tuple[float, ...], title: str, message: str
) -> None:
    settings: dict[str, Any] = {"axis": values, "axis_title": title, "out": str(tmp_path / "report")}
    with pytest.raises(InputError, match=message):
        report.run(ReportConfig(results=("a", "b"), **settings))

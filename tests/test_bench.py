"""`make bench` measures with tiny sizes what it measures with full ones; no figure is judged."""

import re
from dataclasses import replace

import pytest

from tests.bench import __main__ as bench
from tests.bench.ratio import Row, Spread, alternate
from tests.bench.sizes import TINY
from tests.check_words import MAX_COLUMNS


def row(median, **target):
    return Row(what="a", ours="b", found=Spread(median, median, median), **target)


@pytest.mark.parametrize(
    ("median", "target", "verdict"),
    [
        (0.9, {"at_least": 0.85}, "met"),
        (0.8, {"at_least": 0.85}, "missed"),
        (7.0, {"at_most": 8.0}, "met"),
        (9.0, {"at_most": 8.0}, "missed"),
        (1.0, {}, ""),
    ],
)
def test_a_median_is_judged_by_its_target(median, target, verdict):
    assert row(median, **target).verdict == verdict


def test_a_pair_is_measured_in_turn_and_compared_pair_by_pair():
    calls, load = [], iter([1, 1, 10, 10, 2, 2])  # a load of the machine meets both of a pair

    def ours():
        calls.append("ours")
        return 6.0 / next(load)

    def peer():
        calls.append("peer")
        return 3.0 / next(load)

    found = alternate(ours, peer, 3)
    assert calls == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert found.ratio == Spread(2.0, 2.0, 2.0)
    assert found.ours == Spread(3.0, 0.6, 6.0)


def test_tiny_sizes_go_through_every_measurement(tmp_path):
    names = [name for name in bench.MEASUREMENTS if "ray" not in name]
    rows = list(bench.measure(names, replace(TINY, picture=tmp_path / "growth.svg")))
    assert len(rows) >= 2 * len(names)
    assert len({each.what for each in rows}) == len(rows)
    for each in rows:
        assert each.found.low <= each.found.median <= each.found.high
        assert re.search(r"\d", each.ours)
        assert each.markdown().count("|") == bench.HEAD.partition("\n")[0].count("|")
        assert max(map(len, [each.markdown(), *each.detail().splitlines()])) <= MAX_COLUMNS
    assert "retrieval metric" in (tmp_path / "growth.svg").read_text()


@pytest.mark.ray
def test_what_goes_through_ray_ends_with_all_that_was_missing_written():
    captioned = list(bench.measure(["caption-ray"], replace(TINY, ray=True)))
    resumed = list(bench.measure(["ray-checkpoint"], replace(TINY, ray=True, clips=200)))
    assert [each.at_least for each in captioned] == [0.85, 0.45]
    assert len(resumed) == 1  # its runs check what they wrote


def test_the_table_is_appended_with_machine_versions_and_commit(tmp_path, capsys):
    target = tmp_path / "BENCHMARKS.md"
    target.write_text("# Benchmarks\n")
    bench.main(["--tiny", "--only", "actor", "--append", str(target)])
    text = target.read_text()
    assert text.startswith("# Benchmarks\n\n### `make bench`, 20")
    assert re.search(r"\d+ cores of .*, \d+ GiB, GPU: .*\n- commit [0-9a-f]{7}", text)
    assert re.search(r"torch 2\.\S+, ray 2\.", text)
    assert capsys.readouterr().out.rstrip() in text.replace("\n\n- the actor", "\n- the actor")
    assert max(map(len, text.splitlines())) <= MAX_COLUMNS

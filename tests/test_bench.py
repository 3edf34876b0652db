"""`make bench` measures with tiny sizes what it measures with full ones; no figure is judged."""

import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from pipeline.graph import engine
from tests.bench import __main__ as bench
from tests.bench import arrivals, first_shard
from tests.bench.arrivals import Arrivals
from tests.bench.ratio import Row, Spread, alternate, measure_in_turn
from tests.bench.sizes import TINY
from tests.bench.warm_ray import warm_ray
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


def test_three_are_measured_in_turn_and_backwards_every_other_time():
    calls = []

    def measure(name):
        return lambda: calls.append(name) or len(calls)

    assert measure_in_turn([measure("a"), measure("b"), measure("c")], 2) == [[1, 6], [2, 5], [3, 4]]
    assert "".join(calls) == "abccba"


def test_the_whole_rate_counts_from_the_start_to_the_last_shard():
    assert arrivals.whole_rate(Arrivals(10.0, [(14.0, 6), (15.0, 6), (16.0, 3)])) == 15 / 6


def test_the_steady_rate_leaves_out_start_up_and_a_burst_at_the_end():
    slow = [(float(second), 1) for second in range(10)]  # a shard of one clip each second: the first half
    steady = [(9 + 2.0 * number, 64) for number in range(1, 3)]  # 32 clips a second: the window
    burst = [(13.1, 500)] * 8
    assert arrivals.steady_rate(Arrivals(-5.0, slow + steady + burst)) == 32
    assert arrivals.steady_rate(Arrivals(0.0, [(0.5 * number, 64) for number in range(40)])) == 128


@pytest.mark.parametrize("num_shards", [0, 1, 16])
def test_a_job_that_is_too_short_has_no_steady_rate(num_shards):
    with pytest.raises(ValueError, match="no steady window"):
        arrivals.steady_rate(Arrivals(0.0, [(float(number), 64) for number in range(num_shards)]))


def test_the_rate_of_a_job_in_process_is_that_of_its_slowest_step():
    """Reading is the slowest, so that finished shards wait in the steps after it; sleeping takes nearly all of the time."""

    def read(table):
        time.sleep(read_s)
        return table

    def write(table):
        return table.append_column("written", [[4]])

    def run(num_shards):
        steps = [engine.Tasks(function) for function in (read, lambda table: table, write)]
        return arrivals.collect(engine.rows(range(num_shards), *steps, in_process=True))

    read_s = 0.0
    run(1)  # what is imported at first use
    read_s = 0.2
    job = run(20)
    assert [clips for _, clips in job.shards] == [4] * 20
    assert arrivals.whole_rate(job) == pytest.approx(4 * engine.CONCURRENT / read_s, rel=0.25)


@pytest.mark.parametrize("status", [0, 3])
def test_a_command_that_ends_without_a_shard_ends_the_wait(tmp_path, status):
    log = tmp_path / "log"
    log.write_text("its last words")
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({status})"])
    with pytest.raises(RuntimeError, match=rf"ended with {status}:\nits last words"):
        first_shard.wait_for_commit(process, tmp_path / "out", log)


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
    assert TINY.picture is None  # so that no trial overwrites the picture of the repository
    assert "retrieval metric" in (tmp_path / "growth.svg").read_text()


@pytest.mark.ray
def test_what_goes_through_ray_ends_with_all_that_was_missing_written():
    with warm_ray():  # both measurements on one cluster
        rows = list(bench.measure(["caption-ray", "ray-checkpoint"], replace(TINY, ray=True, clips=200)))
    assert [each.at_least for each in rows[:4]] == [0.85, None, 0.45, None]
    assert len(rows) == 5  # the runs of the last check what they wrote


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

"""What a caption job takes: cases by hand, what must grow with what, and the requests as an S3 server counts them."""

import dataclasses
import json
import math
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import storage
from pipeline.__main__ import STAGES
from pipeline.cli import main
from pipeline.configs import CAPTION
from pipeline.dataset import commit
from pipeline.errors import InputError
from pipeline.graph import engine
from pipeline.graph.finalize import finalize
from pipeline.graph.reader import Reader
from pipeline.graph.shard_batch import ShardBatch
from pipeline.graph.write_shard import write_shard
from pipeline.planning import capacity
from pipeline.planning.capacity import CapacityConfig, estimate
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.planning.draft import draft_plan
from pipeline.planning.publish import publish_plan
from pipeline.quality import audio_filter
from tests.support.faults import FaultyProxy

RATES = {"read": 50, "caption": 100, "write": 200}


def sized(clips: int, **fields: Any) -> capacity.CapacityEstimate:
    return estimate(clips, 500, RATES, CapacityConfig(**fields))


def test_a_case_by_hand() -> None:
    """7,200,000 clips at 100 a second are 20 hours of one actor; in 5 hours that is 4 actors."""
    found = sized(7_200_000, hours=5.0, gpus_per_node=3, cores_per_node=4)
    assert (found.actors, found.gpu_nodes, found.hours) == (4, 2, 5.0)
    assert found.shards == 14_400
    assert found.cores == pytest.approx(400 / 50 + 400 / 200)  # 8 to read, 2 to write
    assert found.cpu_nodes == 3
    assert found.audio_h == 20_000 and found.output_gb == pytest.approx(2880)
    assert found.gpu_object_store_gb == pytest.approx(3 * 6 * 0.32)  # 500 clips of 10 s, 64 kB a second
    assert found.cpu_object_store_gb == pytest.approx(4 * 2 * 0.32)
    assert not found.cost and not found.warnings


def test_it_counts_with_what_the_graph_asks_for() -> None:
    """Copies, because planning knows no engine."""
    assert capacity.SHARDS_AHEAD == engine.IN_FLIGHT + engine.CONCURRENT
    assert capacity.TASKS_PER_CORE * engine.TASK_CPUS == 1
    assert capacity.TASK_GB == engine.TASK_MEMORY / 2**30


def test_costs_are_amounts_times_prices() -> None:
    prices = {"gpu_node_price": 3.0, "cpu_node_price": 0.5, "storage_price": 0.02, "write_price": 0.005}
    found = sized(7_200_000, hours=5.0, **prices)
    assert found.cost == pytest.approx(
        {
            "GPU nodes": 4 * 5 * 3.0,
            "CPU nodes": 1 * 5 * 0.5,
            "requests": 14_400 * capacity.WRITES_PER_SHARD * 0.005 / 1000,
            "storage a month": 2880 * 0.02,
        }
    )


def test_what_the_rates_tell_of_clips_counts() -> None:
    found = estimate(
        3600, 500, {**RATES, "clip": {"duration_s": 5.0, "flac_bytes": 1e6}, "start_s": 36.0}, CapacityConfig()
    )
    assert found.audio_h == 5 and found.output_gb == pytest.approx(3.6)
    assert found.hours == pytest.approx(0.01 + 0.01)


def test_too_few_actors_take_longer_and_say_so() -> None:
    found = sized(7_200_000, hours=5.0, max_actors=2)
    assert found.actors == 2 and found.hours == 10.0
    assert "2 actors need 10.0 h, not 5" in found.warnings[0]


def test_actors_make_up_for_the_time_in_which_they_start() -> None:
    found = estimate(7_200_000, 500, {**RATES, "start_s": 120.0}, CapacityConfig(hours=5.0))
    assert found.actors == 5 and found.hours <= 5.0 and not found.warnings
    late = estimate(1000, 500, {**RATES, "start_s": 7200.0}, CapacityConfig(hours=1.0))
    assert (
        late.actors == 2 and "2 actors need 2.0 h, not 1" in late.warnings[0]
    )  # more than one to a shard help nothing


def test_no_more_actors_than_a_driver_keeps_busy() -> None:
    assert not estimate(10**7, 500, RATES, CapacityConfig(hours=1000.0)).warnings
    per_s = 500 * capacity.DRIVER_SHARDS_PER_S
    found = estimate(10**7, 500, {**RATES, "caption": per_s / 4}, CapacityConfig(hours=0.1))
    assert found.actors == 4 and found.hours == pytest.approx(10**7 / per_s / 3600)
    assert found.cores == pytest.approx(per_s * (1 / 50 + 1 / 200))
    assert (
        f"{math.ceil(4 * 10**7 / per_s / 360)} actors would be wanted" in found.warnings[-1]
        and "use a larger --clips-per-shard" in found.warnings[-1]
    )


def test_plans_too_large_for_a_head_are_told() -> None:
    most = int(capacity.HEAD_GB * 1e9 / capacity.PLAN_BYTES_PER_CLIP)
    assert not sized(most, hours=10**6).warnings
    assert "planning takes 8.0 GB" in sized(most + 1, hours=10**6).warnings[0]


@pytest.mark.parametrize("clips", [1, 22_000, 2_000_000, 100_000_000])
def test_less_time_never_takes_fewer_nodes(clips: int) -> None:
    found = [sized(clips, hours=hours, max_actors=10**6) for hours in (100.0, 10.0, 1.0, 0.1)]
    assert all(one.actors <= other.actors for one, other in pairwise(found))
    assert all(one.hours >= other.hours for one, other in pairwise(found))
    assert all(each.actors <= each.shards for each in found)


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ('{"read": 1, "caption": 2}', "write"),
        ('{"read": 0, "caption": 2, "write": 1}', "above 0"),
    ],
)
def test_a_table_that_is_none_is_named(table: str, wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(table)
    with pytest.raises(InputError, match=wrong) as refused:
        capacity.read_rates(str(path))
    assert str(path) in str(refused.value)


def test_fields_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match=r"--capacity.hours 0"):
        CapacityConfig(hours=0).check()
    with pytest.raises(InputError, match=r"--capacity.gpu-node-price -1"):
        CapacityConfig(gpu_node_price=-1).check()
    with pytest.raises(InputError, match=r"--capacity.rates is missing"):
        CapacityConfig().check()


def test_sizes_stand_side_by_side(corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command: the plan's own clips, then other sizes; nothing is written."""
    (tmp_path / "rates.json").write_text(json.dumps(RATES))
    words = ["--source", f"{corpus}/tagged_segments.csv", "--capacity.rates", str(tmp_path / "rates.json")]
    words = ["plan", "tiny", "--estimate", *words, "--capacity.clips", "22000", "100000000"]
    assert main("pipeline", "", STAGES, [*words, "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["clips", "24", "22,000", "100,000,000"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("clips_per_shard", [4, 12])
def test_an_s3_server_counts_as_many_requests(
    s3: str, corpus: str, clips_per_shard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that reading, writing and finalizing ask for; deletions, which are free, are POSTs."""
    for path in Path(corpus).rglob("*"):
        if path.is_file():
            storage.publish(f"{s3}/capacity/{path.relative_to(corpus)}", path.read_bytes())
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"], share=0.0) as proxy:
        found = count(proxy, s3, clips_per_shard, monkeypatch)
    estimated = estimate(24, clips_per_shard, RATES, CapacityConfig())
    asked = found["GET"] + found["HEAD"] + found["PUT"]
    assert 0.8 * (estimated.reads + estimated.writes) <= asked <= estimated.reads + estimated.writes, (found, estimated)
    assert found["PUT"] <= estimated.writes


def count(proxy: FaultyProxy, s3: str, clips_per_shard: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Write a dataset through the proxy; return the requests by method, without those of planning."""
    from pipeline.storage import arrow
    from pipeline.storage import s3 as store

    out = f"{s3}/capacity/out{clips_per_shard}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    for connection in (arrow.connect, store._client):
        connection.cache_clear()
    try:
        source = f"{s3}/capacity/tagged_segments.csv"
        plan = publish_plan(out, draft_plan(out, source, (), clips_per_shard, DecontaminationConfig()))
        run_config = {**dataclasses.asdict(CAPTION["tiny"][1]), "captioner_revision": "", "arithmetic": ""}
        storage.publish_json(f"{out}/run.json", storage.plain(run_config))
        before = Counter(proxy.requests)
        commit.recover(out)
        for shard in plan.missing(out):
            batch = Reader(out, plan, (), 0, audio_filter.OFF)(pa.table({"shard": [shard]}))
            read = ShardBatch.from_table(batch)
            caption = {"text": "a", "score": 0.0, "guidance": "none", "decoding": "", "tags": None}
            captioned = [clip | {"captions": [caption]} for clip in read.clips]
            write_shard(dataclasses.replace(read, clips=captioned).to_table(), out, plan)
        finalize(out, plan, 0.0)
        return Counter(proxy.requests) - before
    finally:
        for connection in (arrow.connect, store._client):
            connection.cache_clear()

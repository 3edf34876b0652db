"""What limits a job and what to change: cases by hand, and what must hold for any rates."""

import random
from dataclasses import replace
from typing import Any

import pytest

from pipeline.graph import caption_actor, engine
from pipeline.planning import diagnosis, workload
from pipeline.planning.workload import BatchRate, Measured, Setup, Work


def measured(**changes: Any) -> Measured:
    """One GPU actor of 400 clips/s that is busy for a fifth of the time, on cores that read 100 clips/s each."""
    batch = BatchRate(core_s=0.5e-3, wall_s=2.5e-3, model_s=0.6e-3, gpu_s=0.5e-3, memory_share=0.1)
    case = Measured(
        fetch=Work(core_s=0.5e-3, wall_s=1e-3),
        decode=Work(core_s=5e-3, wall_s=5e-3),
        encode=Work(core_s=2e-3, wall_s=2e-3),
        read=Work(core_s=8e-3, wall_s=4e-3),
        write=Work(core_s=2e-3, wall_s=2e-3),
        batches={32: batch},
        transfer_s=1e-5,
        duration_s=10.0,
        flac_bytes=320_000.0,
        clips_per_shard=512,
        start_s=20.0,
    )
    return replace(case, **changes)


def setup(**changes: Any) -> Setup:
    case = Setup(
        nodes=1, cores=16.0, gpus=1.0, in_process=False, actors=1, actor_gpus=1.0, actor_cpus=0.5, batch_size=32,
        decode="reader",
    )  # fmt: skip
    return replace(case, **changes)


def test_an_idle_gpu_is_shared() -> None:
    """16 cores x 10.5 ms a clip allow 1,524 clips/s; one actor makes 400 of them, four make 1,600."""
    found = diagnosis.diagnose(measured(), setup(), 400_000)
    assert found.limit == "actor" and found.clips_per_s == pytest.approx(400)
    assert found.eta_s == pytest.approx(20 + 1000) and found.gpu_hours == pytest.approx(1020 / 3600)
    assert found.advice[0].flags == "--actors.max 4 --actors.gpus 0.25"
    assert found.advice[0].clips_per_s == pytest.approx(16 / 10.5e-3)
    assert "20% of the time" in found.advice[0].reason
    (hardware,) = diagnosis.diagnose(measured(), setup(cores=2.0), 400_000).advice
    assert not hardware.flags and hardware.reason.startswith("2 nodes") and "decoding" in hardware.reason


def test_a_gpu_without_memory_is_not_shared() -> None:
    batch = replace(measured().batches[32], memory_share=0.5)
    found = diagnosis.diagnose(measured(batches={32: batch}), setup(), 400_000)
    assert not [each for each in found.advice if "--actors.gpus" in each.flags]


def test_gpus_that_nobody_holds_get_actors() -> None:
    found = diagnosis.diagnose(measured(), setup(gpus=8.0, cores=512.0, nodes=8), 10**6)
    assert found.advice[0].flags in ("--actors.max 32 --actors.gpus 0.25", "--actors.max 16 --actors.gpus 0.5")
    assert found.limit == "actor"


def test_a_larger_batch_is_advised_where_it_was_faster() -> None:
    slow, fast = (BatchRate(core_s=1e-4, wall_s=s, model_s=s, gpu_s=s, memory_share=0.8) for s in (4e-3, 1e-3))
    found = diagnosis.diagnose(measured(batches={32: slow, 128: fast}), setup(), 10**6)
    assert found.limit == "model" and found.advice[0].flags == "--batch-size 128"


def test_a_slow_network_gets_flac() -> None:
    """320 kB of FLAC in place of 640 kB of samples halve the load; the actor's two decoders make 400 clips/s."""
    found = diagnosis.diagnose(measured(transfer_s=8e-3), setup(cores=64.0, nodes=2), 10**6)
    assert found.limit == "network" and found.clips_per_s == pytest.approx(125)
    assert found.advice[0].flags == "--decode actor" and found.advice[0].clips_per_s == pytest.approx(250)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"read": Work(core_s=8e-3, wall_s=0.5), "fetch": Work(core_s=0.5e-3, wall_s=2.0)}, "store"),
        ({"read": Work(core_s=8e-3, wall_s=0.5)}, "tasks"),
        ({"write": Work(core_s=2e-3, wall_s=0.5)}, "write"),
        ({"write": Work(core_s=60e-3, wall_s=30e-3)}, "write"),
        ({"read": Work(core_s=0.1, wall_s=0.05), "decode": Work(core_s=0.08, wall_s=0.08)}, "decode"),
        ({"read": Work(core_s=0.1, wall_s=0.05), "encode": Work(core_s=0.08, wall_s=0.08)}, "encode"),
        ({"read": Work(core_s=0.1, wall_s=0.05), "fetch": Work(core_s=0.08, wall_s=0.08)}, "fetch"),
        ({"read": Work(core_s=0.1, wall_s=0.05)}, "check"),
        ({"clips_per_shard": 1}, "driver"),
        ({"start_s": 1e9}, "start-up"),
    ],
)
def test_the_limit_is_named(changes: dict[str, Any], limit: str) -> None:
    found = diagnosis.diagnose(measured(**changes), setup(), 10_000)
    assert found.limit == limit and limit in diagnosis.LIMITS


def test_in_one_process_the_model_shares_the_cores() -> None:
    """A laptop: two cores, the model on one of them for 100 ms a clip; Ray's second actor nearly doubles the rate."""
    batch = BatchRate(core_s=0.1, wall_s=0.1, model_s=0.09)
    case, laptop = measured(batches={32: batch}), setup(gpus=0.0, actor_gpus=0.0, in_process=True, cores=2.0)
    found = diagnosis.diagnose(case, laptop, 10_000)
    assert found.limit == "model" and found.clips_per_s == pytest.approx(10) and found.gpu_hours == 0
    assert found.advice[0].flags == "--actors.max 2" and found.advice[0].clips_per_s == pytest.approx(2 / 0.11)
    assert not diagnosis.diagnose(case, laptop, 100).advice  # Ray takes longer to start than it would save


def test_nothing_left_to_do_takes_no_time() -> None:
    found = diagnosis.diagnose(measured(), setup(), 0)
    assert found.eta_s == 0 and found.gpu_hours == 0


def drawn(seed: int) -> tuple[Measured, Setup]:
    """Return rates and flags drawn at random, over three orders of magnitude."""
    rng = random.Random(seed)

    def work() -> Work:
        return Work(core_s=10 ** rng.uniform(-5, -2), wall_s=10 ** rng.uniform(-5, -1))

    parts = {name: work() for name in ("fetch", "decode", "encode", "write")}
    read = Work(
        core_s=sum(parts[name].core_s for name in ("fetch", "decode", "encode")) * rng.uniform(1, 2), wall_s=0.01
    )
    batches = {}
    for size in (32, 128):
        wall_s = 10 ** rng.uniform(-4, -1)
        shares = sorted(rng.uniform(0, wall_s) for _ in range(2))
        batches[size] = BatchRate(core_s=wall_s, wall_s=wall_s, gpu_s=shares[0], model_s=shares[1])
    case = measured(**parts, read=read, batches=batches, transfer_s=10 ** rng.uniform(-6, -2))
    gpus = rng.choice([0, 1, 8])
    nodes, cores, actors = rng.randint(1, 9), rng.choice([2, 16, 128]), rng.randint(1, 16)
    flags = {"actor_gpus": rng.choice([0.25, 1.0]) if gpus else 0.0, "in_process": rng.random() < 0.3}
    if flags["in_process"]:
        nodes = actors = 1
    return case, setup(nodes=nodes, cores=float(cores), gpus=float(gpus), actors=actors, **flags)


@pytest.mark.parametrize("seed", range(200))
def test_whatever_was_measured_advice_helps_and_the_limit_is_the_largest_load(seed: int) -> None:
    case, flags = drawn(seed)
    found = diagnosis.diagnose(case, flags, 1_000_000)
    assert found.clips_per_s == 1 / max(found.loads.values())
    for each in found.advice:
        assert each.clips_per_s >= diagnosis.MIN_GAIN * each.clips_per_s_before
    for first, second in zip(found.advice, found.advice[1:], strict=False):
        assert second.clips_per_s_before == first.clips_per_s
    assert found.advised_eta_s <= found.eta_s
    pool = max(found.loads, key=lambda name: found.loads[name])
    allowed = {"tasks": {"store", "write", "tasks"}, "reading": {"store", "tasks"}, "actors": {"model", "actor"}}
    cores = {"fetch", "decode", "encode", "check", "write", "actor" if flags.actor_gpus else "model"}
    assert found.limit in allowed.get(pool, cores if pool == "cores" else {pool})


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("stage", ["read", "write"])
def test_a_slower_stage_never_makes_a_faster_job(seed: int, stage: str) -> None:
    case, flags = drawn(seed)
    work = getattr(case, stage)
    slower = replace(case, **{stage: Work(core_s=3 * work.core_s, wall_s=3 * work.wall_s)})
    assert workload.throughput(slower, flags) <= workload.throughput(case, flags)


def test_it_counts_with_what_the_graph_does() -> None:
    """Copies, because planning knows no engine."""
    assert workload.STEP_THREADS == engine.CONCURRENT
    assert workload.ACTOR_DECODERS == caption_actor.DECODERS

"""Pre-training that is killed, stopped, moved to other ranks or fed by a store that breaks: no clip is lost or repeated."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

import train.launch
from pipeline import cli, storage
from pipeline.dataset import shards
from pipeline.dataset.clip_index import ClipIndex
from tests.support.faults import FaultyProxy
from tests.support.interrupted import Interruption, launch_interrupted
from tests.test_train_loader import Numbered
from train import checkpoint
from train.__main__ import STAGES
from train.configs import PRETRAIN
from train.data.loader import Batch, Loader
from train.data.order import Order, Step
from train.launch import SAVE_FILE
from train.stages import training
from train.stages.pretrain import PretrainConfig, run
from train.trainer.context import Context
from train.trainer.hooks import Hooks
from train.trainer.loop import fit
from train.trainer.optim import OptimConfig
from train.trainer.performance import prepare

TINY: PretrainConfig = PRETRAIN["tiny"][1]
NEVER = -1


def tiny(data: str, out: Path | str, **changes: Any) -> PretrainConfig:
    return dataclasses.replace(TINY, data=(data,), out=str(out), **changes)


def history(out: Path | str) -> dict[str, Any]:
    return storage.read_json(storage.join(str(out), "history.json"))


def record(folder: Path, out: str, seen: str, rank: int, size: int, kill_at: int) -> None:
    """Train on numbered clips for one epoch; write the keys of every step to a file of its own."""
    clips = Numbered(folder, 48).listed
    order = Order(sizes=(48,), batch_size=4, seed=0)

    def backward(model: torch.nn.Module, batch: Batch, step: Step) -> torch.Tensor:
        Path(seen, f"{step.number}-{rank}.json").write_text(json.dumps(batch.keys))
        if step.number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        value = model(batch.waveform.float()).square().mean()
        value.backward()
        return value.detach()

    ready = prepare(torch.nn.Linear(5, 1), torch.device("cpu"), size)
    config = OptimConfig(epochs=1, batch_size=4, save_every_s=0.0)
    fit(ready, backward, Loader(clips, order, 5, rank, size), config, Context(rank=rank, world_size=size), out, Hooks())


def one_rank(rank: int, size: int, folder: Path, out: str, seen: str, kill_at: int) -> None:
    Path(seen).mkdir(exist_ok=True)
    distributed.init_process_group("gloo", init_method=f"file://{seen}-store", rank=rank, world_size=size)
    record(folder, out, seen, rank, size, kill_at)
    distributed.destroy_process_group()


def keys(seen: str, steps: range) -> list[str]:
    return [key for step in steps for path in Path(seen).glob(f"{step}-*.json") for key in json.loads(path.read_text())]


def newest_state(out: Path) -> int:
    """Return the step of the newest saved state."""
    return max(int(path.stem) for path in (out / "training_state").glob("*.json"))


def test_killed_in_an_epoch_the_rest_of_it_is_taken_once_by_other_ranks(tmp_path: Path) -> None:
    """SIGKILL for both of two ranks, then one rank, killed as well, then three: every clip once in the steps that count."""
    out, counted, begin = tmp_path / "out", [], 0
    for size, kill_at in ((2, 4), (1, 9), (3, NEVER)):
        seen = str(tmp_path / f"seen-{size}")
        arguments = (size, tmp_path, str(out), seen, kill_at)
        if kill_at == NEVER:
            mp.spawn(one_rank, args=arguments, nprocs=size)
        else:
            with pytest.raises(mp.ProcessExitedException, match="SIGKILL"):
                mp.spawn(one_rank, args=arguments, nprocs=size)
        end = 12 if kill_at == NEVER else newest_state(out)
        assert begin < end
        counted += keys(seen, range(begin, end))
        begin = end
    assert Counter(counted) == Counter(f"k{i}" for i in range(48))


def test_sigterm_saves_the_state_and_the_same_command_goes_on(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", "tiny", "--data", dataset, "--optim.epochs", "6", "--optim.save-every-s", "10000"]
    words += ["--watch.no-tensorboard", "--out", str(tmp_path / "cut")]
    interrupted = partial(launch_interrupted, [("terminate_driver", 7)], str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(training, "launch", interrupted)
        patched.setattr(train.launch, "_sigterm_received", False)
        assert cli.main("train", "", STAGES, words) == 1
    assert "the same command continues" in capfd.readouterr().err.splitlines()[-1]
    assert newest_state(tmp_path / "cut") == 7
    assert cli.main("train", "", STAGES, words) == 0
    run(tiny(dataset, tmp_path / "whole", optim=dataclasses.replace(TINY.optim, epochs=6)))
    assert history(tmp_path / "cut")["loss"] == history(tmp_path / "whole")["loss"]


def test_shards_and_checkpoints_on_a_store_that_breaks(dataset: str, s3: str, tmp_path: Path) -> None:
    """One request of five fails: the same losses as from disk, through the cache; a corrupt clip is skipped by name."""
    data = f"{s3}/pretrain/data"
    for name in (
        "sizes.json",
        "plan.json",
        "run.json",
        *(f"0000{i}.{kind}" for i in range(3) for kind in ("tar", "parquet")),
    ):
        content = storage.read(f"{dataset}/{name}")
        storage.publish(f"{data}/{name}", content)
    index = ClipIndex(dataset)
    row = index.written.slice(5, 1).to_pylist()[0]
    broken = bytearray(storage.read(f"{dataset}/{shards.tar_name(row['shard'])}"))
    broken[row["flac_offset"] + row["flac_size"] // 2] ^= 0xFF
    storage.publish(f"{data}/{shards.tar_name(row['shard'])}", bytes(broken))
    words = [sys.executable, "-m", "train", "pretrain", "tiny", "--data", data, "--loader.processes", "1"]
    words += [
        "--optim.save-every-s",
        "0",
        "--loader.cache-dir",
        str(tmp_path / "cache"),
        "--loader.max-bad-fraction",
        "0.1",
    ]
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"], share=0.2) as proxy:
        environment = {**os.environ, "AWS_ENDPOINT_URL": proxy.endpoint}
        done = subprocess.run(
            [*words, "--out", f"{s3}/pretrain/model"], env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sum(proxy.injected.values()) > 3
    assert f"skips clip {row['key']}: unreadable" in done.stderr
    found = history(f"{s3}/pretrain/model")
    assert list(found["skipped"]) == [row["key"]]
    shutil.copytree(dataset, tmp_path / "copy")
    (tmp_path / "copy" / shards.tar_name(row["shard"])).write_bytes(broken)
    run(tiny(str(tmp_path / "copy"), tmp_path / "disk", loader=dataclasses.replace(TINY.loader, max_bad_fraction=0.1)))
    assert found["loss"] == history(tmp_path / "disk")["loss"]
    assert checkpoint.load(f"{s3}/pretrain/model").model.logit_scale.isfinite()
    assert list((tmp_path / "cache").iterdir())


CUT = "tests.support.interrupted"


def test_on_ray_a_run_goes_on_after_a_lost_worker_a_lost_driver_and_sigterm(
    ray_session: None, corpus: str, held_out: str, tmp_path: Path
) -> None:
    """SIGKILL for a Ray Train worker and for the driver, on a Ray that stays; then SIGTERM on a Ray of its own, with clips
    decoded by Ray tasks; then no Ray at all. Losses, draws, dropout and the average are those of an undisturbed run."""
    import ray

    source = storage.join(corpus, "captioned_segments.csv")
    words = ["captioner", "tiny", "--source", source, "--validation", held_out, "--optim.epochs", "10"]
    words += ["--optim.swa-epochs", "3", "--optim.save-every-s", "0", "--final-teacher-forcing", "0.6"]
    out = tmp_path / "cut"
    on_ray = [*words, "--out", str(out), "--scale.num-workers", "1"]

    def cut(interruptions: list[Interruption], address: str, *more: str) -> tuple[int, str]:
        marks = tmp_path / interruptions[-1][0]
        marks.mkdir()
        command = [sys.executable, "-m", CUT, json.dumps(interruptions), str(marks), *on_ray, *more]
        done = subprocess.run(command, env={**os.environ, "RAY_ADDRESS": address}, capture_output=True, text=True)
        return done.returncode, done.stderr[-3000:]

    code, log = cut([("kill_worker", 4), ("kill_driver", 8)], ray.get_runtime_context().gcs_address)
    assert code == -signal.SIGKILL, log
    killed_at = newest_state(out)
    assert 8 <= killed_at < 12, f"the second worker did not go on from a state of the first: {log}"
    code, log = cut([("terminate_driver", 4)], "local", "--loader.ingest", "ray")
    assert code == 130, log
    assert newest_state(out) == killed_at + 4 and not (out / SAVE_FILE).exists()
    assert cli.main("train", "", STAGES, [*words, "--out", str(out)]) == 0
    assert cli.main("train", "", STAGES, [*words, "--out", str(tmp_path / "whole")]) == 0
    found, whole = history(out), history(tmp_path / "whole")
    assert found["loss"] == pytest.approx(whole["loss"], rel=1e-3) and len(set(whole["loss"])) == 30
    assert [e["cider_d"] for e in found["epochs"]] == pytest.approx([e["cider_d"] for e in whole["epochs"]], abs=1e-3)

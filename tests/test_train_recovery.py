"""Pre-training that is killed, stopped, moved to other ranks or fed by a store that breaks: no clip is lost or repeated."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from pipeline import storage
from pipeline.dataset import shards
from pipeline.dataset.clip_index import ClipIndex
from tests.support.faults import FaultyProxy
from tests.test_train_loader import Numbered
from train import checkpoint
from train.configs import PRETRAIN
from train.data.loader import Batch, Loader
from train.data.order import Order
from train.stages.pretrain import PretrainConfig, run
from train.trainer.loop import Context, Hooks, Step, fit
from train.trainer.optim import OptimConfig
from train.trainer.performance import prepare

TINY: PretrainConfig = PRETRAIN["tiny"][1]


def tiny(data: str, out: Path | str, **changes: Any) -> PretrainConfig:
    return dataclasses.replace(TINY, data=(data,), out=str(out), **changes)


def history(out: Path | str) -> dict[str, Any]:
    return storage.read_json(storage.join(str(out), "history.json"))


def record(folder: Path, out: str, seen: str, rank: int, size: int, pause: bool) -> None:
    """Train on numbered clips for one epoch; write the keys of every step to a file of its own."""
    clips = Numbered(folder, 48).listed
    order = Order(sizes=(48,), batch_size=4, seed=0)

    def backward(model: torch.nn.Module, batch: Batch, step: Step) -> torch.Tensor:
        Path(seen, f"{step.number}-{rank}.json").write_text(json.dumps(batch.keys))
        time.sleep(0.05 * pause)
        value = model(batch.waveform.float()).square().mean()
        value.backward()
        return value.detach()

    ready = prepare(torch.nn.Linear(5, 1), torch.device("cpu"), size)
    config = OptimConfig(epochs=1, batch_size=4, save_every_s=0.0)
    fit(ready, backward, Loader(clips, order, 5, rank, size), config, Context(rank=rank, world_size=size), out, Hooks())


def one_rank(rank: int, size: int, folder: Path, out: str, seen: str, pause: bool) -> None:
    Path(seen).mkdir(exist_ok=True)
    distributed.init_process_group("gloo", init_method=f"file://{seen}-store", rank=rank, world_size=size)
    record(folder, out, seen, rank, size, pause)
    distributed.destroy_process_group()


def keys(seen: str, steps: range) -> list[str]:
    return [key for step in steps for path in Path(seen).glob(f"{step}-*.json") for key in json.loads(path.read_text())]


def test_killed_at_a_random_step_the_rest_of_the_epoch_is_taken_once_by_other_ranks(tmp_path: Path) -> None:
    """SIGKILL for both of two ranks, then one rank, killed as well, then three: every clip once in the steps that count."""
    out, counted, begin = str(tmp_path / "out"), [], 0
    states = tmp_path / "out" / "training_state"
    for run_number, size in enumerate((2, 1, 3)):
        seen, last = str(tmp_path / f"seen-{run_number}"), run_number == 2
        context = mp.spawn(one_rank, args=(size, tmp_path, out, seen, not last), nprocs=size, join=False)
        while not last and len(list(Path(seen).glob("*-0.json"))) < 4:
            time.sleep(0.02)
        if last:
            context.join()
        for process in context.processes:
            process.kill()
            process.join()
        end = 12 if last else max(int(path.stem) for path in states.glob("*.json"))
        assert end > begin
        counted += keys(seen, range(begin, end))
        begin = end
    assert Counter(counted) == Counter(f"k{i}" for i in range(48))


def test_sigterm_saves_the_state_and_the_same_command_goes_on(dataset: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "train", "pretrain", "tiny", "--data", dataset, "--optim.epochs", "60"]
    words += ["--optim.save-every-s", "10000", "--watch.no-tensorboard"]
    subprocess.run([*words, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    words += ["--out", str(tmp_path / "cut")]
    stopped = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert stopped.stderr is not None
    for line in stopped.stderr:
        if "epoch 3," in line:
            stopped.send_signal(signal.SIGTERM)
            break
    told = stopped.stderr.read()
    assert stopped.wait() == 1 and "the same command continues" in told.splitlines()[-1], told[-2000:]
    assert len(list((tmp_path / "cut" / "training_state").glob("*.json"))) == 1
    subprocess.run(words, check=True, capture_output=True)
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


def test_on_ray_a_stopped_job_saves_and_goes_on_here_with_the_same_losses(dataset: str, tmp_path: Path) -> None:
    """One Ray Train worker whose clips are decoded by Ray tasks elsewhere; SIGTERM for the driver, then no Ray at all."""
    words = [sys.executable, "-m", "train", "pretrain", "tiny", "--data", dataset, "--optim.epochs", "200"]
    words += ["--optim.save-every-s", "10000", "--watch.no-tensorboard", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    on_ray = [*words, "--scale.num-workers", "1", "--loader.ingest", "ray"]
    driver = subprocess.Popen(on_ray, env=environment, stderr=subprocess.PIPE, text=True)
    assert driver.stderr is not None
    seen = []
    for line in driver.stderr:
        seen.append(line)
        if "epoch 3," in line:
            driver.send_signal(signal.SIGTERM)
            break
    seen.append(driver.stderr.read())
    assert driver.wait() == 130, "".join(seen)[-3000:]
    (state,) = (tmp_path / "out" / "training_state").glob("*.json")
    assert 9 <= int(state.stem) < 600 and not (tmp_path / "out" / "save_now").exists()
    subprocess.run(words, check=True, capture_output=True)
    run(tiny(dataset, tmp_path / "whole", optim=dataclasses.replace(TINY.optim, epochs=200)))
    assert history(tmp_path / "out")["loss"] == pytest.approx(history(tmp_path / "whole")["loss"], rel=1e-3, abs=1e-3)

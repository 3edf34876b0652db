"""The stages of `make gpu-check` that read clips: the trainer's loop in this process, then both commands through Ray.

A stage whose packages are not installed says so, and is left out.
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from tests.bench import gpu_models
from tests.bench.gpu_models import NUM_TAGS, RATE_HZ
from tests.bench.gpu_table import Bench, Row
from train.models.clap import Clap

LOOP_NEEDS = ("soundfile", "soxr", "pyarrow", "boto3", "tqdm", "tyro", "jinja2", "safetensors")
RAY_NEEDS = (*LOOP_NEEDS, "ray", "webdataset")
FILES = 256  # distinct clips in the loop
LOADERS = 6  # processes that decode beside the loop, as in the config `blat`
SETTLES = 5  # steps before the loop is timed


def trainer_loop(bench: Bench) -> Iterator[Row]:
    """The bare step, and the trainer's loop around it: clips in FLAC files, decoded by processes beside it."""
    if _absent("the trainer's loop", LOOP_NEEDS):
        return
    batch, steps = bench.size.loop
    model = gpu_models.two_towers(bench).train()
    if bench.on_gpu:
        model = model.to(memory_format=torch.channels_last)

    bare = bench.row("bare step", "eager", batch, gpu_models.contrastive_step(model),
                     lambda: gpu_models.pairs(bench, batch))  # fmt: skip
    yield bare
    if bench.fits("the trainer's loop"):
        with tempfile.TemporaryDirectory() as folder:
            ms = loop_ms(bench, model, Path(folder), batch, steps)
        yield Row("trainer's loop", f"{100 * bare.ms / ms:.0f} % of the bare step", batch, ms)


def loop_ms(bench: Bench, model: Clap, folder: Path, batch_size: int, steps: int) -> float:
    """Return the mean time of a step of `fit` with the real loader and objective of pre-training, after the first few."""
    from pipeline.sources.clip import Clip
    from tests.bench.train_loop import TimedLoader
    from train.data.clip_sets import ListedClips
    from train.data.loader import LoaderConfig
    from train.data.order import Order
    from train.stages.pretrain import PretrainConfig, towers
    from train.trainer.context import Context
    from train.trainer.loop import fit
    from train.trainer.optim import OptimConfig
    from train.trainer.performance import prepare

    files, count = write_clips(folder, min(FILES, batch_size * steps), bench.size.clip_s), batch_size * steps
    listed = ListedClips(
        [
            Clip(key=str(i), uri=str(files[i % len(files)]), source_id=str(i), captions=(f"a dog barks {i}",))
            for i in range(count)
        ],
        (),
    )
    optim = OptimConfig(epochs=1, batch_size=batch_size, lr=1e-5, precision="bfloat16", save_every_s=1e9)
    config = PretrainConfig(network=model.config, optim=optim)
    loader = TimedLoader(
        listed,
        Order(sizes=(count,), batch_size=batch_size, seed=0),
        round(bench.size.clip_s * RATE_HZ),
        config=LoaderConfig(processes=LOADERS if bench.on_gpu else 1),
        pin=bench.on_gpu,
        collate=towers.collate(config, model),
    )
    prepared = prepare(model, bench.device, precision="bfloat16")
    fit(prepared, towers.objective(config), loader, optim, Context(device=bench.device), str(folder / "out"))
    there = loader.walls[SETTLES:]  # when each batch was there; this thread is at most one step ahead of a GPU
    return 1000 * (there[-1] - there[0]) / (len(there) - 1)


def ray_commands(bench: Bench) -> Iterator[Row]:
    """`pipeline caption` and `train pretrain` as commands, on clips that are noise and a captioner of random weights."""
    if _absent("the commands through Ray", RAY_NEEDS):
        return
    from train import checkpoint

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listing = write_listing(folder, bench)
        captioner = gpu_models.captioner(bench, bench.size.encoders[0])
        checkpoint.save(str(folder / "captioner"), captioner, {}, [])
        del captioner
        shards, size = folder / "shards", bench.size.clips // 64
        where = ["--actors.max", "1"] if bench.on_gpu else ["--actors.max", "1", "--actors.gpus", "0"]
        where += ["--firewall.allow", "audioset-eval", "audiocaps", "vggsound"]  # noise is in none of them
        caption = ["pipeline", "caption", "audioset", *where, "--source", str(listing), "--out", str(shards)]
        whole_s = _command(bench, [*caption, "--captioner", str(folder / "captioner"), "--clips-per-shard", str(size)])
        yield Row("pipeline caption, all of it", "1 actor", bench.size.clips, 1000 * whole_s)
        ended = sorted(path.stat().st_mtime for path in shards.rglob("*.tar"))
        first, last = 7, len(ended) - 9  # start-up, and the shards in flight at the end, are not timed
        rest, mode = (last - first) * size, f"1 actor, {size} clips a shard"
        yield Row("pipeline caption, after the first shards", mode, rest, 1000 * (ended[last] - ended[first]))
        text = [f"--network.text.{field}" for field in ("name", "hidden-dim", "layers", "heads")]
        flags = [each for pair in zip(text, ("", "512", "8", "8"), strict=True) for each in pair]
        flags += ["--optim.precision", "bfloat16"]
        train = ["train", "pretrain", *(["blat", *flags] if bench.on_gpu else ["tiny"]), "--scale.num-workers", "1"]
        whole_s = _command(
            bench, [*train, "--data", str(shards), "--out", str(folder / "towers"), "--optim.epochs", "4"]
        )
        yield Row("train pretrain, all of it", "1 worker", 4 * bench.size.clips, 1000 * whole_s)
        rate = trained_rate(folder / "towers")
        yield Row("train pretrain, a step", "1 worker", 128, 1000 * 128 / rate)


def write_clips(folder: Path, count: int, clip_s: float) -> list[Path]:
    """Write FLAC files of noise as a captioned dataset holds them: mono, 16 bits, 32 kHz."""
    from pipeline import audio

    def write(i: int) -> Path:
        path = folder / f"clip_{i}.flac"
        noise = 3_000 * np.random.default_rng(i).standard_normal(round(clip_s * RATE_HZ), np.float32)
        path.write_bytes(audio.encode_flac(noise.astype(np.int16)))
        return path

    with ThreadPoolExecutor() as pool:
        return list(pool.map(write, range(count)))


def write_listing(folder: Path, bench: Bench) -> Path:
    """Write clips and the table of their tags."""
    listing = folder / "clips.csv"
    with listing.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "tags"))
        for i, path in enumerate(write_clips(folder, bench.size.clips, bench.size.clip_s)):
            rows.writerow((path, f"{i % NUM_TAGS}|{(i + 7) % NUM_TAGS}"))
    return listing


def trained_rate(out: Path) -> float:
    """Return the samples a second of the last row of a run's history."""
    steps = json.loads((out / "history.json").read_text())["steps"]
    return float(steps[-1]["train/samples_per_second_per_gpu"])


def _command(bench: Bench, words: list[str]) -> float:
    """Run `python -m` of these words; return its seconds."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", *words], check=True, timeout=max(60.0, bench.deadline - began))
    return time.monotonic() - began


def _absent(what: str, packages: tuple[str, ...]) -> bool:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        print(f"left out: {what}: not installed here: {', '.join(missing)}", flush=True)
    return bool(missing)

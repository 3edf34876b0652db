"""The training thread's own time a batch: `python -m tests.bench.train_loop`.

The model is one number, so that what is left is the loop: waiting aside, everything that this thread does between two
batches of 128 clips of 10 s. Captions are tokenized as in pre-training. Decoding runs beside it, in threads or processes.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import audio
from pipeline.sources.clip import Clip
from train.configs import PRETRAIN, TINY_CLAP
from train.data.clip_sets import ListedClips
from train.data.loader import Batch, Loader, LoaderConfig
from train.data.order import Order, Step
from train.models import text
from train.models.clap import Clap
from train.stages.pretrain import towers
from train.trainer.context import Context
from train.trainer.loop import fit
from train.trainer.optim import OptimConfig
from train.trainer.performance import prepare

BATCH, CLIP_S, FILES, WARM_UP = 128, 10, 16, 3


@dataclass(frozen=True, kw_only=True)
class LoopTimes:
    """Medians over the steps after the first ones, milliseconds a batch."""

    processes: int
    thread_cpu_ms: float  # of the training thread
    own_wall_ms: float  # without waiting for a batch
    wait_ms: float  # for a batch
    steps: int


class Number(nn.Module):
    """The model."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))


class TimedLoader(Loader):
    """A loader that notes how long its batches were waited for, and the training thread's clocks when each was there."""

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self.waits: list[float] = []
        self.walls: list[float] = []
        self.thread_times: list[float] = []

    def batches(self, first_step: int, last_step: int) -> Generator[Batch]:
        """Yield the batches."""
        found = super().batches(first_step, last_step)
        for _ in range(first_step, last_step):
            began = time.perf_counter()
            batch = next(found)
            self.walls.append(time.perf_counter())
            self.waits.append(self.walls[-1] - began)
            self.thread_times.append(time.thread_time())
            yield batch


def clips(folder: Path, count: int) -> ListedClips:
    """Make clips of noise under a few tones, in a few files that many clips share."""
    random, seconds = np.random.default_rng(0), np.arange(CLIP_S * audio.SAMPLE_RATE_HZ) / audio.SAMPLE_RATE_HZ
    for i in range(FILES):
        sound = 6000 * np.sin(2 * np.pi * (200 + 50 * i) * seconds) + 300 * random.standard_normal(len(seconds))
        (folder / f"{i}.flac").write_bytes(audio.encode_flac(sound.astype(np.int16)))
    found = []
    for i in range(count):
        caption = f"a tone of {i} hertz sounds over a hiss while clip number {i % 97} goes on"
        found.append(Clip(key=f"k{i}", uri=f"{folder}/{i % FILES}.flac", source_id=f"k{i}", captions=(caption,)))
    return ListedClips(found, ())


def measure(folder: Path, processes: int, steps: int) -> LoopTimes:
    """Run the loop for some steps."""
    folder.mkdir()
    listed = clips(folder, steps * BATCH)
    captions = [caption for texts in listed.texts for caption in texts]
    clap = Clap(TINY_CLAP, text.build(TINY_CLAP.text, captions))
    loader = TimedLoader(
        listed,
        Order(sizes=(len(listed.keys),), batch_size=BATCH, seed=0),
        CLIP_S * audio.SAMPLE_RATE_HZ,
        config=LoaderConfig(processes=processes),
        collate=towers.collate(PRETRAIN["tiny"][1], clap),
    )

    def backward(model: nn.Module, batch: Batch, step: Step) -> Tensor:
        loss = model.value.square()
        loss.backward()
        return loss.detach()

    config = OptimConfig(epochs=1, batch_size=BATCH, save_every_s=1e9)
    fit(prepare(Number(), torch.device("cpu")), backward, loader, config, Context(), str(folder / "out"))
    cpu = [1e3 * each for each in np.diff(loader.thread_times)[WARM_UP:]]
    waits = [1e3 * each for each in loader.waits[1 + WARM_UP :]]
    own = [1e3 * each - wait for each, wait in zip(np.diff(loader.walls)[WARM_UP:], waits, strict=True)]
    medians = [round(float(statistics.median(each)), 3) for each in (cpu, own, waits)]
    return LoopTimes(
        processes=processes, thread_cpu_ms=medians[0], own_wall_ms=medians[1], wait_ms=medians[2], steps=len(own)
    )


def main() -> None:
    """Print the times for clips that threads decode, and for those that one process decodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="batches of each run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind, alternating")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(arguments.repeats):
            for processes in (0, 1):
                print(measure(Path(folder, f"{repeat}-{processes}"), processes, arguments.steps), flush=True)


if __name__ == "__main__":
    main()

"""How `make gpu-check` measures: medians of CUDA events, counted operations, peak memory; and its table, row by row."""

import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

Inputs = tuple[Tensor, ...]
HEAD = ("what", "mode", "batch", "ms", "clips/s", "TFLOP/s", "MFU", "peak GB")
INPUTS = 3  # sets of random inputs, in turn
WARM_UP = 3


class Size(NamedTuple):
    """How large a run is."""

    matrix: int  # of the product that the ceiling is measured by
    clip_s: float
    batch: int  # of encoders and decoding
    other_batches: tuple[int, ...]  # of decoding
    training: tuple[int, ...]  # batches of the pre-training step
    loop: tuple[int, int]  # batch and steps of the trainer's loop
    repeats: int
    encoders: tuple[str, ...]  # names of gpu_models.ENCODERS; the first is the captioner's and the towers'
    compiler: str
    words: int  # of the captioner's vocabulary
    bert: tuple[int, int]  # layers and width
    clips: int  # that Ray's commands caption and train on


ENCODERS = ("cnn14", "mn04", "ast", "mn10")
FULL = Size(8_192, 10.0, 128, (32, 512), (128, 512), (128, 40), 20, ENCODERS, "inductor", 4_981, (8, 512), 2_048)
QUICK = Size(256, 1.0, 2, (3,), (2,), (4, 8), 2, ("tiny",), "eager", 50, (1, 32), 64)  # exercises every path on a CPU


class Row(NamedTuple):
    """One line of the table."""

    what: str
    mode: str
    batch: int  # clips; 0 where there are none
    ms: float
    flops: int = 0
    peak_bytes: int = 0  # of GPU memory

    def cells(self, ceiling: float) -> list[str]:
        """Return the texts of the columns; the share is that of `ceiling`, FLOP/s."""
        rate = f"{1000 * self.batch / self.ms:,.0f}" if self.batch else "-"
        teraflops = self.flops / self.ms / 1e9
        share = f"{100 * teraflops * 1e12 / ceiling:.1f} %" if self.flops else "-"
        counted = f"{teraflops:.1f}" if self.flops else "-"
        peak = f"{self.peak_bytes / 1e9:.1f}" if self.peak_bytes else "-"
        return [self.what, self.mode, str(self.batch or "-"), f"{self.ms:.2f}", rate, counted, share, peak]


class Bench:
    """Measures on one device at one size. Each row is printed, and appended to a file, when it is there."""

    def __init__(self, device: torch.device, size: Size, append: Path | None = None) -> None:
        self.device, self.size, self.append = device, size, append
        self.started = self.deadline = time.monotonic()
        # by name and batch, counted in eager mode: compiled code hides them
        self.flops: dict[tuple[str, int], int] = {}
        self.ceiling = self._ceiling()
        name = torch.cuda.get_device_name() if self.on_gpu else "CPU, tiny sizes: these are no benchmarks"
        settings = f"`make gpu-check`, torch {torch.__version__}, {size.clip_s:g} s clips, bfloat16 autocast."
        settings += f" Ceiling: {self.ceiling / 1e12:.1f} TFLOP/s in a bfloat16 matrix product."
        self.head = f"## {date.today()}, {name}\n\n{settings}\n\n{_line(HEAD)}\n{_line(['---'] * len(HEAD))}"
        self.lines: list[str] = []
        self._write(f"\n{self.head}")

    @property
    def on_gpu(self) -> bool:
        """True on CUDA."""
        return self.device.type == "cuda"

    def report(self, row: Row) -> None:
        """Print a row and append it to the file."""
        self.lines.append(_line(row.cells(self.ceiling)))
        self._write(self.lines[-1])

    def fits(self, what: str) -> bool:
        """Return whether a stage has time for one more measurement; print what is left out."""
        if late := time.monotonic() > self.deadline:
            print(f"left out: {what}: the seconds of this stage are over", flush=True)
        return not late

    def row(self, what: str, mode: str, batch: int, run: Callable[[Inputs], object], draw: Callable[[], Inputs]) -> Row:
        """Time `run` on inputs from `draw`, in bfloat16 autocast; the mode "eager" counts operations, too."""
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        inputs = [tuple(tensor.to(self.device) for tensor in draw()) for _ in range(INPUTS)]
        with torch.autocast(self.device.type, torch.bfloat16):
            if mode == "eager":
                with FlopCounterMode(display=False) as counter:
                    run(inputs[0])
                self.flops[what, batch] = counter.get_total_flops()
            began = time.monotonic()
            run(inputs[0])
            self.wait()
            first_s = time.monotonic() - began
            ms = self.median_ms(lambda i: run(inputs[i % INPUTS]))
        peak = torch.cuda.max_memory_allocated() if self.on_gpu else 0
        if mode == "compiled":
            mode = f"compiled in {first_s:.0f} s"
        return Row(what, mode, batch, ms, self.flops.get((what, batch), 0), peak)

    def median_ms(self, run: Callable[[int], object]) -> float:
        """Return the median time of `run`, which takes the number of the repetition."""
        for i in range(WARM_UP):
            run(i)
        return statistics.median(self._one(run, i) for i in range(self.size.repeats))

    def wait(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def _one(self, run: Callable[[int], object], i: int) -> float:
        if not self.on_gpu:
            began = time.perf_counter()
            run(i)
            return 1000 * (time.perf_counter() - began)
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        run(i)
        after.record()
        after.synchronize()
        return float(before.elapsed_time(after))

    def _ceiling(self) -> float:
        """Return the measured rate of a square bfloat16 matrix product, FLOP/s."""
        n = self.size.matrix
        pairs = [torch.randn(2, n, n, device=self.device, dtype=torch.bfloat16) for _ in range(INPUTS)]
        ms = self.median_ms(lambda i: pairs[i % INPUTS][0] @ pairs[i % INPUTS][1])
        return 2 * n**3 / ms * 1000

    def _write(self, line: str) -> None:
        print(line, flush=True)
        if self.append:
            with self.append.open("a") as file:
                file.write(f"{line}\n")


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"

"""How `make gpu-check` measures: medians of CUDA events, counted operations, peak memory; and the table of it."""

import statistics
import time
from collections.abc import Callable, Iterator
from datetime import date
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from train.models.encoders.frontend import EfficientLogMel, KaldiFbank, LogMel

BUDGET_S = 540.0
Inputs = tuple[Tensor, ...]


class Size(NamedTuple):
    """How large a run is."""

    matrix: int
    batches: tuple[int, ...]
    repeats: int
    encoders: tuple[str, ...]
    compiler: str
    training: tuple[int, ...]  # batches of pre-training, until one does not fit


# of encoders: names of gpu_check.ENCODERS
FULL = Size(8_192, (32, 128), 20, ("cnn14", "mn04", "mn10", "ast"), "inductor", (128, 512, 768, 1024, 1536, 2048))
QUICK = Size(256, (2,), 2, ("mn04",), "eager", (2, 4))  # exercises every path on a CPU


class Row(NamedTuple):
    """One line of the table."""

    what: str
    mode: str
    batch: int
    ms: float
    flops: int
    peak_bytes: int = 0  # of GPU memory

    def cells(self, ceiling: float) -> list[str]:
        rate = f"{1000 * self.batch / self.ms:,.0f}"
        teraflops = self.flops / self.ms / 1e9
        share = f"{100 * teraflops * 1e12 / ceiling:.1f} %" if self.flops else "-"
        counted = f"{teraflops:.1f}" if self.flops else "-"
        peak = f"{self.peak_bytes / 1e9:.1f}" if self.peak_bytes else "-"
        return [self.what, self.mode, str(self.batch), f"{self.ms:.2f}", rate, counted, share, peak]


class Bench:
    """Measures on one device at one size."""

    def __init__(self, device: torch.device, size: Size) -> None:
        self.device, self.size, self.started = device, size, time.monotonic()
        self.flops: dict[
            tuple[str, int], int
        ] = {}  # by name and batch, counted in eager mode: compiled code hides them

    def row(self, what: str, mode: str, batch: int, run: Callable[[Inputs], object], draw: Callable[[], Inputs]) -> Row:
        """Time `run` on inputs from `draw`, in bfloat16 autocast."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        inputs = [tuple(tensor.to(self.device) for tensor in draw()) for _ in range(3)]
        with torch.autocast(self.device.type, torch.bfloat16):
            if mode == "eager":
                with FlopCounterMode(display=False) as counter:
                    run(inputs[0])
                self.flops[what, batch] = counter.get_total_flops()
            ms = self.median_ms(lambda i: run(inputs[i % 3]))
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0
        row = Row(what, mode, batch, ms, self.flops.get((what, batch), 0), peak)
        print(f"[{time.monotonic() - self.started:4.0f} s] {what}, {mode}, batch {batch}: {row.ms:.2f} ms", flush=True)
        return row

    def median_ms(self, run: Callable[[int], object]) -> float:
        for i in range(3):
            run(i)
        return statistics.median(self._one(run, i) for i in range(self.size.repeats))

    def _one(self, run: Callable[[int], object], i: int) -> float:
        if self.device.type != "cuda":
            began = time.perf_counter()
            run(i)
            return 1000 * (time.perf_counter() - began)
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        run(i)
        after.record()
        after.synchronize()
        return float(before.elapsed_time(after))

    def ceiling(self) -> float:
        """Return the measured rate of a square bfloat16 matrix product, FLOP/s."""
        n = self.size.matrix
        pairs = [torch.randn(2, n, n, device=self.device, dtype=torch.bfloat16) for _ in range(3)]
        ms = self.median_ms(lambda i: pairs[i % 3][0] @ pairs[i % 3][1])
        return 2 * n**3 / ms * 1000

    def modes(self, model: nn.Module) -> Iterator[tuple[str, nn.Module, int]]:
        """Yield the model and a batch size: every one as it is, the largest compiled while there is time for that."""
        for batch in self.size.batches:
            yield "eager", model, batch
        if time.monotonic() - self.started < 0.7 * BUDGET_S:
            yield "compiled", self.compiled(model), self.size.batches[-1]

    def compiled(self, model: nn.Module) -> nn.Module:
        """Compile all but the front end: nothing fuses around an FFT, and each drawn band edge would compile anew."""
        for module in model.modules():
            if isinstance(module, LogMel | EfficientLogMel | KaldiFbank):
                module.forward = torch.compiler.disable(module.forward)
        return torch.compile(model, backend=self.size.compiler, dynamic=False)


def table(rows: list[Row], ceiling: float, name: str) -> str:
    """Return the section for BENCHMARKS.md."""
    head = ["what", "mode", "batch", "ms", "clips/s", "TFLOP/s", "MFU", "peak GB"]
    lines = [head, ["---"] * len(head), *(row.cells(ceiling) for row in rows)]
    body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    settings = f"`make gpu-check`, torch {torch.__version__}, 10 s clips, bfloat16 autocast."
    settings += f" Ceiling: {ceiling / 1e12:.1f} TFLOP/s in a bfloat16 matrix product."
    return f"## {date.today()}, {name}\n\n{settings}\n\n{body}\n"

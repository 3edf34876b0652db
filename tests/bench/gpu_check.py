"""`make gpu-check`: the tests marked gpu, then the speed of the models on this machine's GPU, as one table.

Needs torch, torchaudio, transformers, numpy and pytest; no Ray, no network, no data. Ten minutes at most on one GPU.
Times are medians of CUDA events after warm-up, over three sets of random inputs in turn. MFU is the share of the measured
rate of a large matrix product in the same precision; torch counts the operations, without those of GRU and FFT.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as nnf

from tests.bench.gpu_table import BUDGET_S, FULL, QUICK, Bench, Inputs, Row, table
from train.models import text
from train.models.blocks import blocks
from train.models.captioner.config import CaptionerConfig
from train.models.captioner.decoding import Decoding
from train.models.captioner.model import TagGuidedCaptioner
from train.models.captioner.vocabulary import SPECIALS, Vocabulary
from train.models.clap import Clap
from train.models.configs import ClapConfig, TextConfig
from train.models.encoders import registry
from train.models.encoders.configs import WIDTHS, Cnn14Config, MobileNetConfig, TransformerConfig
from train.models.encoders.frontend import EfficientLogMel, LogMel, prepare

RATE_HZ, CLIP_S = 32_000, 10
ENCODERS = {
    "cnn14": Cnn14Config(),
    "mn04": MobileNetConfig(width=WIDTHS["mn04"]),
    "mn10": MobileNetConfig(width=WIDTHS["mn10"]),
    "ast": TransformerConfig(),
}
BERT_MEDIUM = {
    "model_type": "bert", "vocab_size": 30_522, "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
    "intermediate_size": 2_048,
}  # fmt: skip


def clips(batch: int) -> Inputs:
    """Return int16 noise (B, T) of 10 s and its lengths."""
    size = RATE_HZ * CLIP_S
    return torch.randint(-20_000, 20_000, (batch, size), dtype=torch.int16), torch.full((batch,), size)


def front_ends(bench: Bench) -> Iterator[Row]:
    """Waveform to log-mel, and resampling before it."""
    panns, efficient = LogMel(RATE_HZ, 320, 64), EfficientLogMel(RATE_HZ, 320, 128, jitter=False)
    mels: dict[str, nn.Module] = {"log-mel of PANNs": panns, "log-mel of EfficientAT": efficient}
    for name, mel in mels.items():
        there = mel.to(bench.device).eval()
        for batch in bench.size.batches:
            yield bench.row(
                name, "eager", batch, lambda x: there(prepare(*x, RATE_HZ, RATE_HZ)[0]), lambda: clips(batch)
            )
    batch = bench.size.batches[0]
    yield bench.row(
        "resample 44.1 to 32 kHz", "eager", batch, lambda x: prepare(*x, 44_100, RATE_HZ), lambda: clips(batch)
    )


@torch.no_grad()
def encoders(bench: Bench) -> Iterator[Row]:
    """int16 waveform to clip embedding."""
    for name in bench.size.encoders:
        model = registry.build(ENCODERS[name]).to(bench.device).eval()
        for mode, run, batch in bench.modes(model):
            yield bench.row(name, mode, batch, lambda x: run(*x, RATE_HZ), lambda: clips(batch))


@torch.no_grad()
def captions(bench: Bench) -> Iterator[Row]:
    """Clips to captions with the full captioner: random weights never end a caption, so all 20 words are searched."""
    words = Vocabulary([*SPECIALS, *(f"w{i}" for i in range(4_977))])
    config = CaptionerConfig(audio=ENCODERS[bench.size.encoders[0]])
    model = TagGuidedCaptioner(config, words, [str(i) for i in range(527)]).to(bench.device).eval()
    for batch in bench.size.batches:
        tags = (torch.rand(batch, 527) < 0.005).float().to(bench.device)
        keys = [str(i) for i in range(batch)]
        encoded_audio = model.encode_audio(*(tensor.to(bench.device) for tensor in clips(batch)), RATE_HZ)
        for how in (Decoding(), Decoding(method="nucleus")):
            decode = partial(model.generate, encoded_audio, tags, how, keys)
            yield bench.row(f"decode, {how.method}", "eager", batch, lambda _: decode(), tuple)
        yield bench.row(
            "audio to caption, beam 3", "eager", batch,
            lambda x: model.generate(model.encode_audio(*x, RATE_HZ), tags, Decoding(), keys), lambda: clips(batch),
        )  # fmt: skip


def captioner_training(bench: Bench) -> Iterator[Row]:
    """One step of the full captioner over its frozen encoder: from true words, and with scheduled sampling."""
    words = Vocabulary([*SPECIALS, *(f"w{i}" for i in range(4_977))])
    config = CaptionerConfig(audio=ENCODERS[bench.size.encoders[0]], tagger=False)
    model = TagGuidedCaptioner(config, words, [str(i) for i in range(527)]).to(bench.device).train()
    model.encoder.cnn.freeze()
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-5)
    for batch in bench.size.batches:
        tags = (torch.rand(batch, 527) < 0.005).float().to(bench.device)
        for what, share in (("true words", 1.0), ("scheduled sampling", 0.85)):
            true_prefix = None if share == 1 else torch.rand(20) < share

            def step(inputs: Inputs, tags: Any = tags, true_prefix: Any = true_prefix) -> None:
                waveform, lengths, ids = inputs
                logits, _ = model(waveform, lengths, tags, ids, RATE_HZ, true_prefix)
                optimizer.zero_grad(set_to_none=True)
                nnf.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
                optimizer.step()

            def draw(batch: int = batch) -> Inputs:
                return (*clips(batch), torch.randint(4, 4_981, (batch, 21)))

            yield bench.row(f"captioner training step, {what}", "eager", batch, step, draw)


def training(bench: Bench) -> Iterator[Row]:
    """One step of BLAT's two towers: forward, backward, clipping, fused AdamW."""
    tokenizer = text.build_tokenizer(["a dog barks"], TextConfig())
    for name in bench.size.encoders[:3]:
        config = ClapConfig(audio=ENCODERS[name], text=TextConfig())
        model = Clap(config, text.restore(config.text, BERT_MEDIUM, tokenizer)).to(bench.device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        for mode, run, batch in bench.modes(model):
            step = _step(run, model, optimizer, batch)
            yield bench.row(f"training step, {name} + bert-medium", mode, batch, step, lambda: pairs(batch))


def largest_batches(bench: Bench) -> Iterator[Row]:
    """BLAT's own towers at batch 128, 512 and on until the memory ends: as they are, and with their blocks compiled."""
    tokenizer, config = (
        text.build_tokenizer(["a dog barks"], TextConfig()),
        ClapConfig(audio=ENCODERS[bench.size.encoders[0]]),
    )
    for mode in ("eager", "blocks compiled"):
        model = Clap(config, text.restore(config.text, BERT_MEDIUM, tokenizer)).to(bench.device).train()
        model = model.to(memory_format=torch.channels_last)
        if mode != "eager":
            for block in blocks(model):
                block.compile(dynamic=False, backend=bench.size.compiler)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        for batch in bench.size.training:
            if time.monotonic() - bench.started > BUDGET_S:
                break
            step = _step(model, model, optimizer, batch)
            try:
                yield bench.row(f"pre-training step, {bench.size.encoders[0]} + bert-medium", mode, batch, step,
                                lambda batch=batch: pairs(batch))  # type: ignore[misc]  # fmt: skip
            except torch.cuda.OutOfMemoryError:
                print(f"{mode}: batch {batch} does not fit", flush=True)
                optimizer.zero_grad(set_to_none=True)
                break


def pairs(batch: int) -> Inputs:
    """Return clips with captions of 30 tokens."""
    return (*clips(batch), torch.randint(5, 30_000, (batch, 30)), torch.ones(batch, 30, dtype=torch.long))


def _step(run: nn.Module, model: nn.Module, optimizer: torch.optim.Optimizer, batch: int) -> Callable[[Inputs], None]:
    def step(inputs: Inputs) -> None:
        audio, text, scale, _ = run(*inputs, sample_rate_hz=RATE_HZ)
        logits = scale * audio @ text.T
        target = torch.arange(batch, device=logits.device)
        loss = (nnf.cross_entropy(logits, target) + nnf.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def main(words: list[str] | None = None) -> int:
    """Check and measure; return 0, 1 when a test failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="make gpu-check", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda; cpu exercises the same code with tiny sizes")
    parser.add_argument("--append", metavar="FILE", help="append the table to this file, such as BENCHMARKS.md")
    options = parser.parse_args(words)
    on_gpu = options.device != "cpu"
    if on_gpu and not torch.cuda.is_available():
        print("gpu-check: torch sees no CUDA GPU on this machine; nothing was checked", file=sys.stderr)
        return 2
    if on_gpu and (failed := _tests()):
        return failed
    torch.manual_seed(0)
    bench = Bench(torch.device(options.device), FULL if on_gpu else QUICK)
    ceiling = bench.ceiling()
    rows: list[Row] = []
    for part in (front_ends, encoders, captions, captioner_training, training, largest_batches):
        rows += part(bench)
    report = table(
        rows, ceiling, torch.cuda.get_device_name() if on_gpu else "CPU, tiny sizes: these are no benchmarks"
    )
    print(f"\n{report}")
    if options.append:
        with Path(options.append).open("a") as file:
            file.write(f"\n{report}")
    return 0


def _tests() -> int:
    import pytest

    checks: list[Any] = ["--noconftest", "-o", "addopts=", "-m", "gpu", "-v", "tests/test_train_devices.py"]
    return 1 if pytest.main(checks) else 0


if __name__ == "__main__":
    sys.exit(main())

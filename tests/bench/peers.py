"""Ours beside what a user would write: a loop over clips in plain Python, and a training step of transformers' ClapModel.

open_clip_torch is not among the pinned packages, and is left out.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.utils.flop_counter import FlopCounterMode

from tests.bench import inputs
from tests.bench.ratio import CORES, Row, alternate, seconds
from tests.bench.sizes import Sizes
from train.configs import MEDIUM_CNN, SMALL_CLAP
from train.models import text
from train.models.clap import Clap

RATE_HZ = 32_000
TOKENS, WORDS = 30, 1_000
MEL_FRAMES, MELS = 1_001, 64  # of 10 s as ClapModel takes them
HIDDEN, HEADS, LAYERS, PATCH_DIM, DEPTHS = 128, 4, 2, 32, (2, 2, 2, 2)
TRAIN_CLIP_S = 10.0


def user_loop(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield our caption command beside a loop over clips, from the start of the command to its end."""
    captioner = inputs.write_captioner(folder)
    source = inputs.write_clips(folder, "flac", sizes.user_clips, sizes)
    out, theirs = folder / "user_ours", folder / "user_theirs"
    per_shard = str(sizes.clips_per_shard)
    words = ["--source", str(source), "--captioner", str(captioner), "--out", str(out), "--actors.max", "0"]
    words += ["--clips-per-shard", per_shard, "--batch-size", "32"]
    loop = (str(source), str(captioner), str(theirs), per_shard, str(CORES))

    def rate(command: list[str], written: Path) -> float:
        shutil.rmtree(written, ignore_errors=True)
        return sizes.user_clips / seconds(lambda: inputs.run(command))

    found = alternate(
        lambda: rate(inputs.stage("pipeline", "caption", "tiny", *words), out),
        lambda: rate(inputs.stage("tests.bench.user_loop", *loop), theirs),
        sizes.repeats,
    )
    yield Row(
        what=f"caption {sizes.user_clips} clips, whole command, beside a loop over clips",
        ours=f"{found.ours.median:.0f} clips/s",
        peer=f"{found.peer.median:.0f} clips/s, multiprocessing, {CORES} processes",
        found=found.ratio,
    )


def clap_step(_folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the arithmetic that a training step of our towers does in a second, beside that of ClapModel."""
    torch.manual_seed(0)
    torch.set_num_threads(CORES)
    ours, theirs = _our_step(sizes.train_batch), _their_step(sizes.train_batch)
    operations = [_count(step) / sizes.train_batch for step in (ours, theirs)]

    def rate(step: Callable[[], None], each: float) -> float:
        return sizes.train_steps * sizes.train_batch * each / _steps(step, sizes.train_steps) / 1e12

    ours(), theirs()
    found = alternate(lambda: rate(ours, operations[0]), lambda: rate(theirs, operations[1]), sizes.repeats)
    shown = [
        f"{spread.median / each * 1e12:.1f} samples/s of {each / 1e9:.2f} GFLOP"
        for spread, each in zip((found.ours, found.peer), operations, strict=True)
    ]
    yield Row(
        what=f"training step at equal FLOPs, CPU, {torch.get_num_threads()} threads",
        ours=f"{shown[0]}, log-mel included",
        peer=f"{shown[1]}, transformers' ClapModel",
        found=found.ratio,
    )


def _steps(step: Callable[[], None], count: int) -> float:
    return seconds(lambda: [step() for _ in range(count)])


def _count(step: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def _our_step(batch: int) -> Callable[[], None]:
    config = replace(
        SMALL_CLAP, audio=MEDIUM_CNN, clip_s=TRAIN_CLIP_S
    )  # costs what ClapModel does, within a factor of two
    model = Clap(config, text.build(config.text, [f"word{i} word{i + 1}" for i in range(WORDS)])).train()
    size = round(TRAIN_CLIP_S * RATE_HZ)
    waveform, lengths = torch.randint(-9_000, 9_000, (batch, size), dtype=torch.int16), torch.full((batch,), size)
    ids, mask = torch.randint(5, 500, (batch, TOKENS)), torch.ones(batch, TOKENS, dtype=torch.long)
    return _training(model, lambda: _logits(*model(waveform, lengths, ids, mask, RATE_HZ)[:3]))


def _their_step(batch: int) -> Callable[[], None]:
    audio = {"patch_embeds_hidden_size": PATCH_DIM, "hidden_size": 8 * PATCH_DIM, "depths": list(DEPTHS),
             "num_attention_heads": [2, 4, 8, 16], "projection_dim": HIDDEN}  # fmt: skip
    words = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
             "intermediate_size": 4 * HIDDEN, "vocab_size": WORDS, "projection_dim": HIDDEN}  # fmt: skip
    config = transformers.ClapConfig(text_config=words, audio_config=audio, projection_dim=HIDDEN)
    model = transformers.ClapModel(config).train()
    mel, longer = torch.randn(batch, 1, MEL_FRAMES, MELS), torch.zeros(batch, 1, dtype=torch.bool)
    ids = torch.randint(5, WORDS, (batch, TOKENS))

    def logits() -> Tensor:
        found = model(input_ids=ids, input_features=mel, is_longer=longer)
        return _logits(found.audio_embeds, found.text_embeds, model.logit_scale_a.exp())

    return _training(model, logits)


def _logits(audio: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    return scale * audio @ captions.T


def _training(model: nn.Module, logits: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        found = logits()
        target = torch.arange(len(found))
        optimizer.zero_grad(set_to_none=True)
        ((nnf.cross_entropy(found, target) + nnf.cross_entropy(found.T, target)) / 2).backward()
        optimizer.step()

    return step

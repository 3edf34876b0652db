"""The stages of `make gpu-check` that time networks alone: they need torch, torchaudio, transformers and numpy."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from tests.bench.gpu_table import Bench, Inputs, Row
from train.models import text
from train.models.blocks import blocks
from train.models.captioner import graphs
from train.models.captioner.config import CaptionerConfig
from train.models.captioner.decoding import Decoding
from train.models.captioner.encoder import EncodedAudio, Gru
from train.models.captioner.model import TagGuidedCaptioner
from train.models.captioner.vocabulary import SPECIALS, Vocabulary
from train.models.clap import Clap
from train.models.configs import ClapConfig, TextConfig
from train.models.encoders import registry
from train.models.encoders.configs import WIDTHS, Cnn14Config, MobileNetConfig, TransformerConfig
from train.models.encoders.encoder import AudioFeatures
from train.models.encoders.frontend import EfficientLogMel, KaldiFbank, LogMel, prepare

RATE_HZ, NUM_TAGS, FRAMES = 32_000, 527, 31
STRAYS = 0.3  # relative error of a compiled network in bfloat16: of random weights, as in test_train_devices.py
ENCODERS = {
    "cnn14": Cnn14Config(),
    "mn04": MobileNetConfig(width=WIDTHS["mn04"]),
    "mn10": MobileNetConfig(width=WIDTHS["mn10"]),
    "ast": TransformerConfig(),
    "tiny": Cnn14Config(channels=(4, 4, 8, 8, 8, 8)),
}


def clips(bench: Bench, batch: int) -> Inputs:
    """Return int16 noise (B, T) and its lengths."""
    size = round(RATE_HZ * bench.size.clip_s)
    return torch.randint(-20_000, 20_000, (batch, size), dtype=torch.int16), torch.full((batch,), size)


def captioner(bench: Bench, audio: str, **config: Any) -> TagGuidedCaptioner:
    """Return a captioner; with random weights it never ends a caption, so that all 20 words are searched."""
    torch.manual_seed(0)
    words = Vocabulary([*SPECIALS, *(f"w{i}" for i in range(bench.size.words - len(SPECIALS)))])
    network = CaptionerConfig(audio=ENCODERS[audio], clip_s=bench.size.clip_s, **config)
    return TagGuidedCaptioner(network, words, [str(i) for i in range(NUM_TAGS)]).to(
        bench.device, memory_format=torch.channels_last
    )


def tags(bench: Bench, batch: int) -> Tensor:
    """Return some tags (B, K) for each clip."""
    return (torch.rand(batch, NUM_TAGS) < 0.005).float().to(bench.device)


def decode_graph(bench: Bench) -> Iterator[Row]:
    """Decode by a graph and eagerly: the same captions, word for word, and both times."""
    model, batch = captioner(bench, "tiny", tagger=False).eval(), bench.size.batch  # no audio is encoded
    yield _decode(bench, model, Decoding(), "graph", batch)
    model.searches = graphs.eager  # type: ignore[assignment]
    yield _decode(bench, model, Decoding(), "eager", batch)
    given = _encoded(model, *(tensor.to(bench.device) for tensor in _memory(model, batch)))
    guides = tags(bench, batch)
    with torch.autocast(bench.device.type, torch.bfloat16):
        expected = model.generate(given, guides, Decoding())
        model.searches = graphs.Searches()
        found = [model.generate(given, guides, Decoding()) for _ in range(3)][-1]
    texts = [[[caption.text for caption in clip] for clip in each] for each in (expected, found)]
    assert texts[0] == texts[1], "the graph and the eager search choose different words"


def decode(bench: Bench) -> Iterator[Row]:
    """The other ways of decoding and other batches; the GRU before it; then from audio to caption."""
    size = bench.size
    model = captioner(bench, "tiny", tagger=False).eval()
    for how in (Decoding(method="greedy"), Decoding(method="nucleus")):
        if bench.fits(f"decode, {how.method}"):
            yield _decode(bench, model, how, "graph", size.batch)
    for batch in size.other_batches:
        if bench.fits(f"decode, batch {batch}"):
            yield _decode(bench, model, Decoding(), "graph", batch)
    for what, shortest in (("GRU, whole clips", FRAMES), ("GRU, clips of several lengths", 1)):
        if bench.fits(what):
            gru = Gru(2_048, 256, 3).to(bench.device).eval()
            lengths = torch.randint(shortest, FRAMES + 1, (size.batch,))
            draw = partial(_frames, size.batch, lengths)
            yield bench.row(what, "eager", size.batch, torch.no_grad()(lambda x, gru=gru: gru(*x)), draw)
    for name in size.encoders[:2]:
        if bench.fits(f"audio to caption, {name}"):
            model = captioner(bench, name, tagger=False).eval()
            model.encoder.cnn.compile_network(size.compiler)
            guides = tags(bench, size.batch)

            def run(x: Inputs, model: TagGuidedCaptioner = model, guides: Tensor = guides) -> None:
                model.generate(model.encode_audio(*x, RATE_HZ), guides, Decoding())

            what = f"audio to caption, {name}, beam 3"
            yield bench.row(what, "compiled", size.batch, run, lambda: clips(bench, size.batch))


def _decode(bench: Bench, model: TagGuidedCaptioner, how: Decoding, mode: str, batch: int) -> Row:
    guides, keys = tags(bench, batch), [str(i) for i in range(batch)]
    return bench.row(
        f"decode, {how.method}", mode, batch,
        lambda x: model.generate(_encoded(model, *x), guides, how, keys), lambda: _memory(model, batch),
    )  # fmt: skip


def _memory(model: TagGuidedCaptioner, batch: int) -> Inputs:
    return torch.randn(batch, FRAMES, 2 * model.config.gru_dim), torch.full((batch,), FRAMES)


def _frames(batch: int, lengths: Tensor) -> Inputs:
    return torch.randn(batch, FRAMES, 2_048), lengths


def _encoded(model: TagGuidedCaptioner, memory: Tensor, num_frames: Tensor) -> EncodedAudio:
    return EncodedAudio(AudioFeatures(memory, num_frames, memory[:, 0]), memory)


@torch.no_grad()
def encoders(bench: Bench) -> Iterator[Row]:
    """int16 waveform to clip embedding, as it is and compiled."""
    batch = bench.size.batch
    for name in bench.size.encoders:
        model = registry.build(ENCODERS[name]).eval()
        model.to(bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        def run(x: Inputs, model: registry.AudioEncoder = model) -> Tensor:
            return model(*x, RATE_HZ).clip

        probe = tuple(tensor.to(bench.device) for tensor in clips(bench, batch))
        with torch.autocast(bench.device.type, torch.bfloat16):
            expected = run(probe).float()
        if bench.fits(f"{name}, eager"):
            yield bench.row(name, "eager", batch, run, lambda: clips(bench, batch))
        if bench.fits(f"{name}, compiled"):
            model.compile_network(bench.size.compiler)
            yield bench.row(name, "compiled", batch, run, lambda: clips(bench, batch))
            with torch.autocast(bench.device.type, torch.bfloat16):
                error = ((run(probe) - expected).norm() / expected.norm()).item()
            assert error < STRAYS, f"{name}: the compiled network strays by {error:.1e}"


def front_ends(bench: Bench) -> Iterator[Row]:
    """Waveform to log-mel, and resampling before it."""
    batch = bench.size.batch
    mels: dict[str, tuple[nn.Module, int]] = {
        "log-mel of PANNs": (LogMel(RATE_HZ, 320, 64), RATE_HZ),
        "log-mel of EfficientAT": (EfficientLogMel(RATE_HZ, 320, 128, jitter=False), RATE_HZ),
        "filterbank of AST": (KaldiFbank(128), 16_000),
    }
    for name, (mel, rate_hz) in mels.items():
        there = mel.to(bench.device).eval()

        def run(x: Inputs, there: nn.Module = there, rate_hz: int = rate_hz) -> None:
            there(prepare(*x, rate_hz, rate_hz)[0])

        if bench.fits(name):
            yield bench.row(name, "eager", batch, run, lambda: clips(bench, batch))
    if bench.fits("resampling"):
        yield bench.row("resample 44.1 to 32 kHz", "eager", batch, lambda x: prepare(*x, 44_100, RATE_HZ),
                        lambda: clips(bench, batch))  # fmt: skip


def captioner_training(bench: Bench) -> Iterator[Row]:
    """One step of the captioner over its frozen encoder: from true words, and with scheduled sampling."""
    model, batch = captioner(bench, bench.size.encoders[0], tagger=False).train(), bench.size.batch
    model.encoder.cnn.freeze()
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-5)
    guides = tags(bench, batch)
    for what, share in (("true words", 1.0), ("scheduled sampling", 0.85)):
        true_prefix = None if share == 1 else torch.rand(20) < share

        def step(inputs: Inputs, true_prefix: Tensor | None = true_prefix) -> None:
            waveform, lengths, ids = inputs
            logits, _ = model(waveform, lengths, guides, ids, RATE_HZ, true_prefix)
            optimizer.zero_grad(set_to_none=True)
            nnf.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimizer.step()

        def draw() -> Inputs:
            return (*clips(bench, batch), torch.randint(len(SPECIALS), bench.size.words, (batch, 21)))

        if bench.fits(f"captioner training step, {what}"):
            yield bench.row(f"captioner training step, {what}", "eager", batch, step, draw)


def two_towers(bench: Bench) -> Clap:
    """Return BLAT's two towers: the first of the encoders, and BERT-medium."""
    torch.manual_seed(0)
    tokenizer = text.build_tokenizer(["a dog barks"], TextConfig())
    config = ClapConfig(audio=ENCODERS[bench.size.encoders[0]], text=TextConfig(), clip_s=bench.size.clip_s)
    layers, dim = bench.size.bert
    bert = {
        "model_type": "bert", "vocab_size": 30_522, "hidden_size": dim, "num_hidden_layers": layers,
        "num_attention_heads": 8, "intermediate_size": 4 * dim,
    }  # fmt: skip
    return Clap(config, text.restore(config.text, bert, tokenizer)).to(bench.device)


def pretraining(bench: Bench) -> Iterator[Row]:
    """One step of the two towers: forward, backward, clipping, fused AdamW; as it is, and compiled."""
    models = {mode: two_towers(bench).train().to(memory_format=torch.channels_last) for mode in ("eager", "compiled")}
    models["compiled"].audio_encoder.compile_network(bench.size.compiler)
    for block in blocks(models["compiled"].text_encoder):
        block.compile(dynamic=False, backend=bench.size.compiler)
    steps = {mode: contrastive_step(model) for mode, model in models.items()}
    what = f"pre-training step, {bench.size.encoders[0]} + bert-medium"
    for batch in sorted(bench.size.training, reverse=True):
        for mode, step in steps.items():
            if bench.fits(f"{what}, {mode}, batch {batch}"):
                yield bench.row(what, mode, batch, step, lambda batch=batch: pairs(bench, batch))  # type: ignore[misc]


def pairs(bench: Bench, batch: int) -> Inputs:
    """Return clips with captions of 30 tokens."""
    return (*clips(bench, batch), torch.randint(5, 30_000, (batch, 30)), torch.ones(batch, 30, dtype=torch.long))


def contrastive_step(model: Clap) -> Callable[[Inputs], None]:
    """Return one training step on a batch of waveforms, lengths, tokens and their mask."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step(inputs: Inputs) -> None:
        audio, words, scale, *_ = model(*inputs, sample_rate_hz=RATE_HZ)
        logits = scale * audio @ words.T
        target = torch.arange(len(logits), device=logits.device)
        loss = (nnf.cross_entropy(logits, target) + nnf.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step

"""The models on every device and precision: CPU in `make test`, the same tests on CUDA in `make gpu-check`.

The reference is the CPU in float32. Errors are ||found - expected|| / ||expected||; the tolerances are 1e-3 in float32 (TF32
off) and 5e-2 in bfloat16 under autocast, whose single operations keep 8 bits. MobileNet with random weights strays further,
0.23 on the CPU (0.03 to 0.08 with the real weights of mn04), and gets 0.3. Imports torch, numpy and the networks alone.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as nnf

from train.models import text
from train.models.captioner import graphs, search
from train.models.captioner.cache import DecoderCache
from train.models.captioner.config import CaptionerConfig
from train.models.captioner.decoding import Decoding
from train.models.captioner.model import TagGuidedCaptioner
from train.models.captioner.vocabulary import MAX_WORDS, SPECIALS, Vocabulary
from train.models.clap import Clap
from train.models.configs import ClapConfig, TextConfig
from train.models.encoders import registry
from train.models.encoders.configs import AudioConfig, Cnn14Config, MobileNetConfig, TransformerConfig
from train.models.encoders.frontend import EfficientLogMel, KaldiFbank, LogMel, prepare

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
RATE_HZ = 32_000
ENCODERS: list[AudioConfig] = [
    Cnn14Config(channels=(8, 16, 32, 64, 64, 64)),
    MobileNetConfig(width=0.4, jitter=False),
    TransformerConfig(max_frames=204, hidden_dim=64, layers=2, heads=4),
]
TEXT = TextConfig(name="", hidden_dim=32, layers=2, heads=2, dropout=0.0)
CAPTIONS = ["a dog barks", "rain falls while a siren wails", "a clock ticks", "wind"]


class Place(NamedTuple):
    """Where a test runs."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def close(self, found: Tensor, expected: Tensor, bfloat16: float = TOLERANCE[torch.bfloat16]) -> None:
        error = ((found.float().cpu() - expected).norm() / expected.norm()).item()
        limit = TOLERANCE[torch.float32] if self.dtype == torch.float32 else bfloat16
        assert error <= limit, f"relative error {error:.2e} on {self.device} in {self.dtype}, limit {limit}"


@pytest.fixture(
    params=[
        ("cpu", torch.float32),
        ("cpu", torch.bfloat16),
        pytest.param(("cuda", torch.float32), marks=pytest.mark.gpu),
        pytest.param(("cuda", torch.bfloat16), marks=pytest.mark.gpu),
    ],
    ids=lambda param: f"{param[0]}-{str(param[1]).rpartition('.')[2]}",
)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    device, dtype = request.param
    saved = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(0)
    yield Place(torch.device(device), dtype)
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = saved


def clips(seconds: float = 2.0) -> tuple[Tensor, Tensor]:
    """Four int16 clips of unequal length, padded: noise in bursts over 60 dB, since even noise is all mean to BatchNorm."""
    size, burst = round(seconds * RATE_HZ), RATE_HZ // 10
    generator = torch.Generator().manual_seed(0)
    loudness = 10 ** (-3 * torch.rand(4, size // burst, generator=generator)).repeat_interleave(burst, dim=1)
    waveform = 9_000 * loudness * torch.randn(4, size, generator=generator)
    length = torch.tensor([size, size // 2, size // 3, 700])
    return (waveform * (torch.arange(size) < length[:, None])).clamp(-32_768, 32_767).to(torch.int16), length


def settle(model: torch.nn.Module) -> None:
    """Give BatchNorm the statistics of its inputs, so that activations of random weights neither vanish nor explode."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(*clips())
    model.eval()


@pytest.mark.parametrize(
    "make",
    [
        lambda: LogMel(RATE_HZ, 320, 64),
        lambda: EfficientLogMel(RATE_HZ, 320, 128, jitter=False),
        lambda: KaldiFbank(128),
    ],
    ids=["panns", "efficientat", "kaldi"],
)
def test_front_end_stays_in_float32(place: Place, make: type) -> None:
    waveform, _ = prepare(*clips(), RATE_HZ, RATE_HZ)
    expected = make()(waveform)
    with place.autocast():
        found = make().to(place.device)(waveform.to(place.device))
    assert found.dtype == torch.float32
    assert (found.cpu() - expected).abs().max() < 2e-3 * expected.abs().max()


def test_resampling(place: Place) -> None:
    waveform, length = clips()
    expected, _ = prepare(waveform, length, 44_100, RATE_HZ)
    with place.autocast():
        found, _ = prepare(waveform.to(place.device), length.to(place.device), 44_100, RATE_HZ)
    assert found.dtype == torch.float32
    assert (found.cpu() - expected).abs().max() < 1e-4


@pytest.mark.parametrize("config", ENCODERS, ids=lambda config: config.encoder)
def test_encoder(place: Place, config: AudioConfig) -> None:
    model = registry.build(config)
    settle(model)
    waveform, length = clips()
    with torch.no_grad():
        expected = model(waveform, length, RATE_HZ)
        model.to(place.device)
        with place.autocast():
            found = model(waveform.to(place.device), length.to(place.device), RATE_HZ)
    assert found.num_frames.tolist() == expected.num_frames.tolist()
    limit = 0.3 if isinstance(config, MobileNetConfig) else TOLERANCE[torch.bfloat16]
    place.close(found.clip, expected.clip, limit)
    valid = expected.mask[..., None]
    place.close(found.frames * valid.to(place.device), expected.frames * valid, limit)


def two_towers(config: AudioConfig) -> Clap:
    model = Clap(ClapConfig(audio=config, text=TEXT, joint_dim=32, clip_s=2.0), text.build(TEXT, CAPTIONS))
    settle(model.audio_encoder)
    return model


@pytest.mark.parametrize("config", ENCODERS, ids=lambda config: config.encoder)
def test_two_towers_batch_equals_single(place: Place, config: AudioConfig) -> None:
    model = two_towers(config).eval().to(place.device)
    waveform, length = clips()
    arrays = [clip[:size].numpy() for clip, size in zip(waveform, length.tolist(), strict=True)]
    with place.autocast():
        together = model.embed_clips(arrays, RATE_HZ)
        alone = torch.cat([model.embed_clips([clip], RATE_HZ) for clip in arrays])
    assert together.dtype == torch.float32
    assert (together - alone).abs().max() < (1e-5 if place.dtype == torch.float32 else 2e-2)


def test_training_step(place: Place) -> None:
    """Loss and gradients of one contrastive step against the CPU in float32."""
    model = two_towers(Cnn14Config(channels=(8, 16, 32, 64, 64, 64), block_dropout=0.0, clip_dropout=0.0)).train()
    inputs = (*clips(), *model.text_encoder.tokenize(CAPTIONS))

    def step(device: torch.device, context: contextlib.AbstractContextManager) -> tuple[float, Tensor]:
        model.to(device).zero_grad()
        with context:
            audio, text, scale, *_ = model(*(tensor.to(device) for tensor in inputs), sample_rate_hz=RATE_HZ)
            loss = nnf.cross_entropy(scale * audio @ text.T, torch.arange(4, device=device))
        loss.backward()
        return loss.item(), torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])

    expected_loss, expected = step(torch.device("cpu"), contextlib.nullcontext())
    found_loss, found = step(place.device, place.autocast())
    assert found_loss == pytest.approx(expected_loss, rel=TOLERANCE[place.dtype])
    assert torch.isfinite(found).all()
    direction = torch.cosine_similarity(found, expected, dim=0).item()
    assert direction > (0.999 if place.dtype == torch.float32 else 0.7)  # 0.78 with the AMX units of a CPU


@pytest.fixture(scope="module")
def captioner() -> TagGuidedCaptioner:
    torch.manual_seed(0)
    config = CaptionerConfig(
        audio=Cnn14Config(channels=(8, 16, 32, 64, 64, 64)), clip_s=2.0, gru_layers=2, gru_dim=32, model_dim=32,
        decoder_heads=4, decoder_feedforward=64, classifier_bias=True,
    )  # fmt: skip
    words = Vocabulary([*SPECIALS, *(f"w{i}" for i in range(60))])
    model = TagGuidedCaptioner(config, words, ["Rain", "Dog", "Clock"])
    with torch.no_grad():  # sharp distributions, so that rounding seldom changes a choice
        model.decoder.classifier.weight *= 12
    settle(model.encoder.cnn)
    return model.eval()


def test_cached_decoding_equals_whole_prefixes(place: Place, captioner: TagGuidedCaptioner) -> None:
    decoder = captioner.decoder.to(place.device)
    memory, num_frames = torch.randn(4, 7, 64).to(place.device), torch.tensor([7, 1, 3, 5]).to(place.device)
    words, rows = torch.randint(4, 64, (4, 20)).to(place.device), torch.arange(4).to(place.device)
    guidance = torch.randn(4, 32).to(place.device)
    with torch.no_grad(), place.autocast():
        whole = decoder(words, memory, num_frames, guidance).float().log_softmax(dim=-1)
        cache = DecoderCache(decoder, memory, num_frames, guidance, 1, MAX_WORDS)
        found = torch.stack([cache.step(words[:, t], rows) for t in range(20)], dim=1)
    place.close(found, whole.cpu())


def test_beam_search_over_any_decoder_is_the_same_everywhere(place: Place) -> None:
    logits = torch.randn(16, 20, 30, 30)
    logits[..., 2] += torch.linspace(-8, 8, 16)[:, None, None]  # from clips that never end to clips that end at once
    table = logits.log_softmax(dim=-1)

    def found(device: torch.device) -> search.Decoded:
        there, clip, position = table.to(device), torch.arange(48, device=device) // 3, iter(range(20))
        beams = search.Beam(lambda words, _: there[clip, next(position), words], 16, 3, MAX_WORDS, device)
        search.run(beams)
        return beams.result()

    expected, here = found(torch.device("cpu")), found(place.device)
    assert torch.equal(here.words.cpu(), expected.words)
    assert torch.allclose(here.scores.cpu(), expected.scores, atol=1e-5)


@pytest.mark.parametrize("how", [Decoding(num_captions=3), Decoding(method="nucleus", num_captions=2)], ids=str)
def test_captions_of_a_batch_and_of_its_clips(place: Place, captioner: TagGuidedCaptioner, how: Decoding) -> None:
    """In float32 the texts are those of the CPU; in bfloat16 a near-tie may fall otherwise, so scores are compared."""
    waveform, length = clips()
    tags, keys = captioner.multi_hot([["Rain"], [], ["Dog", "Clock"], []]), list("abcd")
    expected = captioner.cpu().generate(captioner.encode_audio(waveform, length), tags, how, keys)
    captioner.to(place.device)
    with place.autocast():
        encoded_audio = captioner.encode_audio(waveform.to(place.device), length.to(place.device))
        found = captioner.generate(encoded_audio, tags.to(place.device), how, keys)
    if place.dtype == torch.float32:
        assert [[c.text for c in clip] for clip in found] == [[c.text for c in clip] for clip in expected]
    elif how.method == "beam":
        best, wanted = [clip[0].score for clip in found], [clip[0].score for clip in expected]
        assert best == pytest.approx(wanted, abs=0.1)
    assert all(clip and torch.tensor(clip[0].log_probs).isfinite().all() for clip in found)


GRAPHED = [
    Decoding(num_captions=3), Decoding(method="greedy"), Decoding(method="nucleus", num_captions=2, temperature=1.5),
    Decoding(beams=5),
]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("how", GRAPHED, ids=str)
def test_graphs_choose_the_words_of_the_eager_search(
    captioner: TagGuidedCaptioner, how: Decoding, dtype: torch.dtype
) -> None:
    """Several batches in a row, two shapes in turn, weights that change in place, and a model that moves."""
    device = torch.device("cuda")
    decoder, searches = captioner.decoder.to(device), graphs.Searches()
    generator = torch.Generator().manual_seed(0)

    def same(batch: int, frames: int) -> None:
        drawn = (torch.randn(batch, frames, 64, generator=generator), torch.randint(1, frames + 1, (batch,)),
                 torch.randn(batch, 32, generator=generator), torch.rand(batch, how.rows, MAX_WORDS))  # fmt: skip
        memory, num_frames, guidance, draws = (each.to(device) for each in drawn)
        inputs = graphs.Inputs(memory, num_frames, guidance, draws if how.method == "nucleus" else None)
        with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            expected = graphs.eager(decoder, inputs, how, MAX_WORDS)
            found = searches(decoder, inputs, how, MAX_WORDS)
        assert all(map(torch.equal, found, expected))  # to the bit: shards must not depend on which batch came first

    for _ in range(4):  # a shape is captured when it comes again
        same(8, 7)
        same(3, 31)
    assert sum(held is not None for held in searches._graphs.values()) == 2
    saved = {name: value.clone() for name, value in decoder.state_dict().items()}
    decoder.load_state_dict({name: value.roll(1, 0) for name, value in saved.items()})
    same(8, 7)
    decoder.load_state_dict(saved)
    same(8, 7)
    decoder.cpu()
    taken = [torch.zeros_like(value, device=device) for value in saved.values()]  # where the weights were
    decoder.to(device)
    for _ in range(3):
        same(8, 7)
    del taken


@pytest.mark.gpu
def test_threads_share_the_graphs(captioner: TagGuidedCaptioner) -> None:
    captioner.to("cuda")
    waveform, length = (tensor.to("cuda") for tensor in clips())
    tags = captioner.multi_hot([["Rain"], [], ["Dog", "Clock"], []]).to("cuda")
    encoded = [captioner.encode_audio(waveform.roll(i, 0), length.roll(i, 0)) for i in range(4)]
    expected = [captioner.generate(each, tags, Decoding(num_captions=3)) for each in encoded]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda each: captioner.generate(each, tags, Decoding(num_captions=3)), encoded * 5))
    texts = [[[caption.text for caption in clip] for clip in batch] for batch in found]
    assert texts == [[[caption.text for caption in clip] for clip in batch] for batch in expected] * 5

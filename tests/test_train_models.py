"""Networks: the numbers of the specification, and behaviour that must hold at any size."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from train.configs import SMALL_CNN, TINY_CAPTIONER, TINY_CLAP
from train.models import beam
from train.models.captioner import CaptionerConfig, TagEncoder, TagGuidedCaptioner
from train.models.clap import Clap
from train.models.cnn14 import Cnn14, Cnn14Config, LogMel
from train.models.text import build_tokenizer
from train.models.words import END, MAX_WORDS, SPECIALS, START, Vocabulary

CAPTIONS = ["a dog barks", "rain falls while a siren wails", "a clock ticks"]


def vocabulary(size: int) -> Vocabulary:
    return Vocabulary([*SPECIALS, *(f"w{i}" for i in range(size - 4))])


def test_captioner_has_the_released_parameter_counts() -> None:
    model = TagGuidedCaptioner(CaptionerConfig(), vocabulary(4981), [str(i) for i in range(527)])
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    gru = sum(p.numel() for p in model.encoder.rnn.parameters())
    assert gru == 5_907_456
    assert count["decoder"] == 4_788_992
    assert count["label_encoder"] == 134_912
    assert sum(p.numel() for p in model.encoder.cnn.parameters()) == 79_673_792


@pytest.mark.parametrize(("samples", "frames"), [(9_920, 1), (10_240, 1), (32_000, 3), (160_000, 15), (320_000, 31)])
def test_valid_frames_follow_the_length_rule(samples: int, frames: int) -> None:
    assert Cnn14(Cnn14Config()).valid_frames(torch.tensor([samples])).item() == frames


def test_very_short_clips_give_finite_embeddings_alone_and_in_a_batch() -> None:
    model = Cnn14(SMALL_CNN).eval()
    short = torch.randn(1, 200)
    assert torch.isfinite(model(short, torch.tensor([200])).clip).all()
    batch = torch.zeros(2, 64_000)
    batch[0, :200], batch[1] = short[0], torch.randn(64_000)
    assert torch.isfinite(model(batch, torch.tensor([200, 64_000])).clip).all()


def test_log_mel_shape_and_floor() -> None:
    config = Cnn14Config()
    mel = LogMel(config)(torch.zeros(1, 32_000))
    assert mel.shape == (1, 64, 101)
    assert torch.all(mel == -100.0)


def test_a_tone_lights_its_mel_band() -> None:
    t = torch.arange(32_000) / 32_000
    low, high = (LogMel(Cnn14Config())(torch.sin(2 * math.pi * f * t)[None]).mean(2).argmax() for f in (300.0, 6_000.0))
    assert low < high


def test_int16_and_float_input_agree() -> None:
    model = Cnn14(SMALL_CNN).eval()
    samples = torch.randint(-9_000, 9_000, (1, 64_000), dtype=torch.int16)
    length = torch.tensor([64_000])
    assert torch.allclose(model(samples, length).clip, model(samples.float() / 32_768, length).clip)


def test_no_tags_give_a_zero_vector_and_tags_their_mean() -> None:
    encoder = TagEncoder(3, 4)
    out = encoder(torch.tensor([[0.0, 0, 0], [1, 0, 1]]))
    assert torch.all(out[0] == 0)
    assert torch.allclose(out[1], (encoder.label_embedding[0] + encoder.label_embedding[2]) / 2)


def test_batch_gives_what_single_clips_give() -> None:
    torch.manual_seed(0)
    model = Clap(TINY_CLAP, build_tokenizer(CAPTIONS, 200)).eval()
    waveform, length = torch.randn(3, model.clip_samples), torch.tensor([model.clip_samples, 40_000, 9_000])
    together = model.encode_audio(waveform, length)
    alone = torch.cat([model.encode_audio(waveform[i : i + 1], length[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)
    text = model.encode_text(*model.tokenize(CAPTIONS))
    assert torch.allclose(text[1:2], model.encode_text(*model.tokenize(CAPTIONS[1:2])), atol=1e-5)
    assert torch.allclose(text.norm(dim=1), torch.ones(3), atol=1e-5)


def test_long_clips_are_windows_averaged_by_length() -> None:
    torch.manual_seed(0)
    model = Clap(TINY_CLAP, build_tokenizer(CAPTIONS, 200)).eval()
    clip = np.random.default_rng(0).integers(-9_000, 9_000, model.clip_samples * 3 // 2).astype(np.int16)
    whole, rest = clip[: model.clip_samples], clip[model.clip_samples :]
    parts = model.embed_clips([whole]), model.embed_clips([rest])
    expected = torch.nn.functional.normalize(parts[0] * len(whole) + parts[1] * len(rest), dim=-1)
    assert torch.allclose(model.embed_clips([rest, clip])[1:], expected, atol=1e-5)


BUILD = "from train.models.text import build_tokenizer; print(build_tokenizer({!r}, 60).to_str())"


def test_the_tokenizer_is_the_same_in_every_process() -> None:
    texts = [f"word{i % 17} sound{i % 13} of{i % 7}" for i in range(200)]
    made = {
        subprocess.run([sys.executable, "-c", BUILD.format(texts)], capture_output=True, check=True).stdout
        for _ in range(3)
    }
    assert len(made) == 1
    assert b"sound4" in made.pop()


def test_tokenizer_spells_unknown_words() -> None:
    tokenizer = build_tokenizer(CAPTIONS, 200)
    assert tokenizer.encode("A dog barks").tokens == ["[CLS]", "a", "dog", "barks", "[SEP]"]
    assert tokenizer.encode("bark").tokens == ["[CLS]", "b", "##a", "##r", "##k", "[SEP]"]


def test_tags_change_the_caption_distribution() -> None:
    torch.manual_seed(0)
    model = TagGuidedCaptioner(TINY_CAPTIONER, Vocabulary.build(CAPTIONS), ["Rain", "Dog"]).eval()
    waveform, length = torch.randn(1, 64_000), torch.tensor([64_000])
    words = torch.tensor([model.vocabulary.encode(CAPTIONS[0])])
    guided, free = (model(waveform, length, model.multi_hot([tags]), words)[0] for tags in (["Rain"], ["unheard of"]))
    assert not torch.allclose(guided, free)


def test_words_round_trip_and_cut() -> None:
    words = Vocabulary.build(["A dog's bark, then: rain!"])
    assert words.words[4:] == ["a", "dog's", "bark", "then", "rain"]
    assert words.decode(words.encode("a dog's rain")) == "a dog's rain"
    assert len(words.encode("a " * 50)) == MAX_WORDS + 2


def slow_search(log_probs: np.ndarray, beams: int) -> list[beam.Hypothesis]:
    """The reference for one clip, literally: table (steps, V, V) of next-word log-probabilities by last word."""
    live = [(0.0, [START])] * beams
    done: list[beam.Hypothesis] = []
    for t in range(MAX_WORDS):
        grown = [
            (score + log_probs[t, ids[-1], v], [*ids, v])
            for score, ids in (live[:1] if t == 0 else live)
            for v in range(log_probs.shape[2])
        ]
        live = sorted(grown, key=lambda item: -item[0])[:beams]
        for i, (score, ids) in enumerate(live):
            if ids[-1] == END or t == MAX_WORDS - 1:
                words = ids[1:]
                done.append(beam.Hypothesis(score / (t + 1), words[: words.index(END)] if END in words else words))
                live[i] = (score - 1000.0, ids)
        if len(done) == beams:
            break
    return sorted(done, key=lambda h: -h.score)


@pytest.mark.parametrize("end_bias", [-6.0, 0.0, 3.0])  # hardly ever finishes, sometimes, at once
def test_batched_beam_search_equals_the_slow_reference(end_bias: float) -> None:
    rng = np.random.default_rng(0)
    clips, beams, size = 5, 3, 9
    logits = rng.normal(size=(clips, MAX_WORDS, size, size)) * 2
    logits[..., END] += end_bias
    table = torch.log_softmax(torch.tensor(logits, dtype=torch.float64), dim=-1).float()

    def step(prefixes: torch.Tensor) -> torch.Tensor:
        clip = torch.arange(len(prefixes)) // beams
        return table[clip, prefixes.shape[1] - 1, prefixes[:, -1]]

    found = beam.search(step, clips, beams, torch.device("cpu"))
    for clip in range(clips):
        expected = slow_search(table[clip].numpy(), beams)
        assert [h.ids for h in found[clip][:3]] == [h.ids for h in expected[:3]]
        assert found[clip][0].score == pytest.approx(expected[0].score, abs=1e-4)


def test_configs_survive_json() -> None:
    from train.checkpoint import _nested

    assert CaptionerConfig(**_nested(dataclasses.asdict(TINY_CAPTIONER))) == TINY_CAPTIONER

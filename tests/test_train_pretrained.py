"""The Python API: files and texts in, answers out; checkpoints to and from folders, S3 and a hub."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from pipeline import storage
from pipeline.audio import AudioError
from pipeline.errors import InputError
from tests.support.hub import Hub
from train import checkpoint
from train.models.captioner.decoding import Decoding
from train.models.configs import TaggerConfig
from train.models.encoders.configs import MobileNetConfig
from train.models.tagger import Tagger
from train.pretrained import AudioTagger, Captioner, Embedder


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Clips of several rates, channel counts, lengths and formats."""
    rng = np.random.default_rng(0)
    shapes = {"a.wav": (44_100, (30_000,)), "b.flac": (16_000, (90_000, 2)), "c.ogg": (48_000, (20_000,))}
    for name, (rate_hz, shape) in shapes.items():
        soundfile.write(tmp_path / name, rng.normal(size=shape) * 0.1, rate_hz)
    return [str(tmp_path / name) for name in shapes]


def test_three_lines_embed_files_and_texts(clap: str, files: list[str]) -> None:
    embedder = Embedder.from_pretrained(clap)
    audio, text = embedder.embed_audio(files), embedder.embed_text(["a dog barks", "rain"])
    similarity = embedder.similarity(audio, text)
    assert similarity.shape == (3, 2)
    assert similarity.abs().max() <= 1 + 1e-5
    assert torch.allclose(embedder.embed_audio(files[1:2]), audio[1:2], atol=1e-5)


def test_many_files_go_in_batches(clap: str, files: list[str]) -> None:
    embedder = Embedder.from_pretrained(clap)
    many = embedder.embed_audio(files * 12)
    assert many.shape[0] == 36
    assert torch.allclose(many[33:], many[:3], atol=1e-5)


def test_nothing_gives_nothing(clap: str, captioner: str) -> None:
    embedder = Embedder.from_pretrained(clap)
    audio, text = embedder.embed_audio([]), embedder.embed_text([])
    assert audio.shape == text.shape == (0, 16) and audio.dtype == text.dtype == torch.float32
    assert embedder.similarity(embedder.embed_text(["rain", "wind"]), audio).shape == (2, 0)
    assert Captioner.from_pretrained(captioner).caption([]) == []


def test_three_lines_caption_files(captioner: str, files: list[str]) -> None:
    model = Captioner.from_pretrained(captioner)
    tag = model.model.tags[0]
    guided = model.caption(files, tags=[[tag], [], [tag]])
    assert [len(captions) for captions in guided] == [1, 1, 1]
    assert guided[0][0].text
    assert guided[1] == model.caption(files)[1]
    sampled = model.caption(files, "predicted", Decoding(method="nucleus", num_captions=3))
    assert sampled == model.caption(files, "predicted", Decoding(method="nucleus", num_captions=3))


def test_unknown_tags_are_named(captioner: str, files: list[str]) -> None:
    with pytest.raises(ValueError, match=r"unknown: \['Gong'\]"):
        Captioner.from_pretrained(captioner).caption(files[:1], tags=[["Gong"]])
    with pytest.raises(ValueError, match="3 files, 1 lists of tags"):
        Captioner.from_pretrained(captioner).caption(files, tags=[[]])


def test_a_broken_file_is_named(clap: str, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"text\.wav"):
        Embedder.from_pretrained(clap).embed_audio([str(tmp_path / "text.wav")])


def test_a_tagger_names_what_it_hears(files: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Tagger(TaggerConfig(audio=MobileNetConfig(width=0.1, num_classes=3)), ["Dog", "Rain", "Wind, gusts"])
    checkpoint.save(str(tmp_path / "tagger"), network, {}, [])
    found = AudioTagger.from_pretrained(str(tmp_path / "tagger")).tag(files, top=2)
    assert [len(row) for row in found] == [2, 2, 2]
    assert all(row[0][1] >= row[1][1] for row in found)
    assert {name for row in found for name, _ in row} <= {"Dog", "Rain", "Wind, gusts"}


def test_another_kind_or_no_checkpoint_is_named(clap: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a clap, not a captioner"):
        Captioner.from_pretrained(clap)
    with pytest.raises(InputError, match="no checkpoint there"):
        Embedder.from_pretrained(str(tmp_path))


def test_saving_keeps_weights_and_lineage(captioner: str, tmp_path: Path) -> None:
    first = Captioner.from_pretrained(captioner)
    first.save_pretrained(str(tmp_path))
    second = Captioner.from_pretrained(str(tmp_path))
    assert second.lineage == first.lineage
    assert second.clips == first.clips
    assert second.clips
    held = first.model.state_dict()
    assert all(torch.equal(held[name], tensor) for name, tensor in second.model.state_dict().items())


def test_a_checkpoint_travels_through_s3(clap: str, s3: str, files: list[str]) -> None:
    Embedder.from_pretrained(clap).save_pretrained(f"{s3}/models/clap")
    there = Embedder.from_pretrained(f"{s3}/models/clap")
    assert torch.equal(there.embed_audio(files), Embedder.from_pretrained(clap).embed_audio(files))


def test_the_lines_of_the_readme_run(clap: str, captioner: str, tmp_path: Path, files: list[str]) -> None:
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    names = {
        "build/demo/models/round1": clap,
        "build/demo/captioner": captioner,
        "rain.flac": files[0],
        "bell.wav": files[1],
    }
    for name, here in names.items():
        assert name in block
        block = block.replace(f'"{name}"', repr(here))
    found: dict = {}
    exec(block, found)
    assert found["similarity"].shape == (2, 3)
    assert [len(captions) for captions in found["captions"]] == [1]


PUSH = """
import sys
from train.pretrained import Embedder
print(Embedder.from_pretrained(sys.argv[1]).push_to_hub("team/model"))
again = Embedder.from_pretrained("team/model")
print(again.embed_text(["a dog barks"]).tolist())
try:
    Embedder.from_pretrained("team/absent")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_checkpoint_travels_through_a_hub(clap: str, tmp_path: Path) -> None:
    """The hub's client does its real requests, to a server here that answers as the hub does."""
    with Hub() as hub:
        environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_x"}
        done = subprocess.run(
            [sys.executable, "-c", PUSH, clap],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert sorted(hub.files) == sorted(storage.list_names(clap))
    assert hub.files["model.safetensors"] == storage.read(storage.join(clap, "model.safetensors"))
    address, vector, absent = done.stdout.strip().splitlines()[-3:]
    assert address.startswith(hub.address)
    expected = Embedder.from_pretrained(clap).embed_text(["a dog barks"])
    assert json.loads(vector)[0] == pytest.approx(expected[0].tolist(), abs=1e-6)
    assert absent.startswith("InputError name 'team/absent': no such folder, and not on the hub")

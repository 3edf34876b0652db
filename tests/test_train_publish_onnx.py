"""ONNX files of two towers: torch's vectors without torch, by the examples of the card as a reader runs them."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch

from pipeline.errors import InputError, JobError
from tests.bench import onnx as bench
from tests.support.published import run_alone
from train import checkpoint
from train.configs import TINY_CLAP, TINY_CNN
from train.models import text
from train.models.clap import Clap
from train.models.configs import ClapConfig
from train.models.encoders import frontend
from train.models.encoders.cnn14 import Cnn14
from train.models.encoders.configs import AudioConfig, Cnn14Config, MobileNetConfig, TransformerConfig
from train.pretrained import Embedder
from train.publishing import onnx_files, spectra
from train.stages import publish
from train.stages.publish import PublishConfig

TEXTS = ["a dog barks", "it rains", "a bell is struck"]
TRANSFORMER = TransformerConfig(max_frames=204, hidden_dim=32, layers=1, heads=2)


def towers(audio: AudioConfig = TINY_CNN, padding: str = "clip") -> Clap:
    torch.manual_seed(0)
    config = ClapConfig(audio=audio, text=TINY_CLAP.text, joint_dim=16, clip_s=2.0, padding=padding)  # type: ignore[arg-type]
    return Clap(config, text.build(config.text, TEXTS)).eval()


def sounds(rate_hz: int, seconds: float = 2.0) -> torch.Tensor:
    """Return noise, a loud tone, a chirp, near silence and silence, (5, T)."""
    t = torch.arange(round(rate_hz * seconds)) / rate_hz
    noise = 0.1 * torch.randn(len(t), generator=torch.Generator().manual_seed(0))
    tone, chirp = 0.9 * torch.sin(2 * torch.pi * 440 * t), 0.3 * torch.sin(2 * torch.pi * 2_000 * t * t)
    return torch.stack([noise, tone, chirp, 1e-3 * noise, 0 * t]).float()


@pytest.mark.parametrize(
    ("exact", "without_fft"),
    [
        (frontend.LogMel(32_000, 320, 64), spectra.ConvLogMel),
        (frontend.EfficientLogMel(32_000, 320, 128, False).eval(), spectra.ConvEfficientLogMel),
        (frontend.KaldiFbank(128), spectra.ConvKaldiFbank),
    ],
    ids=["LogMel", "EfficientLogMel", "KaldiFbank"],
)
def test_a_front_end_without_fft_has_the_same_numbers(exact: torch.nn.Module, without_fft: type) -> None:
    """Of noise to rounding; of a loud tone in the bins that have power: rounding decides what lies 90 dB below."""
    x = sounds(16_000 if isinstance(exact, frontend.KaldiFbank) else 32_000)
    ours, theirs = without_fft(exact)(x), exact(x)
    assert ours.shape == theirs.shape
    for row in (0, 3, 4):
        torch.testing.assert_close(ours[row], theirs[row], atol=2e-3, rtol=1e-4)
    spread = theirs[1:3].max() - theirs[1:3].min()
    loud = theirs[1:3] > theirs[1:3].max() - 0.5 * spread
    torch.testing.assert_close(ours[1:3][loud], theirs[1:3][loud], atol=0.05, rtol=1e-2)


@pytest.mark.parametrize(
    ("audio", "padding", "width"),
    [
        (TINY_CNN, "clip", 64_000),
        (TINY_CNN, "none", "samples"),
        (MobileNetConfig(width=0.1), "none", "samples"),
        (TRANSFORMER, "none", 32_000),
    ],
)
def test_any_number_of_windows_and_where_the_model_takes_it_any_length(
    audio: AudioConfig, padding: str, width: object, tmp_path: Path
) -> None:
    """`write` compares with torch by itself: batches of one to three, the shortest and the longest windows."""
    described = onnx_files.write(tmp_path, towers(audio, padding))
    session = onnxruntime.InferenceSession(tmp_path / "audio.onnx")
    assert [each.shape for each in session.get_inputs()] == [["batch", width], ["batch"]]
    assert (described.samples is None) == (width == "samples")
    (ids, mask) = onnxruntime.InferenceSession(tmp_path / "text.onnx").get_inputs()
    assert ids.shape == mask.shape == ["batch", described.max_tokens]


def test_a_file_that_differs_from_torch_is_an_error(tmp_path: Path) -> None:
    network = towers()
    described = onnx_files.write(tmp_path, network)
    with torch.no_grad():
        network.audio_proj.bias.add_(0.01)
    with pytest.raises(JobError, match=r"audio.onnx differs from torch by \d.\de-0\d for an input \(2, 64000\)"):
        onnx_files.compare_audio(tmp_path, network, described)


@pytest.fixture(scope="module", params=["clip", "none"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, its publication with ONNX files, and a sound of two and a half windows."""
    folder = tmp_path_factory.mktemp("onnx")
    checkpoint.save(str(folder / "model"), towers(padding=request.param), {"stage": "train pretrain"}, [])
    publish.run(PublishConfig(model=str(folder / "model"), out=str(folder / "round1"), onnx=True, int8=True))
    soundfile.write(folder / "sound.wav", sounds(32_000, 5.0)[:3].sum(dim=0).numpy() / 2, 32_000)
    return folder


def test_the_examples_of_the_card_run_and_give_the_cosines(published: Path) -> None:
    """The second example runs without torch and transformers."""
    card = (published / "round1" / "README.md").read_text()
    with_torch, without = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    without += "\nassert not {'torch', 'transformers'} & set(sys.modules)"
    printed = run_alone(
        with_torch + "\nprint('cosines', (outputs.audio_embeds @ outputs.text_embeds.T)[0].tolist())", published
    )
    printed += run_alone(without + "\nprint('cosines', (text @ audio).tolist())", published)
    by_transformers, by_onnx = (json.loads(line[8:]) for line in printed.splitlines() if line.startswith("cosines "))
    embedder = Embedder.from_pretrained(str(published / "model"))
    expected = embedder.similarity(embedder.embed_audio([str(published / "sound.wav")]), embedder.embed_text(TEXTS))[0]
    assert by_transformers == pytest.approx(expected.tolist(), abs=2e-4)  # the file has 16 bits, read as floats
    assert by_onnx == pytest.approx(by_transformers, abs=1e-4)


def test_weights_of_8_bits_are_smaller_and_close(published: Path) -> None:
    folder, rng = published / "round1", np.random.default_rng(0)
    network = checkpoint.load(str(published / "model")).model
    tokens, mask = network.text_encoder.tokenize(TEXTS)
    inputs = {
        "audio": {
            "waveform": rng.normal(0, 0.1, (2, 64_000)).astype(np.float32),
            "num_samples": np.array([64_000] * 2),
        },
        "text": {"input_ids": tokens.numpy(), "attention_mask": mask.numpy()},
    }
    for part, arrays in inputs.items():
        exact, small = (
            onnxruntime.InferenceSession(folder / f"{part}{kind}.onnx").run(None, arrays)[0] for kind in ("", "_int8")
        )
        assert (exact * small).sum(axis=1).min() > 0.95
        assert not np.array_equal(exact, small)


def test_an_encoder_without_a_front_end_for_onnx_is_named() -> None:
    class Other(Cnn14):
        pass

    encoder = Other(Cnn14Config(channels=(4, 8)))
    assert isinstance(spectra.replaced(encoder).melspec_extractor, spectra.ConvLogMel)
    with pytest.raises(ValueError, match="Identity has no front end for ONNX"):
        spectra.replaced(torch.nn.Identity())  # type: ignore[arg-type]


def test_onnx_without_its_packages_is_an_error_of_the_command(
    monkeypatch: pytest.MonkeyPatch, clap: str, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"--onnx True: pip install -e '.\[onnx\]' brings"):
        publish.run(PublishConfig(model=clap, out=str(tmp_path / "out"), onnx=True))
    assert not (tmp_path / "out").exists()


def test_the_bench_measures_all_three(
    clap: str, corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    publish.run(PublishConfig(model=clap, out=out, onnx=True, int8=True))
    bench.main(["--model", clap, "--published", out, "--task-dir", corpus])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == ["torch", "ONNX", "ONNX, int8"]
    assert float(rows[2][3]) < 1e-4 < float(rows[3][3]) < 0.2

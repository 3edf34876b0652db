"""Checkpoints under the interfaces of HEAR, X-ARES and mteb, the last by mteb's own evaluator, without network."""

from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

from eval import adapters
from pipeline.errors import InputError
from tests.support import tones
from train import checkpoint
from train.models.configs import TaggerConfig
from train.models.encoders.configs import MobileNetConfig
from train.models.tagger import Tagger

RATE_HZ = 32_000


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    uri = str(tmp_path_factory.mktemp("tagger"))
    checkpoint.save(
        uri, Tagger(TaggerConfig(audio=MobileNetConfig(width=0.1, num_classes=2)), ["a", "b"]).eval(), {}, []
    )
    return uri


def sounds(count: int, seconds: float, rate_hz: int = RATE_HZ) -> torch.Tensor:
    return 0.1 * torch.randn(count, round(seconds * rate_hz), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["clap", "tagger"])
def test_hear_gives_a_scene_and_timed_frames(kind: str, request: pytest.FixtureRequest) -> None:
    model = adapters.load_model(request.getfixturevalue(kind))
    audio = sounds(3, 12.5, model.sample_rate)
    scene = adapters.get_scene_embeddings(audio, model)
    assert scene.shape == (3, model.scene_embedding_size) and scene.dtype == torch.float32
    frames, times = adapters.get_timestamp_embeddings(audio, model)
    assert frames.shape == (*times.shape, model.timestamp_embedding_size) and len(times) == 3
    assert bool((times.diff(dim=1) > 0).all()) and float(times.min()) > 0
    edges_s = model.frames.encoder.frame_edges_s(len(times[0]))
    assert times[0, :4] == pytest.approx(500 * (edges_s[:4] + edges_s[1:5]))
    second = times[0] >= 10_000
    assert times[0, second][:4] == pytest.approx(10_000 + times[0, :4])
    hop_ms = model.frames.hop_size_in_ms
    assert 12_500 - 1.5 * hop_ms < float(times.max()) < 12_500 + hop_ms
    alone = adapters.get_scene_embeddings(audio[1:2], model)
    size = float(scene.abs().max())  # tiny, with random weights
    assert torch.allclose(alone[0], scene[1], atol=1e-4 * size)
    one, _ = adapters.get_timestamp_embeddings(audio[1:2], model)
    assert torch.allclose(one[0], frames[1], atol=1e-4 * float(frames.abs().max()))
    assert float((scene[0] - scene[1]).abs().max()) > 1e-3 * size, "no difference"


@pytest.mark.parametrize("kind", ["clap", "tagger"])
def test_hear_is_given_sounds_at_a_rate_it_knows_and_hears_the_same(kind: str, request: pytest.FixtureRequest) -> None:
    """hearvalidator accepts four rates, our encoders' 32 kHz not among them."""
    model = adapters.load_model(request.getfixturevalue(kind))
    assert model.sample_rate == 48_000
    own = sounds(1, 4.0)
    resampled = torch.from_numpy(soxr.resample(own[0].numpy(), RATE_HZ, model.sample_rate))[None]
    expected = model.network.encode_clips([own[0].numpy()]).features
    embeddings = adapters.get_scene_embeddings(resampled, model)
    assert torch.allclose(embeddings, expected, atol=0.02 * float(expected.abs().max()))
    frames, times = adapters.get_timestamp_embeddings(resampled, model)
    theirs, their_times = adapters.FrameEncoder(request.getfixturevalue(kind)).timed(own)
    assert times == pytest.approx(their_times) and frames.shape == theirs.shape


@pytest.mark.parametrize("kind", ["clap", "tagger", "captioner"])
def test_x_ares_gets_frames_at_the_hop_it_was_told(kind: str, request: pytest.FixtureRequest) -> None:
    encoder = adapters.FrameEncoder(request.getfixturevalue(kind))
    assert encoder.sampling_rate == RATE_HZ
    for seconds in (4.0, 10.0, 23.0):
        frames = encoder(sounds(2, seconds))
        assert frames.shape[0] == 2 and frames.shape[2] == encoder.output_dim
        assert abs(frames.shape[1] - 1_000 * seconds / encoder.hop_size_in_ms) <= 1 + seconds // 10
    assert encoder(sounds(1, 4.0)[0]).shape[0] == 1


def test_what_is_no_model_is_told(tmp_path: Path, captioner: str) -> None:
    for make in (adapters.FrameEncoder, adapters.load_model, adapters.MtebEncoder):
        with pytest.raises(InputError, match="no checkpoint there"):
            make(str(tmp_path))
    with pytest.raises(InputError, match="holds a captioner"):
        adapters.load_model(captioner)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> object:
    return tones.make(tmp_path_factory.mktemp("sounds"))


def test_mteb_evaluates_two_towers(clap: str, task: object) -> None:
    import mteb
    from mteb.models import EncoderProtocol

    model = adapters.MtebEncoder(clap)
    assert isinstance(model, EncoderProtocol)
    result = mteb.evaluate(model, task, cache=None)  # type: ignore[arg-type]
    assert not result.exceptions, result.exceptions
    (scores,) = result.task_results[0].scores["test"]
    ours = checkpoint.load(clap).model
    task.load_data()  # type: ignore[attr-defined]
    rows = task.dataset["test"]  # type: ignore[attr-defined]
    embeddings = ours.embed_clips([np.asarray(row["audio"]["array"], np.float32) for row in rows])
    text_embeddings = ours.embed_texts(task.get_candidate_labels())  # type: ignore[attr-defined]
    guess = (embeddings @ text_embeddings.T).argmax(dim=1).numpy()
    assert scores["accuracy"] == pytest.approx(float((guess == np.array(rows["label"])).mean()))
    assert result.model_revision == checkpoint.load(clap).revision


def test_a_tagger_has_no_text_for_mteb(tagger: str) -> None:
    import datasets
    from torch.utils.data import DataLoader

    model = adapters.MtebEncoder(tagger)
    assert model.mteb_model_meta.modalities == ["audio"]
    with pytest.raises(ValueError, match="no text tower"):
        model.encode(DataLoader(datasets.Dataset.from_dict({"text": ["a dog"]})))
    pairs = model.similarity_pairwise(np.eye(3), np.eye(3)[::-1].copy())
    assert torch.equal(pairs, model.similarity(np.eye(3), np.eye(3)[::-1].copy()).diag())

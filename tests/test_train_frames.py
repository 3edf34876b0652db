"""The loss of frames against phrases: targets and values by hand, ranks as one process, and pre-training with it."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, distributed, nn
from torch.nn import functional as nnf

from pipeline import storage
from pipeline.errors import InputError
from pipeline.graph.caption_config import CaptionConfig
from pipeline.stages.caption import run as run_caption
from train import checkpoint, parallel
from train.configs import PRETRAIN
from train.data.augment import AugmentConfig
from train.data.loader import Batch
from train.data.order import Order, Step
from train.data.timed import of_step
from train.losses.frames import Events, loss, targets
from train.models.clap import FrameTowers as Frames
from train.models.encoders import registry
from train.models.encoders.configs import Cnn14Config, MobileNetConfig, TransformerConfig
from train.models.encoders.encoder import AudioEncoder
from train.stages.pretrain import PretrainConfig, run

TINY: PretrainConfig = PRETRAIN["tiny"][1]
EDGES = torch.arange(5) * 0.5  # four frames of half a second


def frames(audio: Tensor, phrase: Tensor, scale: float = 2.0, bias: float = -1.0, valid: int = 4) -> Frames:
    counts = torch.full((len(audio),), valid)
    return Frames(audio, counts, EDGES, phrase, torch.tensor(scale), torch.tensor(bias))


def events(
    *rows: tuple[int, int, float, float], known: list[bool], unclear: list[tuple[int, int]] | None = None
) -> Events:
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    pairs = torch.tensor(unclear or [], dtype=torch.int64).reshape(-1, 2)
    return Events(table[:, :2].long(), table[:, 2:], torch.tensor(known), pairs)


def test_a_phrase_sounds_in_frames_whose_middle_a_segment_covers() -> None:
    """The middles are at 0.25, 0.75, 1.25 and 1.75 s; a segment of 0.8 to 0.9 s covers none and marks the second."""
    given = frames(torch.zeros(2, 4, 3), torch.zeros(3, 3))
    found = targets(
        given, events((0, 0, 0.2, 0.8), (0, 2, 0.8, 0.9), (0, 2, 1.7, 9.0), (1, 1, 5.0, 6.0), known=[True] * 2)
    )
    assert found[0].T.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]]
    assert not found[1].any(), "a segment beyond the row marks nothing"


def test_values_by_hand() -> None:
    """Two phrases, one clip: a right pair costs log(1 + e^-x), a wrong one log(1 + e^x), a frame beyond the end nothing."""
    audio = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(-1))  # logits 1 and -1
    found = loss(
        frames(audio, torch.eye(2), valid=3),
        events((0, 0, 0.0, 1.0), (0, 1, 1.0, 1.5), known=[True]),
        torch.tensor([True]),
        parallel.Ranks(1),
    )
    assert float(found) == pytest.approx((3 * right + 3 * wrong) / 3)


def test_clips_of_unknown_times_and_broken_ones_do_not_count() -> None:
    random = torch.Generator().manual_seed(0)
    audio, phrase = nnf.normalize(torch.randn(4, 4, 3, generator=random), dim=2), nnf.normalize(torch.randn(2, 3))
    own = events((0, 0, 0.0, 1.0), (2, 1, 1.0, 2.0), known=[True, False, True, True])
    found = loss(frames(audio, phrase), own, torch.tensor([True, True, True, False]), parallel.Ranks(4))
    kept = events((0, 0, 0.0, 1.0), (1, 1, 1.0, 2.0), known=[True, True])
    assert float(found) == pytest.approx(
        float(loss(frames(audio[[0, 2]], phrase), kept, torch.tensor([True, True]), parallel.Ranks(2)))
    )
    nothing = events(known=[False] * 4)
    assert float(loss(frames(audio, phrase), nothing, torch.ones(4, dtype=torch.bool), parallel.Ranks(4))) == 0


def test_a_tag_without_times_is_no_negative_of_its_clip() -> None:
    """The pair is left out: the loss is that of the other phrase alone."""
    random = torch.Generator().manual_seed(2)
    audio, phrase = torch.randn(1, 4, 3, generator=random), torch.randn(2, 3, generator=random)
    own, valid = events((0, 0, 0.0, 1.0), known=[True], unclear=[(0, 1)]), torch.tensor([True])
    alone = loss(frames(audio, phrase[:1]), events((0, 0, 0.0, 1.0), known=[True]), valid, parallel.Ranks(1))
    torch.testing.assert_close(loss(frames(audio, phrase), own, valid, parallel.Ranks(1)), alone)


def gradients(rows: slice) -> dict[str, Tensor]:
    """Return the gradients of a batch of five clips, of which this rank takes some rows."""
    random = torch.Generator().manual_seed(1)
    waveform, phrase = torch.randn(5, 4, 3, generator=random).double(), torch.randn(3, 3, generator=random).double()
    torch.manual_seed(0)
    audio, text = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    every = [(0, 0, 0.0, 1.0), (1, 1, 0.5, 2.0), (3, 2, 0.0, 0.5), (4, 0, 1.0, 1.5)]
    held = list(range(5))[rows]
    own = events(*[(held.index(row), *rest) for row, *rest in every if row in held], known=[row != 2 for row in held])
    valid = torch.tensor([row != 1 for row in held])
    compared = frames(nnf.normalize(audio(waveform[rows]), dim=2), nnf.normalize(text(phrase), dim=1))
    loss(compared, own, valid, parallel.Ranks(5)).backward()
    return {f"{n}.{p}": w.grad for n, m in (("audio", audio), ("text", text)) for p, w in m.named_parameters()}


def one_rank(rank: int, size: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    found = {name: parallel.mean(gradient) for name, gradient in gradients(slice(rank, None, size)).items()}
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    distributed.destroy_process_group()


def test_two_ranks_of_unequal_shares_have_the_gradients_of_one_process(tmp_path: Path) -> None:
    mp.spawn(one_rank, args=(2, str(tmp_path)), nprocs=2)
    found, expected = torch.load(tmp_path / "found.pt"), gradients(slice(None))
    assert expected["text.weight"].abs().max() > 0
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-6), name


class Timed:
    """Three clips: rain and a bell, a bell, and one of unknown times."""

    keys = ["a", "b", "c"]
    texts, tags = [["x"], ["y"], ["z"]], [["Rain, falling"], ["Bell", "Rain"], ["Bell"]]
    phrases = [
        [{"phrase": "rain", "segments": [[0.0, 1.0]]}, {"phrase": "bell", "segments": [[1.0, 1.5], [2.0, 3.0]]}],
        [{"phrase": "bell", "segments": [[0.5, 1.0]]}],
        None,
    ]

    def location(self, index: int) -> Any:
        raise AssertionError("no audio is read")


def test_a_rank_gets_the_phrases_of_the_whole_batch_and_the_times_of_its_rows() -> None:
    order = Order(sizes=(3,), batch_size=3, seed=0)
    indices = order.step(0).clips
    for rank in range(2):
        own = [int(index) for index in indices[rank::2]]
        tags = [Timed.tags[index] for index in own]
        batch = Batch([], torch.empty(0), torch.empty(0), [], tags, own, [16_000] * len(own), torch.empty(0))
        found = of_step(Timed(), order, batch, Step(0, 0))
        assert found.texts == ["bell", "rain"]
        assert found.known.tolist() == [index != 2 for index in own]
        without_times = {1: "rain", 2: "bell"}  # tags of clips that no time belongs to
        assert {(own[row], found.texts[phrase]) for row, phrase in found.unclear.tolist()} == {
            (index, without_times[index]) for index in own if index in without_times
        }
        sizes = {0: 3, 1: 1, 2: 0}
        assert len(found.place) == sum(sizes[index] for index in own)
        for (row, phrase), (start_s, end_s) in zip(found.place.tolist(), found.segment_s.tolist(), strict=True):
            words = next(each for each in Timed.phrases[own[row]] or [] if each["phrase"] == found.texts[phrase])
            assert [start_s + 0.5, end_s + 0.5] in words["segments"], "half a second was cropped"


@pytest.mark.parametrize(
    "config",
    [
        Cnn14Config(channels=(4, 8, 8), num_mels=16, hop_samples=320),
        MobileNetConfig(width=0.1),
        TransformerConfig(hidden_dim=16, layers=1, heads=2, max_frames=204),
    ],
    ids=lambda config: type(config).__name__,
)
def test_frames_of_an_encoder_lie_where_the_sound_is(config: Any) -> None:
    """A second of noise in two of silence changes the frames of that second, and those within the network's reach."""
    torch.manual_seed(0)
    encoder: AudioEncoder = registry.build(config).eval()
    rate_hz = encoder.sample_rate_hz
    waveform = torch.zeros(2, 2 * rate_hz)
    waveform[1, rate_hz // 2 : 3 * rate_hz // 2] = 0.3 * torch.randn(rate_hz)
    with torch.no_grad():
        features = encoder(waveform, torch.tensor([2 * rate_hz] * 2))
    edges = encoder.frame_edges_s(features.frames.shape[1])
    assert len(edges) == features.frames.shape[1] + 1 and (edges.diff() > 0).all() and 1.5 < edges[-1] < 2.6
    if isinstance(config, Cnn14Config):  # the others have means and attention that reach everywhere
        change = (features.frames[1] - features.frames[0]).norm(dim=1)
        active = torch.nonzero(change > 0.1 * change.max()).flatten()
        assert float(edges[active[0]]) == pytest.approx(0.5, abs=0.15)
        assert float(edges[active[-1] + 1]) == pytest.approx(1.5, abs=0.15)
    assert encoder.embed_frames(features.frames).shape == features.frames.shape
    one = encoder(waveform[1:, :rate_hz], torch.tensor([rate_hz]))
    assert encoder.embed_frames(one.frames).shape[2] == one.clip.shape[1]


@pytest.fixture(scope="module")
def timed(caption_config: CaptionConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("timed") / "dataset")
    run_caption(dataclasses.replace(caption_config, out=out, timed=True))
    return out


def test_pretraining_learns_the_frames_and_goes_on_from_them(timed: str, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, data=(timed,), out=str(tmp_path / "frames"), frame_weight=1.0)
    run(config)
    loaded = checkpoint.load(config.out)
    assert loaded.info.network.frames and loaded.info.lineage["frame_weight"] == 1.0
    assert float(loaded.model.frame_bias.detach()) != -10.0 and float(loaded.model.frame_scale.detach()) != math.log(
        10.0
    )
    for out, more in (("on", {"frame_weight": 0.5}), ("off", {})):
        next_config = dataclasses.replace(TINY, data=(timed,), init=config.out, out=str(tmp_path / out), **more)
        run(next_config)
        learned = checkpoint.load(next_config.out).model
        assert (float(learned.frame_bias.detach()) == float(loaded.model.frame_bias.detach())) == (out == "off")


def test_times_change_nothing_without_the_weight(timed: str, dataset: str, tmp_path: Path) -> None:
    for name, data in (("with", timed), ("without", dataset)):
        run(dataclasses.replace(TINY, data=(data,), out=str(tmp_path / name)))
    one, other = (storage.read(str(tmp_path / name / "model.safetensors")) for name in ("with", "without"))
    assert one == other


def test_what_cannot_be_is_refused(dataset: str, timed: str, tmp_path: Path) -> None:
    def refused(match: str, data: str = timed, **changes: Any) -> None:
        config = dataclasses.replace(TINY, data=(data,), out=str(tmp_path / "out"), **{"frame_weight": 1.0} | changes)
        with pytest.raises(InputError, match=match):
            run(config)

    refused(r"--frame-weight 1.0: no clip of --data has phrases.*pipeline caption --timed", dataset)
    refused("--frame-weight -1.0: use 0 or more", frame_weight=-1.0)
    refused("--grad-cache-chunks 2: with --frame-weight", grad_cache_chunks=2)
    refused("--augment.mix-fraction 0.5: with --frame-weight", augment=AugmentConfig(mix_fraction=0.5))
    network = dataclasses.replace(TINY.network, frames=True)
    refused("--network.frames True: is learned with --frame-weight", network=network, frame_weight=0.0)
    assert not (tmp_path / "out").exists()

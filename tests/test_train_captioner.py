"""The captioner stage: its audio encoder, the released recipe, validation."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from pipeline import sources, storage
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError
from train import checkpoint
from train.configs import CAPTIONER
from train.models.captioner.vocabulary import Subwords
from train.models.configs import TaggerConfig
from train.models.encoders.configs import MobileNetConfig
from train.models.tagger import Tagger
from train.stages.captioner import TrainCaptionerConfig, run, train
from train.trainer.context import Context
from train.validation import captions


@pytest.fixture
def mn01(tmp_path: Path) -> str:
    """A converted tagger with random weights."""
    uri = str(tmp_path / "mn01")
    network = Tagger(TaggerConfig(audio=MobileNetConfig(width=0.1, num_classes=5)), list("abcde"))
    checkpoint.save(uri, network, {}, [])
    return uri


def config(corpus: str, tmp_path: Path, **changes: object) -> TrainCaptionerConfig:
    tiny = CAPTIONER["tiny"][1]
    network = dataclasses.replace(tiny.network, audio=MobileNetConfig(width=0.1))
    source = (storage.join(corpus, "captioned_segments.csv"),)
    return dataclasses.replace(tiny, network=network, source=source, out=str(tmp_path / "captioner"), **changes)


def test_a_frozen_encoder_leaves_training_as_it_came(corpus: str, tmp_path: Path, mn01: str) -> None:
    run(config(corpus, tmp_path, init_audio=mn01, freeze_audio=True))
    made = checkpoint.load(str(tmp_path / "captioner"))
    before = checkpoint.load(mn01).model.encoder.state_dict()
    after = made.model.encoder.cnn.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert made.info.lineage["init_audio"] == mn01


def test_an_encoder_that_is_not_frozen_is_trained(corpus: str, tmp_path: Path, mn01: str) -> None:
    run(config(corpus, tmp_path, init_audio=mn01))
    before = checkpoint.load(mn01).model.encoder.state_dict()
    after = checkpoint.load(str(tmp_path / "captioner")).model.encoder.cnn.state_dict()
    changed = [name for name, tensor in after.items() if not torch.equal(before[name], tensor)]
    assert "features.0.0.weight" in changed
    assert "features.0.1.running_mean" in changed


def test_a_plain_captioner_trains_without_tags(corpus: str, tmp_path: Path) -> None:
    tiny = CAPTIONER["tiny"][1]
    network = dataclasses.replace(tiny.network, guided=False, tagger=False)
    source = (storage.join(corpus, "captioned_segments.csv"),)
    run(dataclasses.replace(tiny, network=network, source=source, out=str(tmp_path / "plain")))
    model = checkpoint.load(str(tmp_path / "plain")).model
    assert model.label_encoder is None
    assert model.tagger is None


def released(corpus: str, out: Path, **changes: Any) -> TrainCaptionerConfig:
    """The released recipe at the size of the tests."""
    full, tiny = CAPTIONER["audiocaps"][1], CAPTIONER["tiny"][1]
    optim = dataclasses.replace(full.optim, epochs=4, batch_size=8, lr=1e-2, swa_epochs=2, save_every_s=0.0)
    config = dataclasses.replace(
        full,
        network=dataclasses.replace(tiny.network, tagger=False),
        freeze_audio=False,
        optim=optim,
        scale=tiny.scale,
        source=(storage.join(corpus, "captioned_segments.csv"),),
        out=str(out),
    )
    return dataclasses.replace(config, **changes)


def test_the_released_recipe_averages_validates_and_keeps_the_best(corpus: str, held_out: str, tmp_path: Path) -> None:
    run(released(corpus, tmp_path, validation=held_out))
    history = storage.read_json(str(tmp_path / "history.json"))
    assert [each["epoch"] for each in history["epochs"]] == [1, 2, 3, 4, "average"]
    assert all(each["cider_d"] >= 0 for each in history["epochs"]) and len(history["loss"]) == 12
    best = max(history["epochs"][:4], key=lambda each: each["cider_d"])
    assert checkpoint.load(str(tmp_path / "best")).info.lineage["epoch"]["cider_d"] == best["cider_d"]
    made = checkpoint.load(str(tmp_path))
    assert made.info.lineage["epoch"]["epoch"] == "average"
    clips = captions.read(held_out)
    again = captions.measure(clips, Context())(made.model)
    assert again["cider_d"] == pytest.approx(history["epochs"][-1]["cider_d"], abs=1e-5)


def test_validation_clips_are_never_trained_on(corpus: str, tmp_path: Path) -> None:
    same = storage.join(corpus, "captioned_segments.csv")
    with pytest.raises(InputError, match=r"--validation .*24 of its clips are trained on"):
        run(released(corpus, tmp_path, validation=same))


def test_validation_clips_that_cannot_be_read_are_left_out_and_told(corpus: str, held_out: str, tmp_path: Path) -> None:
    clips = sources.read_clips(held_out)
    names = [clip.uri if i else str(tmp_path / "gone.flac") for i, clip in enumerate(clips)]
    rows = "".join(f'{name},"{clip.captions[0]}"\n' for name, clip in zip(names, clips, strict=True))
    (tmp_path / "val.csv").write_text(f"file,caption\n{rows}")
    run(released(corpus, tmp_path / "out", validation=str(tmp_path / "val.csv")))
    lineage = checkpoint.load(str(tmp_path / "out")).info.lineage
    assert list(lineage["broken_validation"].values()) == ["missing"] and lineage["tag_dropout"] == 0.0
    assert len(checkpoint.selected_on(str(tmp_path / "out" / "best"))) == len(clips) - 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tag_dropout": 25.0}, r"--tag-dropout 25.0: use a share"),
        ({"label_smoothing": 1.0}, r"--label-smoothing 1.0"),
        ({"min_word_count": 0}, r"--min-word-count 0"),
        ({"final_teacher_forcing": -1.0}, r"--final-teacher-forcing -1.0"),
    ],
)
def test_numbers_that_cannot_be_are_named(corpus: str, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(released(corpus, tmp_path, **changes))


def test_one_clip_is_refused(corpus: str, tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("file,labels,caption\n0.wav,Rain,rain\n")
    config = dataclasses.replace(released(corpus, tmp_path / "out"), source=(str(tmp_path / "clips.csv"),))
    with pytest.raises(InputError, match=r"--source .*fewer than 2 clips"):
        run(config)
    assert not (tmp_path / "out").exists()


def test_guidance_without_a_single_tag_is_refused(corpus: str, tmp_path: Path) -> None:
    rows = "".join(f"{clip.uri},a sound\n" for clip in sources.read_clips(f"{corpus}/captioned_segments.csv"))
    (tmp_path / "metadata.csv").write_text(f"file,caption\n{rows}")
    config = released(corpus, tmp_path / "out", source=(str(tmp_path / "metadata.csv"),))
    with pytest.raises(InputError, match=r"--source .*no clip has a tag to guide it.*--network.no-guided"):
        run(config)


def test_nothing_is_selected_on_a_test_split(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--validation .*evaluation_segments.csv.*is a test split by its name"):
        run(released(corpus, tmp_path, validation=storage.join(corpus, "evaluation_segments.csv")))


def test_subwords_train_and_load(corpus: str, tmp_path: Path) -> None:
    tiny = CAPTIONER["tiny"][1]
    network = dataclasses.replace(tiny.network, subwords=True)
    source = (storage.join(corpus, "captioned_segments.csv"),)
    run(dataclasses.replace(tiny, network=network, num_subwords=80, source=source, out=str(tmp_path)))
    model = checkpoint.load(str(tmp_path)).model
    assert isinstance(model.vocabulary, Subwords) and len(model.vocabulary) == 80


def test_shards_are_a_source(dataset: str, tmp_path: Path) -> None:
    tiny = CAPTIONER["tiny"][1]
    run(dataclasses.replace(tiny, source=(dataset,), out=str(tmp_path)))
    assert set(checkpoint.trained_on(str(tmp_path))) == set(ClipIndex(dataset).keys)


def one_rank(rank: int, folder: str, config: TrainCaptionerConfig) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    train(config, config.out, {}, {}, Context(rank=rank, world_size=2))
    distributed.destroy_process_group()


def test_two_workers_take_the_steps_of_one(corpus: str, tmp_path: Path) -> None:
    """Captions of unequal lengths, tag dropout and scheduled sampling, without what draws by rank: dropout, BatchNorm."""
    tiny = CAPTIONER["tiny"][1]
    network = dataclasses.replace(tiny.network, audio=MobileNetConfig(width=0.1, dropout=0.0), dropout=0.0)
    source = (storage.join(corpus, "captioned_segments.csv"),)
    uri = str(tmp_path / "encoder")
    checkpoint.save(uri, Tagger(TaggerConfig(audio=MobileNetConfig(width=0.1, num_classes=5)), list("abcde")), {}, [])
    config = dataclasses.replace(
        tiny, network=network, source=source, init_audio=uri, freeze_audio=True, final_teacher_forcing=0.5,
        validation=storage.join(corpus, "evaluation_segments.csv"),
    )  # fmt: skip
    one, two = (dataclasses.replace(config, out=str(tmp_path / name)) for name in ("one", "two"))
    train(one, one.out, {}, {}, Context())
    mp.spawn(one_rank, args=(str(tmp_path), two), nprocs=2)
    first, second = (checkpoint.load(each.out).model for each in (one, two))
    inputs = (torch.randn(4, 64_000), torch.full((4,), 64_000), first.multi_hot([first.tags[:2]] * 4))
    words = torch.randint(4, len(first.vocabulary), (4, 9))
    with torch.no_grad():  # the logits: some weights, such as biases of keys, have no gradient but rounding
        logits = [model(*inputs, words)[0] for model in (first, second)]
    assert float(logits[0].std()) > 0.5 and torch.allclose(*logits, atol=2e-3), (logits[0] - logits[1]).abs().max()
    epochs = [storage.read_json(storage.join(each.out, "history.json"))["epochs"] for each in (one, two)]
    assert [e["cider_d"] for e in epochs[0]] == pytest.approx([e["cider_d"] for e in epochs[1]], abs=1e-3)


def test_freezing_needs_weights_and_they_must_fit(corpus: str, tmp_path: Path, mn01: str, clap: str) -> None:
    with pytest.raises(InputError, match="--init-audio is missing: a frozen audio encoder"):
        run(config(corpus, tmp_path, freeze_audio=True))
    with pytest.raises(InputError, match=r"--init-audio .*encoder is 'cnn14', wanted 'mobilenet'"):
        run(config(corpus, tmp_path, init_audio=clap))
    assert not (tmp_path / "captioner").exists()

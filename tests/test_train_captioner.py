"""The captioner stage: its audio encoder, the released recipe, validation, and a run that is killed and goes on."""

import dataclasses
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from pipeline import shards, storage
from pipeline.cli import InputError
from train import checkpoint
from train import validation as validation_room
from train.captioner import TrainCaptionerConfig, run, train
from train.configs import CAPTIONER
from train.loop import Context
from train.models.mobilenet import MobileNetConfig
from train.models.tagger import Tagger, TaggerConfig
from train.models.words import Subwords


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
    assert made.config["lineage"]["init_audio"] == mn01


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


def test_the_released_recipe_averages_validates_and_keeps_the_best(corpus: str, tmp_path: Path) -> None:
    validation = storage.join(corpus, "evaluation_segments.csv")
    run(released(corpus, tmp_path, validation=validation))
    history = storage.read_json(str(tmp_path / "history.json"))
    assert [each["epoch"] for each in history["epochs"]] == [1, 2, 3, 4, "average"]
    assert all(each["cider_d"] >= 0 for each in history["epochs"]) and len(history["loss"]) == 12
    best = max(history["epochs"][:4], key=lambda each: each["cider_d"])
    assert checkpoint.load(str(tmp_path / "best")).config["lineage"]["epoch"]["cider_d"] == best["cider_d"]
    made = checkpoint.load(str(tmp_path))
    assert made.config["lineage"]["epoch"]["epoch"] == "average"
    clips = validation_room.read(validation)
    again = validation_room.measure(made.model, clips, Context())()
    assert again["cider_d"] == pytest.approx(history["epochs"][-1]["cider_d"], abs=1e-5)


def test_validation_clips_are_never_trained_on(corpus: str, tmp_path: Path) -> None:
    same = storage.join(corpus, "captioned_segments.csv")
    with pytest.raises(InputError, match=r"--validation .*24 of its clips are trained on"):
        run(released(corpus, tmp_path, validation=same))


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
    assert set(checkpoint.trained_on(str(tmp_path))) == set(shards.Index(dataset).keys)


def one_rank(rank: int, folder: str, config: TrainCaptionerConfig) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    train({"config": config, "out": config.out, "broken": {}}, Context(rank=rank, world_size=2))
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
    train({"config": one, "out": one.out, "broken": {}}, Context())
    mp.spawn(one_rank, args=(str(tmp_path), two), nprocs=2)
    first, second = (checkpoint.load(each.out).model for each in (one, two))
    inputs = (torch.randn(4, 64_000), torch.full((4,), 64_000), first.multi_hot([first.tags[:2]] * 4))
    words = torch.randint(4, len(first.vocabulary), (4, 9))
    with torch.no_grad():  # the logits: some weights, such as biases of keys, have no gradient but rounding
        logits = [model(*inputs, words)[0] for model in (first, second)]
    assert float(logits[0].std()) > 0.5 and torch.allclose(*logits, atol=2e-3), (logits[0] - logits[1]).abs().max()
    told = [storage.read_json(storage.join(each.out, "history.json"))["epochs"] for each in (one, two)]
    assert [e["cider_d"] for e in told[0]] == pytest.approx([e["cider_d"] for e in told[1]], abs=1e-3)


WORKER = """
import pickle, sys
from train.captioner import run
run(pickle.loads(bytes.fromhex(sys.argv[1])))
"""


def test_a_run_killed_in_the_middle_of_an_epoch_has_the_loss_curve_of_an_undisturbed_one(
    corpus: str, tmp_path: Path
) -> None:
    """SIGKILL, three times; dropout, tag dropout, scheduled sampling and the running average go on as they were."""
    validation = storage.join(corpus, "evaluation_segments.csv")
    changes = {"validation": validation, "tag_dropout": 0.3}
    run(released(corpus, tmp_path / "whole", **changes))
    config = pickle.dumps(released(corpus, tmp_path / "killed", **changes)).hex()
    state = tmp_path / "killed" / "training_state" / "state.json"
    for step in (2, 5, 10):
        process = subprocess.Popen([sys.executable, "-c", WORKER, config], stderr=subprocess.DEVNULL)
        while process.poll() is None and (not state.exists() or storage.read_json(str(state))["step"] < step):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert state.exists() and storage.read_json(str(state))["step"] < 12, "it was to be killed before its end"
    run(released(corpus, tmp_path / "killed", **changes))
    whole, killed = (storage.read_json(str(tmp_path / name / "history.json")) for name in ("whole", "killed"))
    assert killed["loss"] == pytest.approx(whole["loss"], abs=1e-5) and len(set(whole["loss"])) == 12
    assert killed["epochs"][-1]["cider_d"] == pytest.approx(whole["epochs"][-1]["cider_d"], abs=1e-4)


def test_freezing_needs_weights_and_they_must_fit(corpus: str, tmp_path: Path, mn01: str, clap: str) -> None:
    with pytest.raises(InputError, match="--init-audio is missing: a frozen audio encoder"):
        run(config(corpus, tmp_path, freeze_audio=True))
    with pytest.raises(InputError, match=r"--init-audio .*encoder is 'cnn14', wanted 'mobilenet'"):
        run(config(corpus, tmp_path, init_audio=clap))
    assert not (tmp_path / "captioner").exists()

"""CLAPs of transformers through the commands a user types: one flag names one; and what is refused."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers

import eval.__main__ as eval_room
import pipeline.__main__ as pipeline_room
import train.__main__ as train_room
import train.launch
from eval import adapters
from pipeline import cli, storage
from pipeline.dataset import overlays
from pipeline.errors import InputError
from tests.support import hf_claps, sounds50
from tests.support.interrupted import launch_interrupted
from train import checkpoint
from train.configs import PRETRAIN
from train.models.encoders.configs import Cnn14Config
from train.models.hf_towers.towers import HfTowers
from train.pretrained import Embedder
from train.stages import finetune, training
from train.stages.finetune import FinetuneConfig
from train.stages.pretrain import PretrainConfig, run
from train.trainer.optim import OptimConfig

ROOMS = {"pipeline": pipeline_room.STAGES, "train": train_room.STAGES, "eval": eval_room.STAGES}
OPTIM = OptimConfig(epochs=2, batch_size=12, lr=1e-3)


def call(command: str) -> None:
    room, *words = command.split()
    assert cli.main(room, "", ROOMS[room], words) == 0, command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hf_claps.save(tmp_path_factory.mktemp("clap") / "tiny-clap")


@pytest.fixture(scope="module")
def tuned(folder: Path, dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model after four steps on the dataset."""
    out = tmp_path_factory.mktemp("tuned") / "model"
    call(pretrain(dataset, folder, out))
    return out


def pretrain(dataset: str, folder: Path, out: Path) -> str:
    optim = f"--optim.epochs {OPTIM.epochs} --optim.batch-size {OPTIM.batch_size} --optim.lr {OPTIM.lr}"
    return f"train pretrain tiny --data {dataset} --init hf:{folder} --hold-out 4 {optim} --out {out}"


def config(dataset: str, folder: Path, out: Path) -> PretrainConfig:
    return dataclasses.replace(
        PRETRAIN["tiny"][1], data=(dataset,), init=f"hf:{folder}", hold_out=4, out=str(out), optim=OPTIM
    )


def weights(uri: str) -> dict[str, torch.Tensor]:
    return checkpoint.load(uri).model.state_dict()


def test_it_scores_a_dataset(folder: Path, dataset: str, tmp_path: Path) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    call(f"pipeline score demo --data {data} --model hf:{folder} --name by-clap")
    info = overlays.read_info(str(data), "by-clap")
    assert info["num_clips"] == 24 and info["model"] == f"hf:{folder}"
    assert info["revision"] == checkpoint.describe(f"hf:{folder}", "--model", "clap").revision
    scores = [score for row in overlays.read_captions(str(data), "by-clap").values() for score in row["score"]]
    assert max(scores) <= 1.001 and max(scores) - min(scores) > 1e-3


def test_it_is_evaluated_and_searched(
    folder: Path, dataset: str, corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    esc50 = sounds50.write(tmp_path / "esc50", per_fold=1)
    common = f"--model hf:{folder} --out {tmp_path}/results"
    call(f"eval zero-shot any --task esc50 --task-dir {esc50} {common}")
    call(f"eval linear-probe --task esc50 --task-dir {esc50} {common}")
    call(f"eval retrieval demo --task-dir {corpus} {common}")
    for name in ("zero-shot-esc50", "linear-probe-esc50", "retrieval-synth"):
        held = storage.read_json(f"{tmp_path}/results/results/{name}.json")
        (entry,) = held["results"].values()
        assert entry["overlap"] == {"model": None}, "what others trained on is unknown"
        assert held["model"]["name"] == "tiny-clap" and held["model"]["network"]["processor"]["padding"] == "repeatpad"
    call(f"eval index-search laptop --data {dataset} --model hf:{folder} --out {tmp_path}/index")
    call(f"eval search --index {tmp_path}/index rain")
    assert "first caption" in capsys.readouterr().out


def test_it_is_fine_tuned_and_then_one_of_ours(tuned: Path, folder: Path, dataset: str, tmp_path: Path) -> None:
    made = checkpoint.load(str(tuned))
    assert made.info.lineage["init"] == f"hf:{folder}" and len(checkpoint.trained_on(str(tuned))) == 20
    assert made.info.network == checkpoint.describe(f"hf:{folder}", "--init", "clap").network
    before, after = weights(f"hf:{folder}"), weights(str(tuned))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"logit_scale", "audio_proj.linear1.weight", "text_encoder.model.pooler.dense.weight"} <= moved
    assert any(name.startswith("audio_encoder.model") for name in moved) and "logit_scale_t" not in moved
    best = checkpoint.load(str(tuned / "best")).info.lineage["epoch"]
    assert {"text_to_audio_R@1", "zeroshot_mAP"} & set(best)
    augment = dataclasses.replace(PRETRAIN["tiny"][1].augment, spec_augment=True)
    again = dataclasses.replace(config(dataset, folder, tmp_path), init=str(tuned), augment=augment, freeze_text=True)
    run(dataclasses.replace(again, hold_out=0, optim=dataclasses.replace(OPTIM, epochs=1)))
    second = weights(str(tmp_path))
    assert all(torch.equal(after[name], second[name]) for name in after if name.startswith("text_encoder."))


def test_an_interrupted_run_ends_with_the_same_weights(
    tuned: Path, folder: Path, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    with monkeypatch.context() as patched:
        interrupted = partial(launch_interrupted, [("terminate_driver", 2)], str(tmp_path))
        patched.setattr(training, "launch", interrupted)
        patched.setattr(train.launch, "_sigterm_received", False)
        assert cli.main("train", "", ROOMS["train"], pretrain(dataset, folder, out).split()[1:]) == 1
    assert not checkpoint.exists(str(out))
    call(pretrain(dataset, folder, out))
    whole, resumed = weights(str(tuned)), weights(str(out))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("kind", hf_claps.KINDS)
def test_its_audio_tower_learns_labels_and_is_a_classifier_of_ours(kind: str, tmp_path: Path) -> None:
    """By `eval finetune`, which trains on every fold: the front end goes on with the network."""
    folder = hf_claps.save(tmp_path / kind, kind)
    esc50 = sounds50.write(tmp_path / "esc50", per_fold=1)
    recipe = "--recipe.optim.epochs 1 --recipe.optim.batch-size 3 --recipe.clip-s 2"
    call(f"eval finetune tiny --model hf:{folder} --task esc50 --task-dir {esc50} {recipe} --out {tmp_path}/out")
    (made,) = {str(path.parent) for path in tmp_path.glob("out/finetune-esc50/*1/config.json")}
    learned, start = checkpoint.load(made), checkpoint.load(f"hf:{folder}").model.audio_encoder
    encoder = learned.model.encoder
    assert learned.info.network.audio == encoder.config == start.config and encoder.sample_rate_hz == 48_000
    with torch.no_grad():
        wave, lengths = torch.randn(2, 30_000), torch.tensor([30_000, 20_000])
        torch.testing.assert_close(encoder.mel(wave), start.mel(wave), rtol=0, atol=0)
        one, other = encoder.encode(wave, lengths).clip, start.encode(wave, lengths).clip
    assert one.shape == other.shape == (2, 16) and not torch.equal(one, other), "it was trained"
    with pytest.raises(InputError, match=r"--init-audio .* \(encoder is 'htsat', wanted 'cnn14'"):
        checkpoint.describe_audio(made, "--init-audio", Cnn14Config())
    with pytest.raises(InputError, match=r"--clip-s 11.0: the encoder takes 10 s of a clip; use this or less"):
        data = f"{esc50}/meta/esc50.csv"
        finetune.run(FinetuneConfig(data=data, init_audio=f"hf:{folder}", clip_s=11.0, out=str(tmp_path / "long")))


def test_frames_of_its_audio_tower_are_for_x_ares(tuned: Path) -> None:
    encoder = adapters.FrameEncoder(str(tuned), 16_000)
    frames = encoder(torch.randn(1, 12 * 16_000))
    assert frames.shape[2] == 16 and frames.shape[1] > 10 and encoder.hop_size_in_ms > 0


def test_what_is_no_clap_is_refused(
    folder: Path, captioner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    transformers.WhisperConfig().save_pretrained(tmp_path / "whisper")
    cut = shutil.copytree(folder, tmp_path / "cut")
    kept = dict(list(transformers.ClapModel.from_pretrained(folder).state_dict().items())[:-1])
    transformers.ClapModel.from_pretrained(folder).save_pretrained(cut, state_dict=kept)
    for name, missing in (("no-weights", "model.safetensors"), ("no-processor", "processor_config.json")):
        (shutil.copytree(folder, tmp_path / name) / missing).unlink()
    (shutil.copytree(folder, tmp_path / "no-words") / "tokenizer.json").unlink()
    damaged = shutil.copytree(folder, tmp_path / "damaged") / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:2_000])
    for name, message in {
        "nobody/nothing": "--model 'hf:nobody/nothing': no such folder, and the hub",
        f"{tmp_path}/empty": r"has no config\.json",
        f"{tmp_path}/whisper": "is a whisper; give a clap",
        captioner: "is no model of transformers",
        f"{cut}": "cannot be loaded: 1 of its weights are missing",
        f"{tmp_path}/no-weights": "cannot be loaded",
        f"{tmp_path}/no-processor": "cannot be loaded",
        f"{tmp_path}/no-words": "cannot be loaded",
        f"{tmp_path}/damaged": "cannot be loaded",
    }.items():
        with pytest.raises(InputError, match=message):
            checkpoint.describe(f"hf:{name}", "--model", "clap")


def test_where_it_does_not_fit_it_is_refused(folder: Path, tuned: Path, dataset: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"is a model of transformers; write hf:{folder}"):
        checkpoint.describe(str(folder), "--model", "clap")
    with pytest.raises(InputError, match="names two towers of transformers, not a captioner"):
        checkpoint.describe(f"hf:{folder}", "--captioner", "captioner")
    for name in (f"hf:{folder}", str(tuned)):
        with pytest.raises(InputError, match=r"--init-audio .* fits no network of ours"):
            run(dataclasses.replace(config(dataset, folder, tmp_path), init="", init_audio=name))
    with pytest.raises(InputError, match="no such folder"):
        run(dataclasses.replace(config(dataset, folder, tmp_path), init="hf:nobody/no thing"))
    with pytest.raises(InputError, match="write hf:"):
        Embedder.from_pretrained(str(folder))
    assert isinstance(checkpoint.load(str(tuned)).model, HfTowers)

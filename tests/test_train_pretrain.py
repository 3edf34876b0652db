"""Pre-training as a user runs it: losses at the start, several datasets, second stages, what is refused."""

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from pipeline import audio, sources, storage
from pipeline.dataset import shards
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError
from tests.support.html_page import Page
from tests.support.released import google_bert
from train import checkpoint, parallel
from train.configs import PRETRAIN, SMALL_CLAP
from train.data import datasets
from train.data.augment import AugmentConfig
from train.data.clip_sets import ListedClips
from train.data.loader import Loader
from train.data.order import Order, Step
from train.losses import contrastive
from train.models.clap import SIGMOID_BIAS
from train.models.configs import ClapConfig, TextConfig
from train.stages.pretrain import PretrainConfig, run
from train.stages.pretrain.stage import train
from train.stages.pretrain.towers import build, collate, objective
from train.stages.pretrain.towers import labels as towers_labels
from train.trainer.context import Context
from train.trainer.loop import fit
from train.trainer.optim import OptimConfig
from train.trainer.performance import prepare
from train.validation import pairs

TINY: PretrainConfig = PRETRAIN["tiny"][1]


def tiny(data: str, out: Path | str, **changes: Any) -> PretrainConfig:
    return dataclasses.replace(TINY, data=(data,), out=str(out), **changes)


def history(out: Path | str) -> dict[str, Any]:
    return storage.read_json(storage.join(str(out), "history.json"))


@pytest.mark.parametrize("kind", ["global", "local"])
def test_the_loss_starts_at_the_log_of_the_batch(dataset: str, kind: contrastive.Kind, tmp_path: Path) -> None:
    """Towers that know nothing, at scale 1: every pair is as likely as any other."""
    config = tiny(dataset, tmp_path, loss=kind, optim=OptimConfig(epochs=1, batch_size=24))
    (clips,) = [ListedClips(sources.read_clips(dataset), ())]
    network = build(config, str(tmp_path), clips)
    torch.nn.init.zeros_(network.logit_scale)
    order = Order(sizes=(24,), batch_size=24, seed=0)
    (batch,) = Loader(clips, order, 64_000, collate=collate(config, network)).batches(0, 1)
    loss = objective(config)(network.train(), batch, Step(0, 0)).item()
    assert loss == pytest.approx(math.log(24), rel=0.05)


def test_several_datasets_are_mixed_by_weight_and_named_in_the_lineage(
    dataset: str, corpus: str, tmp_path: Path
) -> None:
    """Shards, and a listing: an epoch is one pass over the one and half a pass over the other."""
    config = tiny(dataset, tmp_path, weights=(1.0, 0.5), label_phrases=("the sound of {}",))
    run(dataclasses.replace(config, data=(dataset, f"{corpus}/captioned_segments.csv")))
    made = checkpoint.load(str(tmp_path))
    lineage = made.info.lineage
    assert lineage["data"][1].endswith("captioned_segments.csv") and lineage["num_clips"] == 48
    assert lineage["origins"][0]["plan_hash"] == shards.provenance(dataset)["plan_hash"] and lineage["origins"][1] == {}
    assert len(history(tmp_path)["loss"]) == 2 * (36 // 8)


def test_held_out_clips_choose_the_best_and_are_never_trained_on(dataset: str, tmp_path: Path) -> None:
    run(tiny(dataset, tmp_path, hold_out=8, validate_every_steps=1))
    trained = checkpoint.trained_on(str(tmp_path))
    assert len(trained) == 16 and trained < set(ClipIndex(dataset).keys)
    epochs = history(tmp_path)["epochs"]
    assert [each["step"] for each in epochs] == [1, 2, 3, 4]
    assert {f"{way}_R@{k}" for way in ("text_to_audio", "audio_to_text") for k in (1, 5, 10)} <= set(epochs[0])
    best = max(epochs, key=lambda each: each["recall_geometric_mean"])
    kept = checkpoint.load(str(tmp_path / "best")).info.lineage["epoch"]
    assert kept["recall_geometric_mean"] == best["recall_geometric_mean"]
    page = Page((tmp_path / "report.html").read_text())
    page.assert_loads_nothing()
    assert page.all("svg") and any("val/recall_geometric_mean" in text for text in page.texts)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_second_stage_goes_on_from_the_first(dataset: str, corpus: str, tmp_path: Path) -> None:
    run(tiny(dataset, tmp_path / "first", network=dataclasses.replace(TINY.network, padding="none")))
    second = tiny(f"{corpus}/captioned_segments.csv", tmp_path / "second", init=str(tmp_path / "first"))
    run(dataclasses.replace(second, optim=dataclasses.replace(TINY.optim, lr=1e-8, epochs=1, warmup_fraction=0.0)))
    first, made = (checkpoint.load(str(tmp_path / name)) for name in ("first", "second"))
    assert made.info.lineage["init"] == str(tmp_path / "first")
    for (name, a), b in zip(first.model.named_parameters(), made.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name
    assert (first.model.config.padding, made.model.config.padding) == ("none", "clip"), "each stage has its own"


def test_frozen_towers_stay_and_projections_learn(dataset: str, clap: str, tmp_path: Path) -> None:
    run(tiny(dataset, tmp_path, init_audio=clap, freeze_audio=True, freeze_text=True))
    before, after = checkpoint.load(clap).model, checkpoint.load(str(tmp_path)).model
    for a, b in zip(before.audio_encoder.state_dict().values(), after.audio_encoder.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    torch.manual_seed(TINY.optim.seed)
    (clips,) = [ListedClips(sources.read_clips(dataset), ())]
    start = build(tiny(dataset, ""), str(tmp_path / "start"), clips)
    assert all(
        torch.equal(a, b) for a, b in zip(start.text_encoder.parameters(), after.text_encoder.parameters(), strict=True)
    )
    assert not torch.equal(start.text_proj.weight, after.text_proj.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": (1.0, 2.0)}, r"--weights .*each of the 1 --data"),
        ({"hold_out": -1}, r"--hold-out -1"),
        ({"hold_out": 24}, r"--hold-out 24: leaves nothing"),
        ({"grad_cache_chunks": 0}, r"--grad-cache-chunks 0"),
        ({"grad_cache_chunks": 9}, r"--grad-cache-chunks 9: a worker has 8 clips"),
        ({"loss": "sigmoid"}, r"--network.sigmoid False"),
        ({"freeze_audio": True}, r"--init-audio is missing"),
        ({"label_phrases": ("no braces",)}, r"--label-phrases 'no braces'"),
        ({"audio_lr_scale": 0.0}, r"--audio-lr-scale 0.0"),
        ({"hard_negatives": ("order",)}, r"--hard-negatives 'order': no caption of --data names an order"),
        (
            {"hard_negatives": ("absence",), "augment": AugmentConfig(mix_fraction=0.5)},
            r"--hard-negatives .*--augment.mix-fraction",
        ),
    ],
)
def test_what_cannot_be_is_refused(dataset: str, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(tiny(dataset, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_a_text_encoder_without_weights_is_refused_before_the_start(dataset: str, tmp_path: Path) -> None:
    google_bert(tmp_path / "bert")
    (tmp_path / "bert" / "pytorch_model.bin").unlink()
    network = dataclasses.replace(TINY.network, text=TextConfig(name=str(tmp_path / "bert")))
    with pytest.raises(InputError, match=r"--network.text.name .*no file named model.safetensors"):
        run(tiny(dataset, tmp_path / "out", network=network))
    assert not (tmp_path / "out").exists()


def listing(folder: Path, captions: list[str]) -> str:
    """A table of clips that are not there: what is wrong with it is found before any clip is read."""
    rows = "".join(f'{i}.wav,"{caption}"\n' for i, caption in enumerate(captions))
    (folder / "clips.csv").write_text(f"file,caption\n{rows}")
    return str(folder / "clips.csv")


@pytest.mark.parametrize(
    ("captions", "changes", "message"),
    [
        (["rain"], {}, r"--data .*leaves fewer than 2 clips to train on"),
        (["rain", "wind", "a bell"], {"hold_out": 2}, r"--data .*leaves fewer than 2 clips to train on"),
        (["rain", "wind"], {"hold_out": 3}, r"--hold-out 3: leaves nothing"),
        (["rain", "wind"], {"optim": OptimConfig(batch_size=1)}, r"--optim.batch-size 1: .*use 2 or more"),
        (["rain", "wind"], {"optim": OptimConfig(batch_size=3)}, r"--optim.batch-size 3: there are 2 clips"),
        (["rain", "wind", "a bell"], {"hold_out": 1}, r"--hold-out 1: .*validate on 2 or more"),
    ],
)
def test_too_few_clips_to_contrast_are_refused(
    tmp_path: Path, captions: list[str], changes: dict[str, Any], message: str
) -> None:
    optim = {"optim": OptimConfig(batch_size=2)} | changes
    with pytest.raises(InputError, match=message):
        run(tiny(listing(tmp_path, captions), tmp_path / "out", **optim))
    assert not (tmp_path / "out").exists()


def test_validation_on_one_clip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "val.csv").write_text("file,caption\nother.wav,rain\n")
    config = tiny(listing(tmp_path, ["rain", "wind"]), tmp_path / "out", validation=str(tmp_path / "held" / "val.csv"))
    with pytest.raises(InputError, match=r"--validation .*validate on 2 or more"):
        run(dataclasses.replace(config, optim=OptimConfig(batch_size=2)))


def test_validation_on_a_test_split_or_on_trained_clips_is_refused(dataset: str, corpus: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--validation .*is a test split by its name"):
        run(tiny(dataset, tmp_path, validation=f"{corpus}/evaluation_segments.csv"))
    with pytest.raises(InputError, match=r"--validation .*24 of its clips are trained on"):
        run(tiny(dataset, tmp_path, validation=f"{corpus}/tagged_segments.csv"))


@pytest.mark.parametrize("held_out", [0, 4])
def test_a_missing_shard_is_an_error_before_the_start(dataset: str, tmp_path: Path, held_out: int) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    (tmp_path / "data" / "00001.tar").unlink()
    with pytest.raises(InputError, match=r"--data .*00001.tar has 0 bytes.*1 of 3 tars are missing"):
        run(tiny(str(tmp_path / "data"), tmp_path / "out", hold_out=held_out))


def test_sixty_four_real_clips_are_learnt_by_heart(blat_data: Path, tmp_path: Path) -> None:
    """R@1 of 1 both ways on what it was trained on: nothing on the way from file to gradient loses a pair."""
    listed = sources.read_clips(str(blat_data / "esc50" / "metadata.csv"))
    distinct = list({clip.captions[0].lower(): clip for clip in listed if clip.captions}.values())[:64]
    clips = ListedClips(distinct, ())
    assert len(clips.keys) == 64
    optim = OptimConfig(epochs=40, batch_size=32, lr=2e-3, save_every_s=1e9)
    cnn = dataclasses.replace(
        SMALL_CLAP.audio, channels=(16, 32, 64, 128), num_mels=40, block_dropout=0.0, clip_dropout=0.0
    )
    words = dataclasses.replace(SMALL_CLAP.text, layers=2, dropout=0.0, pooling="mean")
    config = dataclasses.replace(TINY, network=ClapConfig(audio=cnn, text=words, clip_s=5.0), optim=optim)
    network = build(config, str(tmp_path), clips)
    order = Order(sizes=(64,), batch_size=32, seed=0)
    loader = Loader(clips, order, 5 * audio.SAMPLE_RATE_HZ, collate=collate(config, network))
    steps = objective(config)
    fit(prepare(network, torch.device("cpu")), steps, loader, optim, Context(), str(tmp_path))
    found = pairs.measure(clips, Context())(network.eval())
    assert found["text_to_audio_R@1"] == found["audio_to_text_R@1"] == 1.0, found


def worker(rank: int, folder: str, config: PretrainConfig, clip_files: list[str]) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    train(config, config.out, clip_files, Context(rank=rank, world_size=2))
    assert parallel.gather_objects(rank) == [0, 1]
    distributed.destroy_process_group()


def test_two_workers_with_all_options_publish_one_model(dataset: str, tmp_path: Path) -> None:
    """Sharded weights, sigmoid loss, chunks, masks, a moving average, augmentation, bfloat16: all at once, on two ranks."""
    changes = {
        "loss": "sigmoid",
        "network": dataclasses.replace(TINY.network, sigmoid=True),
        "mask_duplicates": True,
        "grad_cache_chunks": 2,
        "hold_out": 4,
        "augment": dataclasses.replace(TINY.augment, spec_augment=True, mix_fraction=0.5),
        "speed": dataclasses.replace(TINY.speed, shard=True, recompute=True),
        "optim": dataclasses.replace(TINY.optim, ema_decay=0.5, precision="bfloat16", batch_size=9),
    }
    config = tiny(dataset, tmp_path / "out", **changes)
    clip_files = datasets.names(datasets.open_data(config.data, config))
    mp.spawn(worker, args=(str(tmp_path), config, clip_files), nprocs=2)
    made = checkpoint.load(str(tmp_path / "out"))
    assert len(made.info.lineage["last_epoch"]) > 3
    assert all(math.isfinite(value) for value in history(tmp_path / "out")["loss"])
    vectors = made.model.embed_texts(["a bell", "rain"])
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2), atol=1e-4)


@pytest.mark.parametrize("kind", ["global", "local"])
def test_two_workers_train_a_model_with_a_bias_by_a_loss_without(
    dataset: str, kind: contrastive.Kind, tmp_path: Path
) -> None:
    network = dataclasses.replace(TINY.network, sigmoid=True)
    config = tiny(dataset, tmp_path / "out", loss=kind, network=network)
    clip_files = datasets.names(datasets.open_data(config.data, config))
    mp.spawn(worker, args=(str(tmp_path), config, clip_files), nprocs=2)
    assert float(checkpoint.load(str(tmp_path / "out")).model.logit_bias) == SIGMOID_BIAS


@pytest.mark.parametrize("kind", ["global", "local", "sigmoid"])
def test_hard_negatives_are_trained_on_by_every_loss(dataset: str, kind: contrastive.Kind, tmp_path: Path) -> None:
    """In chunks as well: they are named in the lineage, and the losses are others than without them."""
    network = dataclasses.replace(TINY.network, sigmoid=kind == "sigmoid")
    shared = {"loss": kind, "network": network, "mask_duplicates": True}
    run(tiny(dataset, tmp_path / "plain", **shared))
    run(tiny(dataset, tmp_path / "hard", **shared, hard_negatives=("absence",), grad_cache_chunks=2))
    lineages = [checkpoint.load(str(tmp_path / name)).info.lineage for name in ("plain", "hard")]
    assert "hard_negatives" not in lineages[0] and lineages[1]["hard_negatives"] == ["absence"]
    losses = [history(tmp_path / name)["loss"] for name in ("plain", "hard")]
    assert all(math.isfinite(loss) for loss in losses[1]) and losses[0] != losses[1]


def test_hard_negatives_stand_beside_their_captions(dataset: str, tmp_path: Path) -> None:
    """Tokens of each clip and of its hard negative, (B, 2, L); of a clip without one, an empty text."""
    (clips,) = [ListedClips(sources.read_clips(dataset), ())]
    config = tiny(dataset, tmp_path, hard_negatives=("order", "absence"))
    network = build(config, str(tmp_path), clips)
    order = Order(sizes=(24,), batch_size=24, seed=0)
    made = collate(config, network, towers_labels(config, clips))
    (batch,) = Loader(clips, order, 64_000, collate=made).batches(0, 1)
    tokens, mask, _, _, there = batch.inputs
    assert tokens.shape == mask.shape == (24, 2, TINY.network.text.max_tokens)
    assert there.any() and ((mask[:, 1].sum(dim=1) > 2) == there).all()
    decoded = [network.text_encoder.tokenizer.decode(row.tolist()) for row in tokens[there].flatten(0, 1)]
    assert any(" without " in text or text.startswith("no ") for text in decoded), "the tokenizer knows the words"

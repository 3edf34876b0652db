"""Fine-tuning on labels: what it learns, its learning rates, balance and mixtures."""

import dataclasses
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import sources, storage
from pipeline.errors import InputError, JobError
from tests.support import sounds50
from train import checkpoint
from train.configs import FINETUNE, TINY_CNN
from train.data import augment
from train.launch import ScaleConfig
from train.models.classifier import Classifier
from train.models.configs import ClassifierConfig
from train.models.encoders.configs import Cnn14Config, MobileNetConfig, TransformerConfig
from train.stages import finetune
from train.stages.finetune import FinetuneConfig
from train.trainer.optim import OptimConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sounds50.write(tmp_path_factory.mktemp("sounds") / "esc50")


@pytest.fixture(scope="module")
def config(clap: str, folder: Path) -> FinetuneConfig:
    return dataclasses.replace(
        FINETUNE["tiny"][1],
        data=str(folder / "meta" / "esc50.csv"),
        folds=("1", "2"),
        validation_folds=("3",),
        init_audio=clap,
        optim=OptimConfig(epochs=20, batch_size=8, lr=2e-2),
    )


def test_two_workers_learn_what_is_easy_to_hear(ray_session: None, config: FinetuneConfig, tmp_path: Path) -> None:
    scaled = dataclasses.replace(
        config, out=str(tmp_path / "out"), scale=ScaleConfig(num_workers=2), mixup=0.2, balance=True
    )
    finetune.run(scaled)
    history = storage.read_json(str(tmp_path / "out" / "history.json"))
    assert max(epoch["accuracy"] for epoch in history["epochs"]) > 0.9
    best = checkpoint.load(str(tmp_path / "out" / "best"))
    assert best.model.labels == sorted(name.replace("_", " ") for name in sounds50.PITCHES_HZ)
    clips = [clip for clip in sources.read_clips(config.data) if clip.fold == "3"]
    outputs = best.model.encode_clips([sources.read_samples(clip) for clip in clips]).outputs
    assert torch.allclose(outputs.sum(dim=1), torch.ones(len(clips)), atol=1e-5)
    right = [best.model.labels[guess] in clip.tags for guess, clip in zip(outputs.argmax(dim=1), clips, strict=True)]
    assert np.mean(right) > 0.9
    assert {c.key for c in clips} == checkpoint.selected_on(str(tmp_path / "out" / "best"))
    assert not {c.key for c in clips} & checkpoint.trained_on(str(tmp_path / "out"))
    assert (tmp_path / "out" / "report.html").exists()


def test_several_labels_are_measured_by_map(config: FinetuneConfig, tmp_path: Path) -> None:
    finetune.run(dataclasses.replace(config, several_labels=True, out=str(tmp_path / "out")))
    history = storage.read_json(str(tmp_path / "out" / "history.json"))
    assert history["epochs"][-1]["mAP"] > 0.9
    assert not checkpoint.load(str(tmp_path / "out")).model.config.exclusive


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mixup": -0.1}, "--mixup"),
        ({"layer_decay": 0.0}, "--layer-decay"),
        ({"clip_s": 0.0}, "--clip-s"),
        ({"validation_folds": ("9",)}, "no clip of --data is in these folds"),
        ({"validation_folds": ("test",)}, "holds clips of the fold 'test'"),
        ({"init_audio": "nowhere"}, "--init-audio"),
        ({"data": "nowhere.csv"}, "--data"),
        ({"optim": OptimConfig(epochs=1, batch_size=99)}, "--optim.batch-size"),
    ],
)
def test_what_cannot_be_is_refused_before_the_start(
    config: FinetuneConfig, tmp_path: Path, change: dict[str, object], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        finetune.run(dataclasses.replace(config, out=str(tmp_path / "out"), **change))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.wav,dog|cat\n", "fewer than 2 clips"),
        ("a.wav,dog|cat\nb.wav,cat|dog\n", "all clips have the same labels"),
        ("a.wav,dog\nb.wav,dog\n", "its clips have 1 labels; at least 2"),
    ],
)
def test_too_few_clips_are_refused(config: FinetuneConfig, tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "clips.csv").write_text(f"file,labels\n{rows}")
    changes = {"data": str(tmp_path / "clips.csv"), "folds": (), "validation_folds": (), "several_labels": True}
    with pytest.raises(InputError, match=rf"--data .*{message}"):
        finetune.run(dataclasses.replace(config, **changes, out=str(tmp_path / "out")))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_validation_clip_of_another_label_is_refused(config: FinetuneConfig, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text("file,labels,fold\na.wav,dog,1\nb.wav,cat,1\nc.wav,bird,2\n")
    changed = dataclasses.replace(config, data=str(table), folds=("1",), validation_folds=("2",), out=str(tmp_path))
    with pytest.raises(InputError, match=r"--validation-folds .*'bird'.*no clip to train on has its label"):
        finetune.run(changed)


def test_one_label_too_many_is_refused(config: FinetuneConfig, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text("file,labels\na.wav,dog|cat\nb.wav,dog\n")
    with pytest.raises(InputError, match="clips such as a have several labels; use --several-labels"):
        finetune.run(dataclasses.replace(config, data=str(table), folds=(), validation_folds=(), out=str(tmp_path)))


@pytest.mark.parametrize(
    "encoder", [TINY_CNN, MobileNetConfig(width=0.1), TransformerConfig(layers=3, heads=2, hidden_dim=24)]
)
def test_learning_rates_fall_with_depth(encoder: Cnn14Config | MobileNetConfig | TransformerConfig) -> None:
    network = Classifier(ClassifierConfig(audio=encoder), ["a", "b"])
    groups = finetune.groups(network, 0.5)
    held = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(held) == sorted(map(id, network.parameters())), "each parameter once"
    scales = [group.lr_scale for group in groups]
    assert scales == sorted(scales) and scales[-1] == 1.0 and len(set(scales)) == len(scales) > 2
    assert all(later == 2 * sooner for sooner, later in itertools.pairwise(scales))


def test_the_linear_layer_may_come_first(config: FinetuneConfig, tmp_path: Path) -> None:
    """Without a step of training to speak of, the probe alone separates easy sounds; the statistics are the old ones."""
    asked = dataclasses.replace(
        config,
        out=str(tmp_path / "out"),
        probe_first=True,
        keep_statistics=True,
        optim=OptimConfig(epochs=1, batch_size=8, lr=1e-9),
    )
    finetune.run(asked)
    history = storage.read_json(str(tmp_path / "out" / "history.json"))
    assert history["epochs"][0]["accuracy"] > 0.9
    before, after = (checkpoint.load(uri).model for uri in (config.init_audio, str(tmp_path / "out")))
    old, new = (dict(part.named_buffers()) for part in (before.audio_encoder, after.encoder))
    assert old and all(torch.equal(old[name], new[name]) for name in old)


def test_the_first_linear_layer_leaves_out_what_cannot_be_read(config: FinetuneConfig, tmp_path: Path) -> None:
    folder = sounds50.write(tmp_path / "esc50")
    training = sorted((folder / "audio").glob("[12]-*.wav"))
    training[5].write_bytes(b"")
    asked = dataclasses.replace(
        config,
        data=str(folder / "meta" / "esc50.csv"),
        out=str(tmp_path / "out"),
        probe_first=True,
        keep_statistics=True,
        optim=OptimConfig(epochs=1, batch_size=8, lr=1e-9),
    )
    finetune.run(asked)
    assert storage.read_json(str(tmp_path / "out" / "history.json"))["epochs"][0]["accuracy"] > 0.9
    assert list(checkpoint.load(asked.out).info.lineage["skipped"]) == [training[5].stem]
    for file in training:
        file.unlink()
    with pytest.raises(JobError, match="24 of 24 clips cannot be read, such as"):
        finetune.run(dataclasses.replace(asked, out=str(tmp_path / "none")))


def test_statistics_move_where_they_are_not_kept(config: FinetuneConfig, tmp_path: Path) -> None:
    finetune.run(
        dataclasses.replace(config, out=str(tmp_path / "out"), optim=OptimConfig(epochs=1, batch_size=8, lr=1e-9))
    )
    before, after = (checkpoint.load(uri).model for uri in (config.init_audio, str(tmp_path / "out")))
    old, new = (dict(part.named_buffers()) for part in (before.audio_encoder, after.encoder))
    assert any("running_mean" in name and not torch.equal(old[name], new[name]) for name in old)


def test_balance_repeats_rare_labels_and_drops_nothing() -> None:
    tags = [["common"]] * 60 + [["usual"]] * 20 + [["rare"]] * 8 + [["single", "common"]]
    rows = finetune.balanced(tags)
    counts = Counter(rows)
    assert set(counts) == set(range(len(tags))) and max(counts.values()) <= 4
    seen = Counter(tag for row in rows for tag in tags[row])
    assert seen["common"] >= 61 and seen["rare"] > 12 and counts[len(tags) - 1] == 4
    assert finetune.balanced(tags) == rows


def test_mixup_keeps_the_labels_in_the_shares_of_the_sounds() -> None:
    waveform = torch.tensor([[1000] * 4, [0] * 4, [-1000] * 4], dtype=torch.int16)
    target, lengths = torch.eye(3), torch.tensor([4, 2, 3])
    share = augment.draw_mixup(len(waveform), 0.4, seed=1)
    mixed, long, labels = augment.mixup(waveform, lengths, target, share)
    assert torch.allclose(labels.sum(dim=1), torch.ones(3)) and bool((labels.diag() >= 0.5).all())
    assert mixed.dtype == torch.int16 and long.tolist() == [4, 3, 4]
    expected = labels @ waveform.float()
    assert torch.allclose(mixed.float(), expected, atol=0.51)
    assert torch.equal(share, augment.draw_mixup(len(waveform), 0.4, seed=1))
    assert not torch.equal(share, augment.draw_mixup(len(waveform), 0.4, seed=2))


def test_a_clip_has_the_same_outputs_in_any_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Classifier(ClassifierConfig(audio=MobileNetConfig(width=0.1), clip_s=1.0), ["a", "b", "c"]).eval()
    rng = np.random.default_rng(0)
    clips = [(3000 * rng.standard_normal(n)).astype(np.int16) for n in (16_000, 32_000, 80_001)]
    together = model.encode_clips(clips)
    for row, clip in enumerate(clips):
        alone = model.encode_clips([clip])
        assert torch.allclose(alone.outputs[0], together.outputs[row], atol=1e-5)
    windows = [model.encode_clips([clips[2][a : a + 32_000]]).outputs[0] for a in (0, 32_000, 64_000)]
    mean = (windows[0] * 32_000 + windows[1] * 32_000 + windows[2] * 16_001) / 80_001
    assert torch.allclose(together.outputs[2], mean, atol=1e-5)
    checkpoint.save(str(tmp_path), model, {}, [])
    assert torch.equal(checkpoint.load(str(tmp_path)).model.encode_clips(clips).outputs, together.outputs)

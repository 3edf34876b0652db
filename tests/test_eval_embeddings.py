"""Embeddings: the same in any batch, process or actor; embedded once."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import eval.__main__ as eval_room
from eval import tasks
from eval.embedding import cache, evaluation
from eval.embedding.evaluation import EvaluationConfig
from eval.embedding.in_process import embed_audio, embed_text
from pipeline import cli, storage
from pipeline.errors import InputError, JobError
from tests.support import sounds50
from train import checkpoint


def embed(clap: str, folder: Path, out: Path, **options: object) -> cache.Embeddings:
    config = EvaluationConfig(model=clap, task="esc50", task_dir=str(folder), out=str(out), **options)  # type: ignore[arg-type]
    _, clips = tasks.read("esc50", str(folder), ())
    return cache.embed(config, evaluation.load(config.model, "--model", config.device), clips)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sounds50.write(tmp_path_factory.mktemp("sounds") / "esc50")


@pytest.fixture(scope="module")
def alone(clap: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> cache.Embeddings:
    return embed(clap, folder, tmp_path_factory.mktemp("alone"), batch_size=1)


def test_every_clip_has_its_vectors(alone: cache.Embeddings) -> None:
    assert len(alone.clips) == 36 and not alone.missing
    assert alone.outputs.shape == (36, 16) and alone.features.shape[0] == 36
    assert np.allclose(np.linalg.norm(alone.outputs, axis=1), 1, atol=1e-5)
    assert alone.features.std(axis=0).max() > 0, "all clips sound alike to it"


@pytest.mark.parametrize("size", [5, 64])
def test_the_batch_size_changes_nothing(
    clap: str, folder: Path, alone: cache.Embeddings, tmp_path: Path, size: int
) -> None:
    other = embed(clap, folder, tmp_path, batch_size=size)
    assert [clip.key for clip in other.clips] == [clip.key for clip in alone.clips]
    assert np.abs(other.outputs - alone.outputs).max() < 1e-5
    assert np.abs(other.features - alone.features).max() < 1e-4 * np.abs(alone.features).max()


def test_ray_actors_give_the_same(
    ray_session: None, clap: str, folder: Path, alone: cache.Embeddings, tmp_path: Path
) -> None:
    other = embed(clap, folder, tmp_path, batch_size=8, workers=2)
    assert [clip.key for clip in other.clips] == [clip.key for clip in alone.clips]
    assert np.abs(other.outputs - alone.outputs).max() < 1e-5


def test_nothing_becomes_no_vectors(clap: str) -> None:
    model = checkpoint.load(clap).model
    for vectors in (embed_text(model, []), embed_audio(model, [], 8).vectors):
        assert vectors.shape == (0, 16) and vectors.dtype == np.float32


@pytest.mark.parametrize("data", [b"", b"PAR1 broken", storage.table_bytes(pa.table({"id": ["a"]}))])
def test_a_damaged_part_of_the_cache_is_named(clap: str, tmp_path: Path, data: bytes) -> None:
    folder = sounds50.write(tmp_path / "esc50", per_fold=1)
    first = embed(clap, folder, tmp_path / "out")
    (part,) = (tmp_path / "out" / "embeddings").rglob("*.parquet")
    (part.parent / "cut.parquet.0123.tmp").write_bytes(b"what a killed writer left")
    assert np.array_equal(embed(clap, folder, tmp_path / "out").outputs, first.outputs)
    part.write_bytes(data)
    with pytest.raises(InputError, match=rf"--cache .*{part.name} cannot be read .*delete it"):
        embed(clap, folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_checkpoint_is_named(clap: str, tmp_path: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    folder = sounds50.write(tmp_path / "esc50", per_fold=1)
    shutil.copytree(clap, tmp_path / "model")
    (tmp_path / "model" / name).write_bytes((tmp_path / "model" / name).read_bytes()[:40])
    words = ["--model", str(tmp_path / "model"), "--task-dir", str(folder), "--out", str(tmp_path / "out")]
    assert cli.main("eval", "", eval_room.STAGES, ["zero-shot", "esc50", "--folds", "1", *words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "eval zero-shot:" in line]
    assert f"--model '{tmp_path / 'model'}'" in line and "cannot be" in line


def test_a_clip_is_embedded_once(clap: str, tmp_path: Path) -> None:
    folder = sounds50.write(tmp_path / "esc50", per_fold=1)
    first = embed(clap, folder, tmp_path / "out")
    parts = sorted((tmp_path / "out" / "embeddings").rglob("*.parquet"))
    again = embed(clap, folder, tmp_path / "out", batch_size=2)
    assert sorted((tmp_path / "out" / "embeddings").rglob("*.parquet")) == parts and len(parts) == 1
    assert np.array_equal(first.outputs, again.outputs)
    table = folder / "meta" / "esc50.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:4]) + "\n")
    fewer = embed(clap, folder, tmp_path / "out")
    assert np.array_equal(fewer.outputs, first.outputs[:3])


def test_another_file_under_the_same_name_is_embedded_anew(clap: str, tmp_path: Path) -> None:
    folder = sounds50.write(tmp_path / "esc50", per_fold=1)
    first = embed(clap, folder, tmp_path / "out")
    names = [Path(clip.uri) for clip in first.clips]
    shutil.copy(names[2], names[0])
    again = embed(clap, folder, tmp_path / "out")
    assert np.allclose(again.outputs[0], first.outputs[2], atol=1e-5)
    assert np.array_equal(again.outputs[1:], first.outputs[1:])


def test_another_model_has_embeddings_of_its_own(clap: str, folder: Path, tmp_path: Path) -> None:
    model = checkpoint.load(clap).model
    model.audio_proj.weight.data.neg_()
    checkpoint.save(str(tmp_path / "other"), model, {}, [])
    first, other = embed(clap, folder, tmp_path), embed(str(tmp_path / "other"), folder, tmp_path)
    assert not np.allclose(first.outputs, other.outputs, atol=1e-2)
    assert np.allclose(first.features, other.features, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_that_cannot_be_read_are_told_and_tried_again(
    ray_session: None, clap: str, tmp_path: Path, workers: int
) -> None:
    folder = sounds50.write(tmp_path / "esc50", per_fold=1)
    good = embed(clap, folder, tmp_path / "first")
    broken, gone = (Path(good.clips[row].uri) for row in (0, 4))
    data = broken.read_bytes()
    broken.write_bytes(b"no sound at all")
    gone.unlink()
    found = embed(clap, folder, tmp_path / "out", workers=workers)
    assert set(found.missing) == {good.clips[0].key, good.clips[4].key}
    assert found.missing[good.clips[4].key] == "missing"
    assert np.allclose(found.outputs, np.delete(good.outputs, [0, 4], axis=0), atol=1e-5)
    broken.write_bytes(data)
    assert set(embed(clap, folder, tmp_path / "out", workers=workers).missing) == {good.clips[4].key}


def test_no_readable_clip_is_an_error(clap: str, tmp_path: Path) -> None:
    folder = sounds50.write(tmp_path / "esc50", per_fold=1)
    for file in (folder / "audio").iterdir():
        file.unlink()
    with pytest.raises(JobError, match="none of 9 clips could be read"):
        embed(clap, folder, tmp_path / "out")

"""Storage: whole files or nothing, on disk and on a real S3 endpoint."""

import os
from pathlib import Path

import pytest

from pipeline import sources, storage
from pipeline.stages.plan import PlanConfig
from pipeline.stages.plan import run as run_plan
from pipeline.storage.retrying import with_retries


def check_folder(root: str) -> None:
    uri = storage.join(root, "a", "b.json")
    assert not storage.exists(uri)
    storage.publish_json(uri, {"n": 1})
    storage.publish_json(uri, {"n": 2})
    assert storage.read_json(uri) == {"n": 2}
    assert storage.read(uri, offset=2, size=4) == storage.read(uri)[2:6]
    assert storage.list_names(storage.join(root, "a")) == ["b.json"]
    assert storage.list_names(storage.join(root, "absent")) == []
    with pytest.raises(FileNotFoundError):
        storage.read(storage.join(root, "absent.bin"))
    storage.remove(uri)
    storage.remove(uri)
    assert not storage.exists(uri)


def test_local(tmp_path: Path) -> None:
    check_folder(str(tmp_path))


def test_s3(s3: str) -> None:
    check_folder(storage.join(s3, "run"))


def test_a_corpus_on_s3_is_listed_and_planned(s3: str, corpus: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("class_labels_indices.csv", "tagged_segments.csv"):
        storage.publish(storage.join(s3, "in", name), storage.read(storage.join(corpus, name)))
    clip = sources.read_clips(storage.join(corpus, "tagged_segments.csv"))[0]
    name = clip.uri.rpartition("/")[2]
    storage.publish(storage.join(s3, "in", "audio", name), storage.read(clip.uri))
    listed = sources.read_clips(storage.join(s3, "in", "tagged_segments.csv"))
    assert listed[0].uri == storage.join(s3, "in", "audio", name)
    run_plan(PlanConfig(source=storage.join(s3, "in", "tagged_segments.csv"), out=storage.join(s3, "out")))
    assert "24 clips, 24 after exclusions" in capsys.readouterr().out
    assert storage.read_json(storage.join(s3, "out", "plan.json"))["num_clips"] == 24


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "x.bin")
    storage.publish(uri, b"old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        storage.publish(uri, b"new and longer")
    assert storage.read(uri) == b"old"


def test_file_uris_are_local_paths(tmp_path: Path) -> None:
    check_folder(f"file://{tmp_path}")


def test_temporary_errors_are_retried_and_the_last_one_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(with_retries, "sleep", lambda _: None)
    attempts: list[int] = []

    def fails(times: int) -> bytes:
        attempts.append(1)
        if len(attempts) <= times:
            raise OSError(f"attempt {len(attempts)}: 503")
        return b"data"

    assert with_retries(fails, 5) == b"data" and len(attempts) == 6
    attempts.clear()
    with pytest.raises(OSError, match="attempt 6"):
        with_retries(fails, 9)


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("a"), OSError(28, "No space left on device"), OSError("a: AccessDenied"), ValueError("a")],
)
def test_other_errors_are_raised_at_once(error: Exception) -> None:
    attempts: list[int] = []

    def fails() -> None:
        attempts.append(1)
        raise error

    with pytest.raises(type(error)):
        with_retries(fails)
    assert len(attempts) == 1

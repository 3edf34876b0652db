"""Retries that meet one another: one that was interrupted before, and another at the same time."""

import dataclasses
import logging
import shutil
from pathlib import Path

import pytest

from pipeline import sources, storage
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.engine import ActorConfig
from pipeline.planning.plan import PLAN_FILE, Plan, read_plan
from pipeline.planning.publish import extend_plan
from pipeline.stages import caption, retry
from pipeline.stages.retry import RetryConfig


@pytest.fixture(scope="module")
def failed(caption_config: CaptionConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve clips and its dataset in `out`. Clip 4 was missing and clip 7 truncated; now they are whole."""
    folder = tmp_path_factory.mktemp("failed")
    clips = sources.read_clips(caption_config.source)[:12]
    (folder / "audio").mkdir()
    audio = [storage.read(clip.uri) for clip in clips]
    for i, data in enumerate(audio):
        if i != 4:
            (folder / "audio" / f"{i}.flac").write_bytes(data[: len(data) // 2] if i == 7 else data)
    lines = [f'{i}.flac,"{"|".join(clip.tags)}"' for i, clip in enumerate(clips)]
    (folder / "metadata.csv").write_text("file,labels\n" + "\n".join(lines) + "\n")
    caption.run(dataclasses.replace(caption_config, source=str(folder), out=str(folder / "out"), max_bad_fraction=0.5))
    for i in (4, 7):
        (folder / "audio" / f"{i}.flac").write_bytes(audio[i])
    return folder


@pytest.fixture
def data(failed: Path, tmp_path: Path) -> str:
    return str(shutil.copytree(failed / "out", tmp_path / "out"))


def try_again(data: str, *reasons: str) -> None:
    retry.run(RetryConfig(actors=ActorConfig(max=0), data=data, reason=reasons, max_bad_fraction=0.5))


def interrupt(data: str) -> None:
    """Leave of the last retry what one has that was interrupted after its plan."""
    plan = read_plan(data)
    assert plan
    for path in Path(data).glob(f"{plan.shards[-1]:05d}*"):
        path.unlink()
    Path(data, "sizes.json").unlink()


def test_a_retry_for_another_reason_finishes_the_interrupted_one_and_goes_on(
    data: str, caplog: pytest.LogCaptureFixture
) -> None:
    try_again(data, "missing")
    interrupt(data)
    with caplog.at_level(logging.INFO):
        try_again(data, "truncated")
    assert "retry: first the 1 clips (missing 1) of the retry that is not finished" in caplog.text
    assert len(ClipIndex(data)) == 12
    plan = read_plan(data)
    assert plan and [each.reasons for each in plan.retries] == [{"missing": 1}, {"truncated": 1}]


def test_the_same_command_goes_on_and_tries_nothing_twice(data: str, failed: Path) -> None:
    (failed / "audio" / "4.flac").rename(failed / "audio" / "4.away")
    try:
        for _ in range(2):
            try_again(data, "missing")
            interrupt(data)
        try_again(data, "missing")
    finally:
        (failed / "audio" / "4.away").rename(failed / "audio" / "4.flac")
    plan = read_plan(data)
    assert plan and [each.reasons for each in plan.retries] == [{"missing": 1}]


def planned(data: str) -> tuple[Plan, str]:
    plan = read_plan(data)
    assert plan
    return plan, str(storage.join(data, PLAN_FILE))


def test_of_two_retries_at_once_one_is_planned_and_the_other_is_refused(data: str) -> None:
    plan, _ = planned(data)
    first, second = (plan.read_shard(data, 0)[i : i + 1] for i in (4, 7))
    won = extend_plan(data, plan, first, {"missing": 1})
    with pytest.raises(InputError, match="another retry, of missing, was planned at the same time; start again"):
        extend_plan(data, plan, second, {"truncated": 1})
    assert planned(data)[0] == won
    assert extend_plan(data, plan, first, {"missing": 1}) == won, "the same command twice is one retry"


def test_a_retry_that_died_between_its_decision_and_the_plan_is_found(data: str) -> None:
    plan, marker = planned(data)
    before = storage.read(marker)
    won = extend_plan(data, plan, plan.read_shard(data, 0)[4:5], {"missing": 1})
    storage.publish(marker, before)
    with pytest.raises(InputError, match="another retry, of missing"):
        extend_plan(data, plan, plan.read_shard(data, 0)[7:8], {"truncated": 1})
    assert planned(data)[0] == won

"""Faults that pass, of stores, disks and this machine: no outcome of a clip, and the same command goes on."""

import dataclasses
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
import tenacity

from pipeline import audio, sources, storage
from pipeline.dataset import ledgers, shards
from pipeline.errors import JobError
from pipeline.graph import engine
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.engine import ActorConfig
from pipeline.sources.clip import AudioLocation
from pipeline.stages import caption
from pipeline.storage import arrow, retrying, s3
from tests.support.faults import FaultyProxy


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a store that fails no second time; the clients try again by themselves."""
    monkeypatch.setattr(retrying.with_retries, "stop", tenacity.stop_after_attempt(1))


@pytest.fixture
def through(s3: str, once: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FaultyProxy]]:
    """Starts a proxy through which this process talks to the store from then on."""
    started: list[FaultyProxy] = []

    def begin(**options: object) -> FaultyProxy:
        started.append(FaultyProxy(os.environ["AWS_ENDPOINT_URL"], share=1.0, **options).__enter__())  # type: ignore[arg-type]
        monkeypatch.setenv("AWS_ENDPOINT_URL", started[-1].endpoint)
        forget()
        return started[-1]

    yield begin
    for proxy in started:
        proxy.__exit__()
    forget()


def forget() -> None:
    """Connect anew with the next request."""
    arrow.connect.cache_clear()
    s3._client.cache_clear()


def test_a_clip_that_its_store_does_not_give_now_is_asked_for_again_by_the_same_command(
    s3: str, through: Callable[..., FaultyProxy], caption_config: CaptionConfig, dataset: str, tmp_path: Path
) -> None:
    folder = Path(caption_config.source).parent
    broken = next(iter(ledgers.read(dataset, [1])))["key"][3].as_py()[:12]  # Y<id>, as the file is named
    for path in (folder / "class_labels_indices.csv", Path(caption_config.source), *folder.glob("audio/*")):
        storage.publish(f"{s3}/passing/{path.relative_to(folder)}", path.read_bytes())
    proxy = through(kinds=["slow_down"], only=f"/audio/{broken}")
    config = dataclasses.replace(
        caption_config, source=f"{s3}/passing/{Path(caption_config.source).name}", out=str(tmp_path / "data")
    )
    with pytest.raises(
        JobError, match=rf"{s3}/passing/audio/{broken}\S* cannot be used now .*run the same command again"
    ):
        caption.run(config)
    assert proxy.injected
    assert [shards.is_committed(config.out, shard) for shard in range(3)] == [True, False, True]
    proxy.share = 0.0
    caption.run(config)
    for shard in range(3):
        name = shards.tar_name(shard)
        assert Path(config.out, name).read_bytes() == Path(dataset, name).read_bytes()


@pytest.mark.parametrize("kind", ["expired", "internal", "truncated"])
def test_what_a_store_answers_when_it_fails_is_no_fault_of_a_clip(
    s3: str, through: Callable[..., FaultyProxy], kind: str
) -> None:
    storage.publish(f"{s3}/passing/{kind}", b"RIFF")
    assert through(kinds=[kind], only=f"/passing/{kind}").injected.total() == 0
    with pytest.raises(storage.StoreFault, match=f"{s3}/passing/{kind} cannot be used now"):
        sources.read_bytes(f"{s3}/passing/{kind}")
    with pytest.raises(audio.AudioError, match="missing"):
        sources.read_bytes(f"{s3}/passing/absent")


def test_a_row_of_a_parquet_file_in_a_failing_store_is_no_fault_of_the_file(
    s3: str, through: Callable[..., FaultyProxy]
) -> None:
    table = pa.table({"audio": [{"bytes": os.urandom(1000), "path": "a.wav"}] * 3})
    storage.publish_table(f"{s3}/passing/clips.parquet", table)
    proxy = through(kinds=["expired"], only="/passing/clips.parquet")
    with pytest.raises(storage.StoreFault, match=r"clips\.parquet cannot be used now"):
        sources.read_bytes(f"{s3}/passing/clips.parquet", 1)
    proxy.share = 0.0
    assert sources.read_bytes(f"{s3}/passing/clips.parquet", 1) == table["audio"][1].as_py()["bytes"]


def test_an_object_that_the_store_does_not_delete_is_an_error(s3: str, through: Callable[..., FaultyProxy]) -> None:
    """S3 states faults of single objects in an answer of status 200."""
    for name in "ab":
        storage.publish(f"{s3}/kept/{name}", b"x")
    proxy = through(kinds=["kept"])
    with pytest.raises(storage.StoreFault, match=rf"{s3}/kept\S* cannot be deleted: InternalError"):
        storage.remove(f"{s3}/kept")
    assert storage.list_names(f"{s3}/kept") == ["a", "b"]
    proxy.share = 0.0
    storage.remove(f"{s3}/kept")
    assert storage.list_names(f"{s3}/kept") == []


@contextmanager
def no_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptor_left_is_no_fault_of_a_file_and_a_missing_file_is(tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"RIFF")
    with (
        no_descriptors(),
        pytest.raises(storage.StoreFault, match=r"clip\.wav cannot be used now .*Too many open files"),
    ):
        sources.read_canonical(AudioLocation(str(clip)))
    for name, reason in (("absent.wav", "missing"), (".", "unreadable"), ("clip.wav/inside", "unreadable")):
        with pytest.raises(audio.AudioError, match=reason):
            sources.read_bytes(str(tmp_path / name))


class Down:
    """A step whose store fails at some shards."""

    def __init__(self, at: set[int]) -> None:
        self.at = at

    def __call__(self, batch: pa.Table) -> pa.Table:
        if batch["shard"][0].as_py() in self.at:
            raise storage.StoreFault(f"shard {batch['shard'][0].as_py()} cannot be used now")
        return batch


def check_put_off(in_process: bool) -> None:
    found = engine.rows(
        range(6), engine.Tasks(Down({1, 4})), engine.Actors(Down, ({2},), ActorConfig()), in_process=in_process
    )
    done = []
    with pytest.raises(JobError, match=r"shard \d cannot be used now; 3 of 6 shards are done"):
        for row in found:
            done.append(row["shard"])  # those before the error
    assert sorted(done) == [0, 3, 5]


def test_shards_whose_store_fails_are_put_off_until_the_others_are_done() -> None:
    check_put_off(in_process=True)


def test_on_ray_they_are_put_off_too(ray_session: None) -> None:
    check_put_off(in_process=False)


def test_a_store_that_gives_nothing_ends_the_job_after_a_few_shards() -> None:
    asked: list[int] = []

    def step(batch: pa.Table) -> pa.Table:
        asked.append(batch["shard"][0].as_py())
        return Down(set(range(1, 100)))(batch)

    with pytest.raises(JobError, match="shard 1 cannot be used now; 1 of 100 shards are done"):
        list(engine.rows(range(100), engine.Tasks(step), in_process=True))
    assert len(asked) <= 1 + engine.MAX_FAULTS + engine.CONCURRENT + 1

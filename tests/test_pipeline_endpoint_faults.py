"""An endpoint that fails, is slow or cuts its answers off: no clip is lost by it, and nothing is paid for twice."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.dataset import ledgers, overlays, shards
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import JobError
from pipeline.graph import endpoint
from pipeline.graph.budget import RayBudget
from pipeline.graph.caption_config import CaptionActorConfig, CaptionConfig
from pipeline.graph.engine import ActorConfig
from pipeline.graph.throttle import Throttle
from pipeline.stages import caption, recaption
from pipeline.stages.recaption import RecaptionConfig
from tests.support.chat_server import GREEDY, ChatServer, captioned, job_of

KEY = "SECRET"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(fault_every=0) as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waits, and a key."""
    monkeypatch.setattr(endpoint, "BACKOFF", lambda _state: 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def job(corpus: str, server: ChatServer, tmp_path: Path) -> CaptionConfig:
    """Captions for 24 clips in three shards."""
    return job_of(corpus, server, str(tmp_path / "out"))


@pytest.fixture
def again(corpus: str, server: ChatServer, tmp_path: Path) -> RecaptionConfig:
    """New captions for such a dataset; the guidance of a clip is of another clip of its shard."""
    return RecaptionConfig(
        captioner="openai:acme", captioner_url=server.url, decoding=GREEDY, guidance=("shuffled",), concurrency=1,
        data=captioned(corpus, str(tmp_path / "data")), name="served", actors=ActorConfig(max=0),
    )  # fmt: skip


def failed(out: str) -> list[tuple[str, str]]:
    """Return reason and detail of the clips that failed."""
    rows = [row for ledger in ledgers.read(out, shards.committed(out)) for row in ledger.to_pylist()]
    return [(row["reason"], row["detail"]) for row in rows if row["status"] == "failed"]


def clips_of(server: ChatServer, num: int) -> list[str]:
    """Return the hashes of the first clips that were asked for."""
    return list(dict.fromkeys(key.split()[0] for key in server.asked))[:num]


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_request_waits_as_long_as_the_endpoint_asks_for_time(
    job: CaptionConfig, server: ChatServer, status: int
) -> None:
    """Longer than a request that fails is tried again; no clip is refused."""
    server.at_first = status, 2 * endpoint.ATTEMPTS
    caption.run(job)
    assert len(ClipIndex(job.out)) == 24 and not failed(job.out)
    assert server.requests == 24 * (2 * endpoint.ATTEMPTS + 1)


def test_fewer_requests_are_under_way_once_the_endpoint_asks_for_time() -> None:
    throttle, sent_at = Throttle(8), time.monotonic()
    for limit in (4, 4, 4):  # of one round: they were sent before the first of them was put off
        throttle.narrow(sent_at)
        assert throttle.limit == limit
    for _ in range(9):
        throttle.narrow(time.monotonic() + 1)
    assert throttle.limit == 1
    throttle.widen()
    assert throttle.limit == 2
    for _ in range(99):
        throttle.widen()
    assert throttle.limit == 8


@pytest.mark.parametrize(("content", "reason"), [("", "refused; .*: answers 400"), ("...", "no_caption")])
def test_a_shard_without_captions_is_not_written(
    job: CaptionConfig, server: ChatServer, content: str, reason: str
) -> None:
    """The same command goes on once the endpoint is mended; where --max-bad-fraction allows all, the clips have failed."""
    if not content:
        server.always = {"": 400}
    server.content = content and '""'
    with pytest.raises(JobError, match=rf"shard 0000\d: 8 of 8 clips got no caption \({reason}.*; 0 of 3 shards"):
        caption.run(job)
    assert not list(shards.committed(job.out))
    with pytest.raises(JobError, match=r"24 clips = 0 written \+ 0 filtered \+ 24 failed"):
        caption.run(dataclasses.replace(job, max_bad_fraction=1.0))
    assert {why for why, _ in failed(job.out)} == {reason.split(";")[0]} and len(failed(job.out)) == 24
    assert server.answered.total() == (24 if content else 0) and set(server.answered.values()) <= {1}


def test_the_same_command_goes_on_once_the_endpoint_is_mended(job: CaptionConfig, server: ChatServer) -> None:
    server.always = {"": 400}
    with pytest.raises(JobError, match="got no caption"):
        caption.run(job)
    server.always = {}
    caption.run(job)
    assert len(ClipIndex(job.out)) == 24 and set(server.answered.values()) == {1} and not failed(job.out)


def test_a_run_ends_once_more_clips_than_allowed_have_no_caption(job: CaptionConfig, server: ChatServer) -> None:
    """Not at its last shard."""
    caption.run(job)
    server.always = dict.fromkeys(clips_of(server, 5), 400)
    with pytest.raises(
        JobError, match=r"\d of 24 clips got no caption \(refused \d\): more than 5%; the shards are kept"
    ):
        caption.run(dataclasses.replace(job, out=f"{job.out}-again"))


def test_an_overlay_is_not_published_without_its_captions(again: RecaptionConfig, server: ChatServer) -> None:
    """Its refused clips are asked for again, and those alone; the bytes are those of a run without faults."""
    folder = Path(overlays.folder(again.data, again.name))
    recaption.run(dataclasses.replace(again, name="whole"))
    three = clips_of(server, 3)
    server.always = {"": 400}
    with pytest.raises(JobError, match=r"shard 0000\d: 8 of 8 clips got no caption \(refused"):
        recaption.run(again)
    assert not list(folder.glob("*.parquet"))
    server.always, before = dict.fromkeys(three, 400), server.answered.total()
    with pytest.raises(JobError, match=r"\(refused [23]\): more than 5%; the same command asks again for refused ones"):
        recaption.run(again)
    assert list(folder.glob("*.parquet")) and not (folder / "overlay.json").exists()
    server.always = {}
    recaption.run(again)
    assert server.answered.total() - before == 24, "an answer was paid for twice"
    for shard in range(3):
        one, other = (overlays.read_part(again.data, name, shard) for name in ("whole", "served"))
        assert one == other and all(row["text"] for row in one.values())
    whole, info = (overlays.read_info(again.data, name) for name in ("whole", "served"))
    assert info == whole and "left_out" not in info and info["captioning"]["completion_tokens"] == 24 * 7


def test_an_overlay_counts_clips_without_captions(again: RecaptionConfig, server: ChatServer) -> None:
    """A lower --max-bad-fraction asks for them again."""
    recaption.run(dataclasses.replace(again, name="whole"))
    server.always = dict.fromkeys(clips_of(server, 3), 400)
    recaption.run(dataclasses.replace(again, max_bad_fraction=0.2))
    assert overlays.read_info(again.data, "served")["left_out"] == {"refused": 3}
    server.always, before = {}, server.requests
    recaption.run(dataclasses.replace(again, max_bad_fraction=0.2))
    assert server.requests == before, "it is complete by this bound"
    recaption.run(dataclasses.replace(again, max_bad_fraction=0.0))
    assert server.requests == before + 3
    assert overlays.read_captions(again.data, "served") == overlays.read_captions(again.data, "whole")
    assert overlays.read_info(again.data, "served") == overlays.read_info(again.data, "whole")


@pytest.mark.parametrize(
    ("content", "finish_reason", "text", "counts"),
    [
        ("<think>A dog, maybe.\n</think>\n\nA dog barks.", "stop", "A dog barks.", {"cut_thoughts": 24}),
        ("A dog barks. Then a ca", "length", "A dog barks.", {"cut_tokens": 24, "cut_sentences": 24}),
        ("<think>Okay, the user wants", "length", "", {"cut_thoughts": 24, "cut_tokens": 24}),
    ],
)
def test_thoughts_and_broken_sentences_are_no_captions(
    job: CaptionConfig, server: ChatServer, content: str, finish_reason: str, text: str, counts: dict[str, int]
) -> None:
    server.content, server.finish_reason = content, finish_reason
    if not text:
        with pytest.raises(
            JobError, match=r"no_caption; .*: no sentence of the answers ended within --max-tokens 96\)"
        ):
            caption.run(job)
        return
    caption.run(job)
    assert {tuple(texts) for texts in ClipIndex(job.out).texts()} == {(text,)}
    found = [shards.read_stats(job.out, shard).captioning for shard in range(3)]
    assert {name: sum(one.get(name, 0) for one in found) for name in counts} == counts


def test_actors_share_one_budget(ray_session: None, job: CaptionConfig, server: ChatServer) -> None:
    """Three actors, one shard for each, and two requests in all."""
    actors = ActorConfig(min=3, max=3, cpus=0.25)
    with pytest.raises(JobError, match="--max-requests 2: used up"):
        caption.run(dataclasses.replace(job, max_requests=2, actors=actors))
    assert server.requests == 2


def test_a_budget_outlives_those_who_take_from_it(ray_session: None) -> None:
    """An actor that Ray makes anew goes on where the first one was."""
    import ray

    @ray.remote(num_cpus=0, max_calls=1)  # each call has a process of its own
    def take(budget: RayBudget) -> bool:
        return budget.take()

    budget = RayBudget(2)
    assert [ray.get(take.remote(budget)) for _ in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("key", [KEY, ""])
def test_a_netrc_file_gives_no_key(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login bob password another\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("OPENAI_API_KEY", key)
    client = endpoint.Endpoint(CaptionActorConfig(captioner="openai:acme", captioner_url=server.url))
    client.complete({"messages": [{"content": "A dog."}]})
    assert server.keys == {f"Bearer {KEY}" if key else ""}

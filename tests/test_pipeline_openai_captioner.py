"""Captions from an endpoint that speaks OpenAI's protocol: a real server on localhost, with faults."""

import dataclasses
import email.utils
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from pipeline import storage
from pipeline.dataset import overlays, selection, shards
from pipeline.dataset.clip_index import ClipIndex
from pipeline.dataset.selection import FilterConfig, SelectionConfig
from pipeline.errors import InputError, JobError
from pipeline.graph import captioners, endpoint
from pipeline.graph.caption_config import CaptionActorConfig, CaptionConfig, CaptionSpeedConfig
from pipeline.graph.engine import ActorConfig
from pipeline.stages import caption, listen, recaption
from pipeline.stages.listen import ListenConfig
from pipeline.stages.recaption import RecaptionConfig
from tests.support.chat_server import FAULTS, GREEDY, ChatServer, job_of
from train.models.captioner.decoding import Decoding

KEY = "SECRET"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waits, and a key."""
    monkeypatch.setattr(endpoint, "BACKOFF", lambda _state: 0.05)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def job(corpus: str, server: ChatServer, tmp_path: Path) -> CaptionConfig:
    """Captions for 24 clips in three shards."""
    return job_of(corpus, server, str(tmp_path / "out"))


def stats(out: str) -> dict[str, int]:
    """Return what the captioner counted over all shards."""
    found = [shards.read_stats(out, shard).captioning for shard in shards.sizes(out)]
    return {name: sum(one.get(name, 0) for one in found) for name in found[0]}


def test_every_clip_gets_captions_whatever_fails(
    job: CaptionConfig, server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests and tokens are counted, what was cut is counted, scores are null, and the key is in no file and no line."""
    server.fault_every = 10
    with caplog.at_level(logging.INFO):
        caption.run(dataclasses.replace(job, guidance=("tags", "none")))
    index = ClipIndex(job.out)
    assert len(index) == 24 and set(server.faults) == set(FAULTS)
    counted = stats(job.out)
    failed = server.requests - server.answered.total()
    assert counted["requests"] == server.requests == 48 + failed and failed > 0
    assert (counted["prompt_tokens"], counted["completion_tokens"]) == (48 * 100, 48 * 7)
    assert counted["cut_openings"] == counted["cut_sentences"] == 48
    guided, unguided = index.meta(0)["captions"]
    assert guided["text"].startswith("a sound ") and guided["text"].endswith(".")
    assert (guided["tags_given"], unguided["tags_given"]) == (True, False) and guided["prompt"] != unguided["prompt"]
    assert (guided["score"], guided["model"], guided["precision"]) == (None, "earwig", "served")
    assert guided["revision"] == "openai:acme/earwig" and guided["decoding"] == "greedy"
    assert index.written["score"].to_pylist()[0] == [None, None]
    assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in caplog.text
    files = [path for path in Path(job.out).rglob("*") if path.is_file()]
    assert len(files) > 9 and not [path for path in files if KEY.encode() in path.read_bytes()]
    assert not (Path(job.out) / "attempts").exists()
    listen.run(ListenConfig(data=job.out))
    page = (Path(job.out) / "listen.html").read_text()
    assert "earwig" in page and "captioner's score" not in page and "Worst-scored" not in page


def test_the_requests_hold_clip_instruction_and_decoding(job: CaptionConfig, server: ChatServer) -> None:
    server.fault_every = 0
    nucleus = Decoding(method="nucleus", num_captions=2, top_p=0.8, temperature=0.7)
    caption.run(dataclasses.replace(job, decoding=nucleus, prompt="Tags: {tags}. Go."))
    index = ClipIndex(job.out)
    assert {len(texts) for texts in index.texts()} == {2} and len(server.bodies) == 24
    texts = {body["messages"][0]["content"][1]["text"] for body in server.bodies}
    assert texts == {f"Tags: {', '.join(tags)}. Go." for tags in index.tags()}
    assert {(b["model"], b["temperature"], b["top_p"], b["n"]) for b in server.bodies} == {("acme/earwig", 0.7, 0.8, 2)}
    assert len({body["seed"] for body in server.bodies}) == 24


COMMAND = """
import sys, pipeline.graph.endpoint as endpoint
from pipeline.__main__ import STAGES
from pipeline import cli
endpoint.BACKOFF = lambda _state: 0.01
sys.exit(cli.main("pipeline", "", STAGES, sys.argv[1:]))
"""


def test_sigkill_pays_for_no_answer_twice(job: CaptionConfig, server: ChatServer) -> None:
    """Beyond the requests that were under way when the process died."""
    server.delay_s = 0.1
    command = [sys.executable, "-c", COMMAND, "caption", "tiny", "--actors.max", "0", "--concurrency", "2"]
    command += ["--source", job.source, "--out", job.out, "--captioner", job.captioner, "--captioner-url", server.url]
    process = subprocess.Popen([*command, "--decoding.method", "greedy", "--decoding.num-captions", "1"])
    deadline = time.monotonic() + 300
    while server.answered.total() < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = server.answered.total()
    assert 5 <= before < 24 and not Path(job.out, "sizes.json").exists()
    server.delay_s = 0.0
    caption.run(dataclasses.replace(job, concurrency=2))
    assert len(ClipIndex(job.out)) == 24 == len(server.answered)
    assert server.answered.total() - 24 <= 2, "more than what was under way"
    assert stats(job.out)["requests"] <= server.requests <= stats(job.out)["requests"] + 4
    assert not (Path(job.out) / "attempts").exists()


def test_a_budget_ends_the_run_and_the_next_goes_on(job: CaptionConfig, server: ChatServer) -> None:
    server.fault_every = 0
    bounded = dataclasses.replace(job, max_requests=10)
    for sent in (10, 20):
        with pytest.raises(JobError, match="--max-requests 10: used up"):
            caption.run(bounded)
        assert server.requests == sent
    caption.run(bounded)
    assert server.requests == 24 and set(server.answered.values()) == {1}


def test_a_refused_clip_is_a_row_and_a_poisonous_one_too(job: CaptionConfig, server: ChatServer) -> None:
    """400 once, and 500 at every try while others are answered."""
    server.fault_every = 0
    caption.run(job)
    first, second = (key.split()[0] for key in list(server.answered)[:2])
    server.always = {first: 400, second: 500}
    again = dataclasses.replace(job, out=f"{job.out}-again", max_bad_fraction=0.2)
    caption.run(again)
    ledgers = [storage.read_table(f"{again.out}/{shards.ledger_name(n)}").to_pylist() for n in range(3)]
    failed = [row for ledger in ledgers for row in ledger if row["status"] == "failed"]
    assert sorted(row["reason"] for row in failed) == ["refused", "refused"]
    details = sorted(row["detail"] for row in failed)
    assert details[0].startswith("8 times: answers 500") and details[1].startswith("answers 400")
    assert not any(KEY in detail for detail in details)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"answers 401: .*\*\*\*.*; the key comes from the variable OPENAI_API_KEY"),
        (404, "answers 404"),
        (307, "answers 307"),
        (503, "answers 503.*; the same command goes on"),
    ],
)
def test_an_endpoint_that_refuses_everything_ends_the_job(
    job: CaptionConfig, server: ChatServer, status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "MAX_SILENCE_S", 0.5)
    server.always = {"": status}
    with pytest.raises(JobError, match=message) as caught:
        caption.run(job)
    assert KEY not in str(caught.value)


def test_an_endpoint_that_is_not_there_ends_the_job(job: CaptionConfig) -> None:
    with pytest.raises(JobError, match="cannot be reached"):
        caption.run(dataclasses.replace(job, captioner_url="http://127.0.0.1:9/v1"))


def test_an_overlay_counts_requests_and_has_no_scores(job: CaptionConfig, server: ChatServer) -> None:
    caption.run(job)
    dataset, before = job.out, server.requests
    config = RecaptionConfig(
        captioner="openai:acme", captioner_url=server.url, decoding=GREEDY, data=dataset, name="served",
        actors=ActorConfig(max=0),
    )  # fmt: skip
    recaption.run(config)
    clips = len(ClipIndex(dataset))
    info = overlays.read_info(dataset, "served")
    assert info["score"] is None and info["captioning"]["completion_tokens"] == 7 * clips
    assert info["captioning"]["requests"] == server.requests - before
    rows = overlays.read_captions(dataset, "served")
    assert len(rows) == clips and all(row["score"] == [None] for row in rows.values())
    assert not (Path(overlays.folder(dataset, "served")) / "attempts").exists()
    assert sum(len(table) for table in selection.select(dataset, SelectionConfig(captions="served"))) == clips
    for by_score in ({"keep_fraction": 0.5}, {"filter": FilterConfig(min_score=0.1)}):
        with pytest.raises(InputError, match="--captions 'served': its captions have no scores; `pipeline score"):
            selection.select(dataset, SelectionConfig(captions="served", **by_score))  # type: ignore[arg-type]


ENDPOINT: dict[str, Any] = {"captioner": "openai:acme", "captioner_url": "http://localhost:8000/v1", "decoding": GREEDY}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"captioner": "openai:"}, "--captioner 'openai:': give the name of the model"),
        ({"captioner_url": ""}, "--captioner-url is missing"),
        ({"captioner_url": "localhost:8000"}, "--captioner-url 'localhost:8000': give a URL"),
        ({"captioner_url": f"https://me:{KEY}@example.org/v1"}, "--captioner-url 'https://example.org': holds more"),
        ({"captioner_url": f"https://example.org/v1?key={KEY}"}, "--captioner-url 'https://example.org': holds more"),
        ({"decoding": Decoding()}, "--decoding.method 'beam': an endpoint has no beam search"),
        ({"actors": ActorConfig(gpus=1.0)}, r"--actors\.gpus 1\.0"),
        ({"concurrency": 0}, "--concurrency 0"),
        ({"rewrite": "tags", "guidance": ("none",)}, "--guidance 'none': gives no tags"),
        ({"rewrite": "captions", "prompt": "{tags}"}, r"--prompt '\{tags\}': use \{captions\} with"),
        ({"prompt": "{captions} {tags}"}, r"--prompt .*: use \{captions\} with --rewrite captions"),
        ({"max_requests": -1}, "--max-requests -1"),
        (
            {"precision": "bfloat16"},
            "--precision 'bfloat16': only checkpoints of `train captioner` and hf: models use it",
        ),
        ({"speed": CaptionSpeedConfig(compile="on")}, "--speed .*: only checkpoints of `train captioner` use it"),
        ({"captioner": "build/x"}, "--captioner-url .*: only openai: models use it; leave it out for build/x"),
        ({"captioner": "hf:a/b"}, "--captioner-url .*: only openai: models use it"),
        (
            {"captioner": "build/x", "captioner_url": "", "prompt": "x"},
            "--prompt 'x': only hf: models and openai: models",
        ),
    ],
)
def test_fields_that_cannot_be_or_are_of_other_captioners_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        captioners.describe(CaptionActorConfig(**ENDPOINT | fields))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(("value", "wanted"), [("3", 3.0), ("", None), ("soon", None), ("in a minute", 60.0)])
def test_retry_after_is_a_number_or_a_date(value: str, wanted: float | None) -> None:
    response = requests.Response()
    response.headers["Retry-After"] = email.utils.formatdate(time.time() + 60) if value == "in a minute" else value
    found = endpoint._retry_after_s(response)
    assert found == wanted if found is None or wanted is None else abs(found - wanted) < 5

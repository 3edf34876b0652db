"""The proxy that tests put between S3 clients and the store: it changes nothing by itself, and its counts are true."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import boto3
import pyarrow.fs as pafs
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.faults import ERRORS, KINDS, FaultyProxy

ALL = (*KINDS, "lost")
MIB = 2**20
Start = Callable[..., FaultyProxy]


@pytest.fixture
def start(s3: str) -> Iterator[Start]:
    """Starts proxies in front of the session's store."""
    started: list[FaultyProxy] = []

    def begin(**options: Any) -> FaultyProxy:
        started.append(FaultyProxy(os.environ["AWS_ENDPOINT_URL"], **options).__enter__())
        return started[-1]

    yield begin
    for proxy in started:
        proxy.__exit__()


def boto(endpoint: str | None = None, attempts: int = 1) -> Any:
    config = Config(retries={"mode": "standard", "total_max_attempts": attempts})
    return boto3.client("s3", endpoint_url=endpoint, config=config)


def arrow(endpoint: str) -> pafs.S3FileSystem:
    return pafs.S3FileSystem(endpoint_override=endpoint, region="us-east-1")


@cache
def signed(method: str, key: str) -> str:
    operation = {"GET": "get_object", "HEAD": "head_object", "PUT": "put_object"}[method]
    url = boto().generate_presigned_url(operation, {"Bucket": "corpus", "Key": key})
    return url.removeprefix(os.environ["AWS_ENDPOINT_URL"])


def ask(proxy: FaultyProxy, key: str, method: str = "GET", body: Any = None, **headers: str) -> str:
    """Send one plain request and return how it ended, as a kind of fault."""
    connection = http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc)
    stated = received = 0
    try:
        chunked = "Transfer-Encoding" in headers
        connection.request(method, signed(method, key), body, headers, encode_chunked=chunked)
        response = connection.getresponse()
        stated = int(response.headers["Content-Length"]) if method != "HEAD" else 0
        while piece := response.read1():
            received += len(piece)
        return {500: "internal", 503: "slow_down"}.get(response.status, "" if received == stated else "truncated")
    except http.client.IncompleteRead:
        return "truncated"
    except ConnectionResetError:
        return "truncated" if stated else "reset"
    finally:
        connection.close()


@pytest.mark.parametrize("size", [0, 11, 6 * MIB, 30 * MIB])
def test_without_faults_objects_pass_unchanged(start: Start, size: int) -> None:
    proxy, data = start(share=0.0), os.urandom(size)
    store, files = boto(proxy.endpoint), arrow(proxy.endpoint)
    store.put_object(Bucket="corpus", Key="faults/boto", Body=data)
    with files.open_output_stream("corpus/faults/arrow") as stream:
        stream.write(data)
    for key in ("faults/boto", "faults/arrow"):
        assert boto().get_object(Bucket="corpus", Key=key)["Body"].read() == data
        assert store.get_object(Bucket="corpus", Key=key)["Body"].read() == data
        with files.open_input_file(f"corpus/{key}") as file:
            assert file.size() == size
            assert file.read() == data
            assert size == 0 or file.read_at(5, size - 7) == data[size - 7 : size - 2]
    assert proxy.requests["PUT"] and not proxy.injected


def test_chunked_bodies_pass_unchanged(start: Start) -> None:
    proxy, pieces = start(share=0.0), [b"a" * 70_000, b"b", b"c" * 300]
    assert ask(proxy, "faults/chunked", "PUT", iter(pieces), **{"Transfer-Encoding": "chunked"}) == ""
    assert boto().get_object(Bucket="corpus", Key="faults/chunked")["Body"].read() == b"".join(pieces)


def test_a_connection_serves_many_requests(start: Start) -> None:
    proxy = start(share=1.0, kinds=["slow_down"])
    connection = http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc)
    connection.connect()
    first = connection.sock
    for _ in range(3):
        connection.request("PUT", "/corpus/faults/kept", b"x" * 1000, {"Expect": "100-continue"})
        assert b"SlowDown" in connection.getresponse().read()
        assert connection.sock is first
    connection.close()


@pytest.mark.parametrize("kind", ALL)
def test_with_all_requests_broken_each_fails_as_its_kind(start: Start, kind: str) -> None:
    proxy = start(share=1.0, kinds=[kind])
    boto().put_object(Bucket="corpus", Key="faults/there", Body=b"x" * 5000)
    seen = {method: ask(proxy, "faults/there", method) for method in ("GET", "HEAD")}
    expected = "reset" if kind == "lost" else kind
    assert seen == {"GET": expected, "HEAD": "" if kind == "truncated" else expected}
    before = proxy.injected.copy()
    ask(proxy, "faults/new-" + kind, "PUT", b"new")
    found = boto().list_objects_v2(Bucket="corpus", Prefix="faults/new-" + kind)["KeyCount"]
    assert found == (kind in ("lost", "truncated"))  # an upload's answer has no body to cut
    assert proxy.injected - before == ({} if kind == "truncated" else {(kind, "PUT"): 1})


def test_clients_see_the_faults(start: Start) -> None:
    proxy = start(share=1.0, kinds=["slow_down"])
    with pytest.raises(ClientError, match="SlowDown"):
        boto(proxy.endpoint).get_object(Bucket="corpus", Key="faults/there")
    with pytest.raises(OSError, match="HTTP status 503"):
        pafs.S3FileSystem(
            endpoint_override=proxy.endpoint, region="us-east-1", retry_strategy=pafs.AwsStandardS3RetryStrategy(1)
        ).get_file_info("corpus/faults/there")


def test_a_share_of_requests_breaks_and_the_seed_decides_which(start: Start) -> None:
    boto().put_object(Bucket="corpus", Key="faults/there", Body=b"x" * 5000)
    runs = []
    for seed in (1, 1, 2):
        proxy = start(share=0.3, seed=seed, kinds=ALL)
        runs.append([ask(proxy, "faults/there") for _ in range(100)])
        counts = Counter("reset" if kind == "lost" else kind for kind, _ in proxy.injected.elements())
        assert counts == Counter(filter(None, runs[-1]))
        assert {kind for kind, _ in proxy.injected} == set(ALL)
        assert 15 <= proxy.injected.total() <= 45 and proxy.requests.total() == 100
    assert runs[0] == runs[1] != runs[2]


def test_a_put_that_was_stored_is_refused_when_its_answer_was_lost(start: Start) -> None:
    """Why a refused conditional put must be compared with what is there before it counts as lost to another writer."""
    proxy = start(share=1.0, kinds=["lost"])
    store = boto(proxy.endpoint, attempts=5)
    store.meta.events.register("needs-retry.s3", lambda **_: setattr(proxy, "share", 0.0))
    with pytest.raises(ClientError, match="PreconditionFailed") as refused:
        store.put_object(Bucket="corpus", Key="faults/once", Body=b"mine", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["RetryAttempts"] == 1
    assert proxy.injected == {("lost", "PUT"): 1} and proxy.requests == {"PUT": 2}
    assert boto().get_object(Bucket="corpus", Key="faults/once")["Body"].read() == b"mine"


def test_as_a_program_it_prints_its_counts(s3: str) -> None:
    command = [sys.executable, "-m", "tests.support.faults", "--target", os.environ["AWS_ENDPOINT_URL"], "--share", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            for _ in range(3):
                with pytest.raises(Exception):  # noqa: B017
                    boto().put_object(Bucket="corpus", Key="faults/program", Body=b"x")
        process.send_signal(signal.SIGTERM)
        counts = json.loads(process.stdout.readline())
    assert process.returncode == 0
    assert counts["requests"] == {"PUT": 3} and sum(counts["injected"].values()) == 3
    assert set(counts["injected"]) <= {f"{kind} PUT" for kind in (*ERRORS, "reset")}

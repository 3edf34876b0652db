"""The application on Ray Serve: the same answers, sound in parts, limits and token; each client has its own rate."""

import hashlib
import http.client
import signal
import socket
from collections.abc import Iterator

import pytest
from ray import serve

from eval.search import Query, Searcher
from eval.serving import deployment
from eval.serving.settings import TOKEN_VARIABLE, Limits
from tests.support.serving import BEARER, TOKEN, Answer, answer_of, flac_of, multipart, served


@pytest.fixture(scope="module")
def port(search_index: str, ray_session: None) -> Iterator[int]:
    """What a RayService deploys, in this session's Ray."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN_VARIABLE, TOKEN)
        arguments = deployment.Arguments(index=search_index, limits=Limits(rate=20.0, upload_mb=1.0))
        application = deployment.application(arguments)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    serve.run(application, name="search", route_prefix="/")
    yield port
    serve.shutdown()


def ask(
    port: int, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, source: str = "127.0.0.1"
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60, source_address=(source, 0))
    try:
        connection.request("POST" if body else "GET", path, body, headers or {})
        return answer_of(connection.getresponse())
    finally:
        connection.close()


@pytest.mark.ray
def test_replicas_answer_as_one_process_does(port: int, search_index: str, dataset: str) -> None:
    searcher = Searcher(search_index)
    answer = ask(port, "/api/search?text=rain&k=5", headers=BEARER)
    assert [each["id"] for each in answer.json["results"]] == [
        each.id for each in searcher.search(Query(text="rain", k=5))
    ]
    (hit,) = searcher.search(Query(text="rain", k=1))
    part = ask(port, f"/api/clips/{hit.id}/audio", headers={**BEARER, "Range": "bytes=10-19"})
    assert part.status == 206 and part.body == searcher.audio(hit.id)[10:20]
    body, headers = multipart(file=flac_of(dataset, hit.key))
    assert ask(port, "/api/search", body, {**BEARER, **headers}).json["results"][0]["id"] == hit.id
    assert ask(port, "/", headers=BEARER).body.startswith(b"<!doctype html>")
    assert ask(port, "/healthz").status == 200


@pytest.mark.ray
def test_replicas_refuse_as_one_process_does(port: int) -> None:
    assert ask(port, "/api/index").status == 401
    body, headers = multipart(file=bytes(3_000_000))
    assert ask(port, "/api/search", body, {**BEARER, **headers}).status == 413
    assert ask(port, "/api/search?text=rain&k=-1", headers=BEARER).status == 400
    assert ask(port, "/api/clips/none", headers=BEARER).json["error"].startswith("No clip has the id")


@pytest.mark.ray
def test_each_client_has_its_own_rate(port: int) -> None:
    answers = (ask(port, "/api/tags", headers=BEARER, source="127.0.0.2") for _ in range(5_000))
    refused = next(answer for answer in answers if answer.status != 200)  # faster than 20 a second for long enough
    assert refused.status == 429 and refused.headers["retry-after"]
    assert ask(port, "/api/tags", headers=BEARER, source="127.0.0.3").status == 200


@pytest.mark.ray
def test_the_secret_stays_out_of_what_ray_keeps(port: int) -> None:
    """Arguments of a deployment are stored by Ray's head: they have the hash of the token only."""
    deployed = serve.status().applications["search"]
    assert deployed.status == "RUNNING" and TOKEN not in repr(deployed)
    arguments = deployment.Arguments(index="a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN_VARIABLE, TOKEN)
        bound = deployment.application(arguments)._bound_deployment
    (settings,) = bound.init_args
    assert settings.token_sha256 == hashlib.sha256(TOKEN.encode()).hexdigest() and TOKEN not in repr(settings)


@pytest.mark.ray
def test_the_stage_starts_ray_serve_and_ends_it(search_index: str) -> None:
    with served(search_index, "--replicas", "1") as server:
        assert server.search(text="rain", k=1).status == 200
        assert server.stop(signal.SIGINT) == 0
        assert server.lines[-1].endswith("serve: stopped\n") and "Traceback" not in "".join(server.lines)

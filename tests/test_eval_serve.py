"""`eval serve` as a process: the API answers what the searcher finds, sound comes in parts, no answer names a folder."""

import random
import signal
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eval.search import Query, Searcher
from eval.serving.settings import TOKEN_VARIABLE, Limits
from eval.stages.serve import ServeConfig
from eval.stages.serve import run as run_serve
from pipeline import audio
from pipeline.audio import spectrogram
from pipeline.errors import InputError
from tests.support import shard_set
from tests.support.browser import until
from tests.support.html_page import Page
from tests.support.serving import Answer, Server, flac_of, make_index, multipart, served


@pytest.fixture(scope="module")
def searcher(search_index: str) -> Searcher:
    return Searcher(search_index)


@pytest.fixture(scope="module")
def server(search_index: str):
    with served(search_index, "--limits.rate", "0") as server:
        yield server


def ids(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [clip["id"] for clip in answer.json["results"]]


def hits(searcher: Searcher, **values) -> list[str]:
    return [hit.id for hit in searcher.search(Query(**values))]


@pytest.mark.parametrize("mode", ["embedding", "words", "hybrid"])
def test_a_search_gives_what_the_searcher_finds(server: Server, searcher: Searcher, mode: str) -> None:
    text = searcher.search(Query(text="rain", k=1))[0].captions[0]
    assert ids(server.search(text=text, mode=mode, k=7)) == hits(searcher, text=text, mode=mode, k=7)


def test_an_answer_has_what_is_known_of_a_clip_but_not_where_it_lies(server: Server, searcher: Searcher) -> None:
    found = server.search(text="a bell", k=1).json["results"][0]
    (hit,) = searcher.search(Query(text="a bell", k=1))
    assert found["score"] == pytest.approx(hit.score, abs=1e-5)
    assert (found["key"], found["tags"], found["captions"]) == (hit.key, list(hit.tags), list(hit.captions))
    assert found["dataset"] == Path(hit.data).name and found["file"] == Path(hit.uri).name and found["duration_s"] > 0
    assert server.ask(f"/api/clips/{hit.id}").json == {**found, "score": 1.0}


def test_filters_and_similar_clips(server: Server, searcher: Searcher) -> None:
    (tag, _), (other, _), *_ = searcher.tags()
    found = server.search(text="sound", tags=[tag], k=100).json["results"]
    assert found and all(tag in clip["tags"] for clip in found)
    kept = server.search(text="sound", tags=[tag], without=[other], k=100).json["results"]
    assert [clip["id"] for clip in kept] == [clip["id"] for clip in found if other not in clip["tags"]]
    similar = ids(server.search(like=found[0]["id"], k=3))
    assert found[0]["id"] not in similar and similar == hits(searcher, like=found[0]["id"], k=3)


def test_a_sound_finds_its_own_clip_and_mixes_with_text(server: Server, searcher: Searcher, dataset: str) -> None:
    (hit,) = searcher.search(Query(text="a dog", k=1))
    body, headers = multipart(file=flac_of(dataset, hit.key), k="3")
    assert ids(server.ask("/api/search", "POST", body, headers))[0] == hit.id
    samples = audio.decode(flac_of(dataset, hit.key), searcher.sample_rate_hz)
    body, headers = multipart(file=flac_of(dataset, hit.key), text="a bell", text_weight="0.9", k="5", tags=hit.tags[0])
    mixed = hits(searcher, text="a bell", samples=samples, text_weight=0.9, k=5, tags=hit.tags[:1])
    assert ids(server.ask("/api/search", "POST", body, headers)) == mixed


def test_sound_comes_whole_or_in_parts(server: Server, searcher: Searcher) -> None:
    (hit,) = searcher.search(Query(text="rain", k=1))
    path, content = f"/api/clips/{hit.id}/audio", searcher.audio(hit.id)
    whole = server.ask(path)
    assert (whole.status, whole.body) == (200, content)
    assert whole.headers["content-type"] == "audio/flac" and whole.headers["accept-ranges"] == "bytes"
    head = server.ask(path, "HEAD")
    assert head.status == 200 and int(head.headers["content-length"]) == len(content) and head.body == b""
    rng, size = random.Random(0), len(content)
    for _ in range(20):
        first = rng.randrange(size)
        last = rng.randrange(first, size + 1000)
        part = server.ask(path, headers={"Range": f"bytes={first}-{last}"})
        assert (part.status, part.body) == (206, content[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{min(last, size - 1)}/{size}"
    assert server.ask(path, headers={"Range": "bytes=5-"}).body == content[5:]
    assert server.ask(path, headers={"Range": "bytes=-5"}).body == content[-5:]
    assert server.ask(path, headers={"Range": f"bytes=-{size + 5}"}).body == content


def test_a_browser_does_not_load_a_sound_twice(server: Server, searcher: Searcher) -> None:
    path = f"/api/clips/{searcher.search(Query(text='rain', k=1))[0].id}/audio"
    etag = server.ask(path).headers["etag"]
    again = server.ask(path, headers={"If-None-Match": f'"other", {etag}'})
    assert (again.status, again.body) == (304, b"")
    assert server.ask(path, headers={"Range": "bytes=0-9", "If-Range": etag}).status == 206
    assert server.ask(path, headers={"Range": "bytes=0-9", "If-Range": '"older"'}).status == 200
    for others in ("bytes=0-1,4-5", "lines=1-2"):
        assert server.ask(path, headers={"Range": others}).status == 200


def test_the_picture_is_that_of_the_clip(server: Server, searcher: Searcher) -> None:
    (hit,) = searcher.search(Query(text="rain", k=1))
    answer = server.ask(f"/api/clips/{hit.id}/spectrogram.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.body == spectrogram.draw(audio.decode(searcher.audio(hit.id)), audio.SAMPLE_RATE_HZ)


def test_no_answer_names_a_folder(
    server: Server, searcher: Searcher, search_index: str, dataset: str, clap: str
) -> None:
    paths = ["/", "/docs", "/openapi.json", "/api/index", "/api/tags", "/api/search?text=rain", "/metrics", "/none"]
    paths += [f"/api/search?text=rain&tags={search_index}", "/api/search?text=", f"/api/clips/{dataset}"]
    for path in paths:
        answer = server.ask(path)
        folders = {str(Path(each).parent) for each in (search_index, dataset, clap)} | {str(Path.cwd())}
        text = answer.body.decode().replace(
            search_index if "tags=" in path else dataset if "clips/" in path else "\0", ""
        )
        assert not [folder for folder in folders if folder in text], path
    described = server.ask("/api/index").json
    assert described["clips"] == searcher.info.clips and described["name"] == Path(search_index).name
    assert [each["name"] for each in described["datasets"]] == [Path(dataset).name]
    assert [(each["name"], each["clips"]) for each in server.ask("/api/tags?limit=2").json] == searcher.tags()[:2]


def test_a_running_server_follows_its_index(clap: str, tmp_path: Path) -> None:
    data, out = tmp_path / "data", str(tmp_path / "index")
    make_index(out, shard_set.write(data, {"hum": (100.0, ["a hum"], ["Hum"])}), clap)
    with served(out) as server:
        before = server.ask("/api/index").json
        assert before["clips"] == 1 and "1 clip of data" in server.ask("/").body.decode()
        make_index(out, shard_set.write(data, {"beep": (900.0, ["a beep"], ["Beep"])}, first=1), clap)
        after = server.ask("/api/index").json
        assert after["clips"] == after["datasets"][0]["clips"] == 2
        assert after["datasets"][0]["hash"] != before["datasets"][0]["hash"]
        assert "2 clips of data" in server.ask("/").body.decode()
        assert "blat_search_clips{" in (metrics := server.ask("/metrics").body.decode()) and "} 2.0" in metrics
        until(lambda: len(server.search(text="a beep").json["results"]) == 2)
        assert [each["name"] for each in server.ask("/api/tags").json] == ["Beep", "Hum"]


def test_the_pages_load_nothing_from_elsewhere(server: Server) -> None:
    for path in ("/", "/docs", "/login"):
        answer = server.ask(path)
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        page = Page(answer.body.decode())
        policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
        assert policy.startswith("default-src 'none';") and "http" not in policy.replace("http-equiv", "")
        for _, attributes in page.elements:
            for name in ("src", "href", "action"):
                assert not attributes.get(name, "").startswith(("http", "//")), attributes


def test_the_page_of_the_api_has_every_route(server: Server) -> None:
    schema, page = server.ask("/openapi.json").json, Page(server.ask("/docs").body.decode())
    routes = [f"{method.upper()} {path}" for path, calls in schema["paths"].items() for method in calls]
    assert len(routes) >= 9 and set(routes) <= set(page.texts)
    (parameters,) = [
        call["parameters"] for path, call in ((p, c["get"]) for p, c in schema["paths"].items() if p == "/api/search")
    ]
    assert {each["name"] for each in parameters} <= set(page.texts)
    assert all(each["description"] for each in parameters)


def test_metrics_count_by_route_and_not_by_name(server: Server) -> None:
    def counted() -> dict[tuple[str, str], float]:
        families = text_string_to_metric_families(server.ask("/metrics").body.decode())
        samples = [sample for family in families for sample in family.samples]
        return {
            (each.labels["route"], each.labels["status"]): each.value
            for each in samples
            if each.name == "blat_search_requests_total"
        }

    server.ask("/api/clips/none")
    before = counted()
    server.ask("/api/clips/none")
    server.ask("/no/such/page")
    after = counted()
    assert after["/api/clips/{clip_id}", "404"] == before["/api/clips/{clip_id}", "404"] + 1
    assert not [route for route, _ in after if "none/" in route or "no/such" in route]


def test_ctrl_c_ends_it_also_while_a_client_stays_connected(search_index: str) -> None:
    with served(search_index) as server, socket.create_connection(("127.0.0.1", server.port)):
        assert server.ask("/healthz").json == {"status": "ok"}
        assert server.stop(signal.SIGINT) == 0
        assert server.lines[-1].endswith("serve: stopped\n") and "Traceback" not in "".join(server.lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": ""}, "--index is missing"),
        ({"index": "/nowhere"}, "--index '/nowhere'"),
        ({"port": 70_000}, "--port 70000: use 1 to"),
        ({"host": "0.0.0.0"}, f"--host '0.0.0.0': .*{TOKEN_VARIABLE}"),
        ({"host": "::"}, f"--host '::': .*{TOKEN_VARIABLE}"),
        ({"host": "no such host"}, "--host 'no such host': this machine has no such address"),
        ({"replicas": -1}, "--replicas -1"),
        ({"max_replicas": 2}, "--replicas is missing|--replicas 0"),
        ({"replicas": 3, "max_replicas": 2}, "--max-replicas 2"),
        ({"limits": Limits(rate=-1)}, "--limits.rate -1"),
        ({"limits": Limits(upload_mb=0)}, "--limits.upload-mb 0"),
    ],
)
def test_wrong_commands_name_the_flag(
    search_index: str, changes: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    if "no such" in str(changes):
        monkeypatch.setenv(TOKEN_VARIABLE, "a token of sixteen or more")
    with pytest.raises(InputError, match=message):
        run_serve(ServeConfig(**{"index": search_index, **changes}))


def test_a_port_in_use_and_a_short_token_are_refused(search_index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: .*choose another"):
            run_serve(ServeConfig(index=search_index, port=port))
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    with pytest.raises(InputError, match="16 characters or more") as error:
        run_serve(ServeConfig(index=search_index))
    assert "short" not in str(error.value)

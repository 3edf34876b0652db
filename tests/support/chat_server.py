"""A server on localhost that speaks OpenAI's chat completions, with faults: one request in twenty, of each kind in turn.

A caption depends on clip and instruction alone, so that two runs can be compared.
"""

import dataclasses
import hashlib
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from pipeline import storage
from pipeline.configs import CAPTION
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.engine import ActorConfig
from pipeline.stages import caption
from train.models.captioner.decoding import Decoding

GREEDY = Decoding(method="greedy")
FAULTS = ("429", "500", "slow", "no JSON")


class ChatServer:
    """The server; `with` starts and stops it."""

    def __init__(self, delay_s: float = 0.0, fault_every: int = 20) -> None:
        self.delay_s, self.fault_every = delay_s, fault_every
        self.always: dict[str, int] = {}  # status of clips, by their hash, or of all by ""
        self.at_first: tuple[int, int] = (0, 0)  # a status, and how many requests for a clip get it
        self.content, self.finish_reason = "", "stop"  # of every answer; without content it depends on the clip
        self.asked: Counter[str] = Counter()  # requests, by clip and instruction
        self.lock = threading.Lock()
        self.requests = 0
        self.faults: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()  # requests that got an answer, by clip and instruction
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.answer(self, body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        """Answer one request, or fail."""
        wav, text = clip_and_instruction(body)
        with self.lock:
            self.requests += 1
            self.bodies.append(body)
            self.keys.add(handler.headers.get("Authorization", ""))
            fault = ""
            if self.fault_every and self.requests % self.fault_every == 0:
                fault = FAULTS[(self.requests // self.fault_every - 1) % len(FAULTS)]
                self.faults[fault] += 1
            self.asked[f"{wav} {text}"] += 1
            status = self.always.get(wav, self.always.get("", 0)) or {"429": 429, "500": 500}.get(fault, 200)
            if self.asked[f"{wav} {text}"] <= self.at_first[1]:
                status = self.at_first[0]
        time.sleep(self.delay_s + (0.3 if fault == "slow" else 0.0))
        if status != 200:
            retry = {"Retry-After": "0"} if status == 429 else {}
            reply(handler, status, b'{"error": {"message": "of this test, for Bearer SECRET"}}', retry)
        elif fault == "no JSON":
            reply(handler, 200, b"<html>a proxy</html>", {})
        else:
            with self.lock:
                self.answered[f"{wav} {text}"] += 1
            reply(handler, 200, json.dumps(self.completion(body, wav, text)).encode(), {})

    def completion(self, body: dict[str, Any], wav: str, text: str) -> dict[str, Any]:
        """Return an answer that a model could give."""
        number = int(hashlib.sha256(f"{wav} {text}".encode()).hexdigest()[:6], 16)
        contents = [
            self.content or f"The audio contains a sound {number + n}. It ends." for n in range(body.get("n", 1))
        ]
        choices = [
            {"index": n, "finish_reason": self.finish_reason, "message": {"role": "assistant", "content": content}}
            for n, content in enumerate(contents)
        ]
        usage = {"prompt_tokens": 100, "completion_tokens": 7}
        return {"object": "chat.completion", "choices": choices, "usage": usage}


def clip_and_instruction(body: dict[str, Any]) -> tuple[str, str]:
    """Return the hash of the clip of a request, or '', and its instruction."""
    parts = body["messages"][-1]["content"]
    if isinstance(parts, str):
        return "", parts
    (text,) = (part["text"] for part in parts if part["type"] == "text")
    wavs = [part["input_audio"]["data"] for part in parts if part["type"] == "input_audio"]
    return hashlib.sha256(wavs[0].encode()).hexdigest()[:12] if wavs else "", text


def reply(handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
    """Send an answer; the client may be dead."""
    try:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)
    except OSError:
        handler.close_connection = True


def captioned(corpus: str, out: str) -> str:
    """Caption the corpus's tagged clips by a server without faults, in this process; return the dataset."""
    with ChatServer(fault_every=0) as server:
        caption.run(dataclasses.replace(job_of(corpus, server, out), captioner="openai:acme"))
    return out


def job_of(corpus: str, server: ChatServer, out: str) -> CaptionConfig:
    """Return a job that asks the server for captions of the corpus' 24 clips, in three shards."""
    return dataclasses.replace(
        CAPTION["tiny"][1], source=storage.join(corpus, "tagged_segments.csv"), actors=ActorConfig(max=0),
        captioner="openai:acme/earwig", captioner_url=server.url, decoding=GREEDY, concurrency=4, out=out,
    )  # fmt: skip

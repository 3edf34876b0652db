"""A server on localhost that speaks OpenAI's chat completions and writes captions by a rule, from the tags in the prompt.

It stands for a text LLM in studies that must run anywhere: `pipeline recaption --captioner openai:rules --rewrite tags`.
The rule knows the tags and nothing of the sound: "the sound of rain and a bell".

    python3 eval/studies/rule_captioner.py    prints its URL and serves until it is stopped
"""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TAGS = re.compile(r"has these tags: (.*?)\.(?: |$)")  # as in the template from-tags of pipeline/graph/prompts.py


def caption(prompt: str) -> str:
    """Return the caption for a prompt; '' where it names no tags."""
    found = TAGS.search(prompt)
    tags = [tag.strip().lower() for tag in found[1].split(",")] if found else []
    listed = " and ".join(filter(None, (", ".join(tags[:-1]), *tags[-1:])))
    return f"the sound of {listed}" if listed else ""


class Handler(BaseHTTPRequestHandler):
    """Answers every POST with one completion."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Write the caption for the last message, whose content is a text or has parts."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content: Any = body["messages"][-1]["content"]
        if isinstance(content, list):
            content = " ".join(part["text"] for part in content if part["type"] == "text")
        message = {"role": "assistant", "content": caption(content)}
        answer = json.dumps({"object": "chat.completion", "choices": [{"index": 0, "message": message}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Log nothing: each request is a line of the job's own counts."""


def serve() -> None:
    """Serve at a free port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
        server.serve_forever()


serve()

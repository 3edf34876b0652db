"""As much of the Hugging Face hub as one model repository needs: create, commit, list and fetch, over real HTTP."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

COMMIT = "c" * 40


class Hub:
    """A server on a local port (0: a free one); `files` holds what was committed to its one repository, team/model."""

    def __init__(self, port: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def answer(self, value: Any = None, status: int = 200, body: bytes = b"", **headers: str) -> None:
                body = body or json.dumps(value).encode()
                self.send_response(status)
                for name, content in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
                    self.send_header(name, content)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            @staticmethod
            def entry(name: str, body: bytes) -> dict[str, Any]:
                return {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}

            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path.endswith("/preupload/main"):
                    names = [file["path"] for file in json.loads(sent)["files"]]
                    self.answer({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
                elif self.path.endswith("/commit/main"):
                    for line in map(json.loads, sent.splitlines()):
                        if line["key"] == "file":
                            hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                    address = f"{hub.address}/team/model/commit/{COMMIT}"
                    self.answer({"commitUrl": address, "commitOid": COMMIT, "success": True})
                elif self.path == "/api/repos/create":
                    self.answer({"url": f"{hub.address}/team/model", "name": "team/model", "id": "1"})
                else:
                    self.answer({})

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if "team/model" not in path:
                    self.answer({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
                elif "/tree/" in path:
                    self.answer([self.entry(name, body) for name, body in hub.files.items()])
                elif path.startswith("/api/models/team/model"):
                    siblings = [{"rfilename": name} for name in sorted(hub.files)]
                    self.answer({"id": "team/model", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
                else:
                    body = hub.files.get(path.rpartition("/")[2])
                    if body is None:
                        self.answer({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
                    else:
                        self.answer(body=body, ETag=f'"{hashlib.sha1(body).hexdigest()}"')

            do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

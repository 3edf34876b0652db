"""The pages: search, the API, and the form that asks for the token."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Form, Request
from starlette.responses import HTMLResponse, Response

from eval.search import IndexInfo, Searcher
from eval.serving.access import Access
from eval.serving.api import MAX_TEXT
from eval.serving.guard import MB
from eval.serving.service import public_name
from eval.serving.settings import TOKEN_VARIABLE, Limits
from pipeline import html
from pipeline.audio import spectrogram
from pipeline.html import Part

FOLDER = Path(__file__).parent
SCRIPT = FOLDER / "search_page.js"
MODES = (
    ("embedding", "Meaning", "Compares what the sound is like with what the words mean"),
    ("words", "Words", "Finds captions with these words"),
    ("hybrid", "Both", "Meaning and words together"),
)
ANSWERED = "What was asked for."
PLACEHOLDER = "a dog barks while a train passes"
GROUPS = {"/api/search": "Search", "/api/clips": "Clips", "/": "The index and the server"}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One route, for the page of the API."""

    method: str
    path: str
    summary: str
    parameters: list[list[str]]
    """Rows of a table; the first has the headings."""
    answers: list[list[str]]
    example: str
    """A command of a shell, or ''."""


@functools.lru_cache(maxsize=1)
def search_page(info: IndexInfo, limits: Limits) -> str:
    """Return the search page, which is drawn again when the index has changed."""
    names = [public_name(each.uri) for each in info.datasets]
    return html.render(
        FOLDER / "search_page.html.jinja",
        title="Search",
        heading=public_name(info.uri),
        parts=[],
        scripts=(html.PLAYER, SCRIPT),
        clips=info.clips,
        datasets=", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        model=public_name(info.model),
        modes=MODES,
        placeholder=PLACEHOLDER,
        max_text=MAX_TEXT,
        max_bytes=int(limits.upload_mb * MB),
        picture_size=(spectrogram.COLUMNS, spectrogram.ROWS),
    )


def login_page(next_query: str, wrong: bool) -> str:
    """Return the form that asks for the token; `next_query` is the search to open then, as `text=rain`."""
    return html.render(
        FOLDER / "login.html.jinja",
        title="Token needed",
        heading="This search needs a token",
        parts=[],
        wrong=wrong,
        next=next_query,
        variable=TOKEN_VARIABLE,
    )


def router(app: FastAPI, searcher: Searcher, limits: Limits, access: Access) -> APIRouter:
    """Return the routes of the pages. `app` has those of the API already."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    api = api_page(app.openapi(), bool(access.token_sha256))

    @routes.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(search_page(searcher.info, limits))

    @routes.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(api)

    @routes.get("/favicon.ico")
    async def icon() -> Response:
        return Response(status_code=204)

    @routes.get("/login")
    async def login_form(next: str = "") -> HTMLResponse:
        return HTMLResponse(login_page(next, wrong=False))

    @routes.post("/login")
    async def login(request: Request, token: str = Form(""), next: str = Form("")) -> Response:
        if not access.token_sha256 or access.is_token(token):
            return access.open_page(request.scope, next)
        return HTMLResponse(login_page(next, wrong=True), 401)

    return routes


def api_page(schema: Mapping[str, Any], token: bool) -> str:
    """Return the page of the API from its OpenAPI schema."""
    parts: dict[str, list[Call]] = {title: [] for title in GROUPS.values()}
    for path, calls in schema["paths"].items():
        group = next(title for start, title in GROUPS.items() if path.startswith(start))
        parts[group] += [_call(path, method, call, schema) for method, call in calls.items()]
    return html.render(
        FOLDER / "api_page.html.jinja",
        title="API",
        heading="API of the search",
        parts=[Part(title=title, kind="calls", content=calls) for title, calls in parts.items()],
        token=token,
    )


def _call(path: str, method: str, call: Mapping[str, Any], schema: Mapping[str, Any]) -> Call:
    rows = [[each["name"], each["in"], *_described(each["schema"], each)] for each in call.get("parameters", ())]
    for content in call.get("requestBody", {}).get("content", {}).values():
        body = _resolve(content["schema"], schema)
        rows += [[name, "form", *_described(each, each)] for name, each in body["properties"].items()]
    answers = [
        [status, ANSWERED if status == "200" else answer["description"], _fields(answer, schema)]
        for status, answer in call["responses"].items()
    ]
    return Call(
        method=method.upper(),
        path=path,
        summary=call["summary"],
        parameters=[["Name", "Place", "Type", "Meaning"], *rows],
        answers=[["Status", "Meaning", "Fields"], *answers],
        example=_example(path, method),
    )


def _described(kind: Mapping[str, Any], described: Mapping[str, Any]) -> tuple[str, str]:
    """Return type and meaning of a parameter."""
    name = kind.get("type", "") if "enum" not in kind else " | ".join(kind["enum"])
    if "contentMediaType" in kind or kind.get("format") == "binary":
        name = "file"
    bounds = [f"{word} {kind[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in kind]
    bounds += [f"up to {kind['maxLength']} characters"] if "maxLength" in kind else []
    bounds += [f"default {kind['default']}"] if kind.get("default") not in (None, "", []) else []
    meaning = described.get("description", "")
    return name, f"{meaning} ({', '.join(bounds)})" if bounds else meaning


def _fields(answer: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the fields of an answer, those of its parts in brackets."""
    kinds = [content.get("schema", {}) for content in answer.get("content", {}).values()]
    names = [_names(kind, schema) for kind in kinds]
    return "; ".join(filter(None, names)) or ", ".join(answer.get("content", ()))


def _names(kind: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if kind.get("type") == "array":
        inner = _names(kind["items"], schema)
        return f"[{inner}]" if inner else ""
    fields = _resolve(kind, schema).get("properties", {})
    named = {name: _names(each, schema) for name, each in fields.items()}
    return ", ".join(f"{name} {names}" if names else name for name, names in named.items())


def _resolve(kind: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return schema["components"]["schemas"][kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind


def _example(path: str, method: str) -> str:
    """Return a command that asks for a path without values in it."""
    server = "http://127.0.0.1:8000"
    if path == "/api/search":
        text = f"curl -G {server}{path} --data-urlencode 'text=rain on a tin roof' -d k=5"
        return text if method == "get" else f"curl {server}{path} -F file=@bell.wav -F k=5"
    return "" if "{" in path else f"curl {server}{path}"

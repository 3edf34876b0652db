"""The routes of the JSON API."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi import Path as PathValue
from fastapi import Query as QueryValue
from starlette.responses import Response

from eval.search import Mode, Query
from eval.serving import ranges
from eval.serving.answers import (
    ClipAnswer,
    ErrorAnswer,
    IndexAnswer,
    SearchAnswer,
    TagAnswer,
    clip_answer,
    index_answer,
)
from eval.serving.errors import RequestError
from eval.serving.numbers import CONTENT_TYPE, Numbers
from eval.serving.service import Service

MAX_TEXT = 500  # characters
MAX_RESULTS = 100
MAX_TAGS = 20
TEXT = "What to look for, in words."
TAGS = "Tags that a clip must have. Repeat the parameter for each."
WITHOUT = "Tags that a clip must not have. Repeat the parameter for each."
LIKE = "Id of a clip of the index: look for clips that sound like it."
MODE = "embedding compares meanings, words finds the words of captions, hybrid does both."
K = "How many clips to return."
FILE = "A sound of any common format: look for clips that sound like it."
WEIGHT = "Share of the text where text and sound are mixed."
ERRORS = {400: "The request is wrong.", 404: "There is no such clip.", 429: "Too many requests."}
UPLOAD_ERRORS = {413: "The file is too large or the sound too long.", 415: "The file is no sound."}
Responses = dict[int | str, dict[str, Any]]
Text = Annotated[str, QueryValue(description=TEXT, max_length=MAX_TEXT)]
FormText = Annotated[str, Form(description=TEXT, max_length=MAX_TEXT)]
TagNames = Annotated[list[str], QueryValue(description=TAGS, max_length=MAX_TAGS)]
FormTagNames = Annotated[list[str], Form(description=TAGS, max_length=MAX_TAGS)]
OtherTagNames = Annotated[list[str], QueryValue(description=WITHOUT, max_length=MAX_TAGS)]
FormOtherTagNames = Annotated[list[str], Form(description=WITHOUT, max_length=MAX_TAGS)]
ClipId = Annotated[str, PathValue(description="Id of a clip, as a search returns it.")]
Weight = Annotated[float, QueryValue(description=WEIGHT, ge=0, le=1)]
FormWeight = Annotated[float, Form(description=WEIGHT, ge=0, le=1)]
Number = Annotated[int, QueryValue(description=K, ge=1, le=MAX_RESULTS)]
FormNumber = Annotated[int, Form(description=K, ge=1, le=MAX_RESULTS)]

Limit = Annotated[int, QueryValue(description="How many tags to return.", ge=1, le=10_000)]


def router(service: Service, numbers: Numbers) -> APIRouter:
    """Return the routes below /api, /healthz and /metrics."""
    routes = APIRouter(responses=_described(ERRORS))
    _add_search(routes, service)
    _add_clips(routes, service)
    _add_index(routes, service, numbers)
    return routes


def _add_search(routes: APIRouter, service: Service) -> None:
    @routes.get("/api/search", summary="Search by words, or by a clip of the index")
    def search(
        text: Text = "",
        tags: TagNames = [],  # noqa: B006  # FastAPI copies it
        without: OtherTagNames = [],  # noqa: B006
        like: Annotated[str, QueryValue(description=LIKE)] = "",
        mode: Annotated[Mode, QueryValue(description=MODE)] = "embedding",
        k: Number = 20,
        text_weight: Weight = 0.5,
    ) -> SearchAnswer:
        query = Query(text=text, like=like, mode=mode, k=k, text_weight=text_weight)
        return _answer(service, _filtered(query, tags, without))

    @routes.post("/api/search", summary="Search by a sound", responses=_described(UPLOAD_ERRORS))
    def search_by_sound(
        file: Annotated[UploadFile, File(description=FILE)],
        text: FormText = "",
        tags: FormTagNames = [],  # noqa: B006
        without: FormOtherTagNames = [],  # noqa: B006
        k: FormNumber = 20,
        text_weight: FormWeight = 0.5,
    ) -> SearchAnswer:
        samples = service.samples(file.file.read())
        query = Query(text=text, samples=samples, k=k, text_weight=text_weight)
        return _answer(service, _filtered(query, tags, without))


def _add_clips(routes: APIRouter, service: Service) -> None:
    @routes.get("/api/clips/{clip_id}", summary="One clip")
    def clip(clip_id: ClipId) -> ClipAnswer:
        return clip_answer(service.clip(clip_id))

    sound: Responses = {
        200: {"content": {"audio/flac": {}}},
        206: {"description": "A part of the sound, for the header Range."},
    }

    @routes.get("/api/clips/{clip_id}/audio", summary="The sound of a clip", response_class=Response, responses=sound)
    @routes.head("/api/clips/{clip_id}/audio", include_in_schema=False)
    def clip_audio(clip_id: ClipId, request: Request) -> Response:
        return ranges.respond(service.sound(clip_id), request.method, request.headers)

    picture: Responses = {200: {"content": {"image/png": {}}}}

    @routes.get(
        "/api/clips/{clip_id}/spectrogram.png",
        summary="A picture of the sound of a clip",
        response_class=Response,
        responses=picture,
    )
    def clip_spectrogram(clip_id: ClipId, request: Request) -> Response:
        return ranges.respond(service.picture(clip_id), request.method, request.headers)


def _add_index(routes: APIRouter, service: Service, numbers: Numbers) -> None:
    @routes.get("/api/tags", summary="The tags of the index, the most frequent first")
    def tags(limit: Limit = 1000) -> list[TagAnswer]:
        return [TagAnswer(name=name, clips=clips) for name, clips in service.tags[:limit]]

    @routes.get("/api/index", summary="What is in the index")
    def index() -> IndexAnswer:
        return index_answer(service.searcher.info)

    @routes.get("/healthz", summary="Whether the server answers; needs no token")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    def metrics() -> Response:
        return Response(numbers.text(service.searcher.info.clips), media_type=CONTENT_TYPE)


def _filtered(query: Query, tags: list[str], without: list[str]) -> Query:
    return dataclasses.replace(query, tags=tuple(tags), without_tags=tuple(without))


def _described(answers: Mapping[int, str]) -> Responses:
    return {status: {"model": ErrorAnswer, "description": text} for status, text in answers.items()}


def _answer(service: Service, query: Query) -> SearchAnswer:
    """Return the answer to a query."""
    for text in (query.text, *query.tags, *query.without_tags):
        if any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in text):
            raise RequestError(400, "The words of a search hold a control character.")
    started = time.monotonic()
    hits = service.search(query)
    return SearchAnswer(results=[clip_answer(hit) for hit in hits], took_s=time.monotonic() - started)

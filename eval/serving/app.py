"""The application of one index: the same in one process and in every replica."""

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from eval.search import Query, Searcher
from eval.serving import api, pages
from eval.serving.access import Access
from eval.serving.errors import RequestError
from eval.serving.guard import Guard, as_json
from eval.serving.numbers import Numbers
from eval.serving.service import Service
from eval.serving.settings import Settings

DESCRIPTION = "Searches clips by words and by sound."
MAX_SHOWN = 80  # characters of a wrong value in the message


def load(settings: Settings) -> ASGIApp:
    """Open the index, load its model, and return the application.

    Raises:
        InputError: when the index or the model is none, or they do not belong together.
    """
    searcher = Searcher(settings.index, settings.model, settings.device)
    searcher.search(Query(text="warm up", k=1))  # loads the model: the first request of a client does not wait for it
    return build(searcher, settings)


def build(searcher: Searcher, settings: Settings) -> ASGIApp:
    """Return the application of a searcher."""
    access, numbers = Access(settings.token_sha256), Numbers()
    service = Service(searcher, settings.limits.upload_s)
    app = FastAPI(title="Sound search", description=DESCRIPTION, docs_url=None, redoc_url=None)
    app.add_exception_handler(HTTPException, _on_error)
    app.add_exception_handler(RequestValidationError, _on_wrong_value)
    app.add_exception_handler(Exception, _on_failure)
    app.include_router(api.router(service, numbers))
    _describe(app)
    app.include_router(pages.router(app, searcher, settings.limits, access))
    return Guard(app, access, settings.limits, numbers)


def _describe(app: FastAPI) -> None:
    """Take out of the schema FastAPI's answer for wrong values: ours is 400, as for everything else that is wrong."""
    schema = app.openapi()
    for calls in schema["paths"].values():
        for call in calls.values():
            call["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, RequestError):
        return as_json(error)
    message = {404: "There is no such page.", 405: "This page has no such method."}.get(error.status_code, error.detail)
    return as_json(HTTPException(error.status_code, message, error.headers))


async def _on_failure(_: Request, __: Exception) -> Response:
    """Answer for a bug. The guard logs it; the client learns nothing of the server."""
    return as_json(RequestError(500, "The server failed; its log has the reason."))


async def _on_wrong_value(_: Request, error: Exception) -> Response:
    """Answer with one sentence for all wrong values."""
    assert isinstance(error, RequestValidationError)
    faults = []
    for each in error.errors():
        name = ".".join(str(part) for part in each["loc"][1:]) or "the request"
        value = repr(each.get("input"))
        shown = value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}..."
        faults.append(f"{name}: {each['msg']}" + ("" if each["type"] == "missing" else f", and not {shown}"))
    return as_json(RequestError(400, "; ".join(faults) + "."))

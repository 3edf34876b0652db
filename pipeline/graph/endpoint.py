"""A client of an endpoint that speaks OpenAI's chat completions: faults are tried again, and requests are counted.

The key comes from a variable of the environment. It is sent as a header to the one URL of the config, redirects are not
followed, and messages never contain it.
"""

import email.utils
import logging
import os
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from pipeline.errors import JobError
from pipeline.graph.caption_config import CaptionActorConfig

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)
ATTEMPTS = 8
MAX_WAIT_S = 300.0  # that an endpoint can ask for
CONNECT_S, ANSWER_S = 10.0, 300.0
BACKOFF = wait_exponential_jitter(initial=0.5, max=60, jitter=0.5)  # s; some two minutes in all
REFUSED = (400, 413, 415, 422)  # the request as it is: another clip may be accepted
TEMPORARY = (408, 409, 425, 429)
DETAIL_CHARS = 300


class TemporaryError(Exception):
    """The same request may be answered later."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RefusedError(Exception):
    """The endpoint does not take this request."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What an endpoint answered."""

    texts: list[str]
    requests: int
    """Requests until the answer came."""
    prompt_tokens: int
    completion_tokens: int

    def to_json(self) -> dict[str, Any]:
        """Return the content of a kept answer."""
        return asdict(self)


class Endpoint:
    """The client of one actor; many threads use it."""

    def __init__(self, config: CaptionActorConfig) -> None:
        import requests.adapters  # here: its import takes long, and every command loads this module

        self.url = f"{config.captioner_url.rstrip('/')}/chat/completions"
        self.variable = config.captioner_key_variable
        self.key = os.environ.get(self.variable, "")
        self.session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=config.concurrency)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)
        self.max_requests = config.max_requests
        self.budget = max(1, config.max_requests // max(1, config.actors.max))  # of this actor
        self.sent, self.answered = 0, 0
        self.lock = threading.Lock()

    def complete(self, body: dict[str, Any]) -> Completion:
        """Return the answer to a request.

        Raises:
            RefusedError: when the endpoint refuses this request, or always fails on it and answers others meanwhile.
            JobError: when the endpoint refuses the key or the model or cannot be reached, or the budget is used up.
        """
        answered, attempts = self.answered, 0

        def attempt() -> Completion:
            nonlocal attempts
            self._count()
            attempts += 1
            return self._send(body, attempts)

        retrying = Retrying(
            retry=retry_if_exception_type(TemporaryError), stop=stop_after_attempt(ATTEMPTS), wait=_wait, reraise=True
        )
        try:
            return retrying(attempt)
        except TemporaryError as error:
            if self.answered > answered:
                raise RefusedError(f"{ATTEMPTS} times: {error}") from None
            raise JobError(f"--captioner-url {self.url}: {error}; the same command goes on from here") from None

    def _count(self) -> None:
        """Count a request. Raises JobError when there is none left in the budget."""
        with self.lock:
            if self.max_requests and self.sent >= self.budget:
                raise JobError(
                    f"--max-requests {self.max_requests}: used up; answers are kept, and the same command goes on with "
                    "as many more"
                )
            self.sent += 1

    def _send(self, body: dict[str, Any], attempts: int) -> Completion:
        import requests

        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            response = self.session.post(
                self.url, json=body, headers=headers, timeout=(CONNECT_S, ANSWER_S), allow_redirects=False
            )
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise TemporaryError(f"cannot be reached ({type(error).__name__})") from None
        if response.status_code != requests.codes.ok:
            self._raise(response)
        try:
            completion = _completion(response.json(), attempts)
        except (ValueError, KeyError, TypeError):
            raise TemporaryError(f"answers with no chat completion: {self._detail(response)}") from None
        with self.lock:
            self.answered += 1
        return completion

    def _raise(self, response: "requests.Response") -> NoReturn:
        status, detail = response.status_code, self._detail(response)
        if status in TEMPORARY or status >= 500:
            raise TemporaryError(f"answers {status}: {detail}", _retry_after_s(response))
        if status in REFUSED:
            raise RefusedError(f"answers {status}: {detail}")
        hint = f"; the key comes from the variable {self.variable}" if status in (401, 403) else ""
        raise JobError(f"--captioner-url {self.url}: answers {status}: {detail}{hint}")

    def _detail(self, response: "requests.Response") -> str:
        """Return the beginning of an answer on one line, without the key."""
        text = " ".join(response.text.split())
        return (text.replace(self.key, "***") if self.key else text)[:DETAIL_CHARS]


def _completion(content: Any, attempts: int) -> Completion:
    usage = content.get("usage") or {}
    return Completion(
        texts=[_text(choice["message"].get("content")) for choice in content["choices"]],
        requests=attempts,
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )


def _text(content: Any) -> str:
    """Return the text of a message, which is a string, parts, or nothing."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def _wait(state: RetryCallState) -> float:
    """Return how long to wait, in seconds: what the endpoint asks for, else longer each time."""
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.retry_after_s if isinstance(error, TemporaryError) else None
    wait_s = BACKOFF(state) if asked_s is None else min(asked_s, MAX_WAIT_S)
    log.info("caption: the endpoint %s; again in %.1f s", error, wait_s)
    return wait_s


def _retry_after_s(response: "requests.Response") -> float | None:
    """Return the seconds that a Retry-After header asks for: a number or a date."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None

"""A client of an endpoint that speaks OpenAI's chat completions: faults are tried again, and requests are counted.

Two kinds of faults are tried again. One may be the request's own, such as 500: after eight of them a request is refused,
where the endpoint answers others meanwhile. The other is a plea for time, such as 429: the request waits for as long as
the endpoint answers any, and fewer requests are under way from then on.

The key comes from a variable of the environment. It is sent as a header to the one URL of the config, redirects are not
followed, and messages never contain it.
"""

import email.utils
import logging
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter
from tenacity.nap import sleep_using_event
from tenacity.stop import StopBaseT

from pipeline.errors import JobError
from pipeline.graph.budget import Budget, LocalBudget
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.throttle import Throttle

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)
ATTEMPTS = 8  # at a request whose fault may be its own
MAX_SILENCE_S = 1800.0  # without an answer to any request, after which an endpoint that asks for time ends the job
MAX_WAIT_S = 300.0  # that an endpoint can ask for
CONNECT_S, ANSWER_S = 10.0, 300.0
BACKOFF = wait_exponential_jitter(initial=0.5, max=60, jitter=0.5)  # s; some two minutes in all
REFUSED = (400, 413, 415, 422)  # the request as it is: another clip may be accepted
BUSY = (408, 425, 429, 503, 529)  # asks for time, and is never the fault of the request
CONFLICT = 409
DETAIL_CHARS = 300


class TemporaryError(Exception):
    """The same request may be answered later."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BusyError(TemporaryError):
    """The endpoint asks for time."""


class FaultError(TemporaryError):
    """The endpoint failed on this request, by a fault of its own or of the request."""


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
    cut: list[int] = field(default_factory=list)
    """Indices of the texts that ended at `max_tokens`."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of a kept answer."""
        return asdict(self)


class Endpoint:
    """The client of one actor; many threads use it."""

    def __init__(self, config: CaptionActorConfig, budget: Budget | None = None) -> None:
        """Take the config, and the budget of the run; without one, --max-requests bounds this client."""
        import requests.adapters  # here: its import takes long, and every command loads this module

        self.url = f"{config.captioner_url.rstrip('/')}/chat/completions"
        self.variable = config.captioner_key_variable
        self.key = os.environ.get(self.variable, "")
        self.session = requests.Session()
        self.session.auth = self._authorize
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=config.concurrency)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)
        self.max_requests = config.max_requests
        self.budget = LocalBudget(config.max_requests) if config.max_requests and not budget else budget
        self.throttle = Throttle(config.concurrency)
        self.answered, self.answered_at = 0, 0.0
        self.lock = threading.Lock()
        self.ended, self.error = threading.Event(), JobError()  # an error of the job ends the waits of all threads

    def complete(self, body: dict[str, Any]) -> Completion:
        """Return the answer to a request.

        Raises:
            RefusedError: when the endpoint refuses this request, or always fails on it and answers others meanwhile.
            JobError: when the endpoint refuses the key or the model, cannot be reached or answers nothing for half an
                hour, or the budget is used up. From then on every request raises it.
        """
        answered, sent = self.answered, 0

        def send() -> Completion:
            nonlocal sent
            self._count()
            sent += 1
            return self._send(body, sent)

        def ask() -> Completion:
            with self.throttle.place():  # held while the endpoint asks for time, left after a fault of this request
                return self._retrying(BusyError, self._is_silent)(send)

        try:
            return self._retrying(FaultError, stop_after_attempt(ATTEMPTS))(ask)
        except TemporaryError as error:
            if isinstance(error, FaultError) and self.answered > answered:
                raise RefusedError(f"{ATTEMPTS} times: {error}") from None
            self._end(f"--captioner-url {self.url}: {error}; the same command goes on from here")

    def _retrying(self, kind: type[TemporaryError], stop: StopBaseT) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(kind),
            stop=stop,
            wait=_wait,
            sleep=sleep_using_event(self.ended),
            reraise=True,
        )

    def _is_silent(self, state: RetryCallState) -> bool:
        """Return whether no request was answered for long, since this one began to wait."""
        return time.monotonic() - max(self.answered_at, state.start_time) > MAX_SILENCE_S

    def _count(self) -> None:
        """Count a request. Raises JobError when there is none left in the budget, or the job has ended."""
        if self.ended.is_set():
            raise self.error
        if self.budget and not self.budget.take():
            self._end(
                f"--max-requests {self.max_requests}: used up; answers are kept, and the same command goes on with as "
                "many more"
            )

    def _end(self, message: str) -> NoReturn:
        """End the job, also for the other threads. Raises JobError: the first one."""
        with self.lock:
            if not self.ended.is_set():
                self.error = JobError(message)
                self.ended.set()
        raise self.error

    def _authorize(self, request: "requests.PreparedRequest") -> "requests.PreparedRequest":
        """Add the key; as the session's own way it also keeps requests from taking another one from ~/.netrc."""
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request

    def _send(self, body: dict[str, Any], attempts: int) -> Completion:
        import requests

        sent_at = time.monotonic()
        try:
            response = self.session.post(self.url, json=body, timeout=(CONNECT_S, ANSWER_S), allow_redirects=False)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise FaultError(f"cannot be reached ({type(error).__name__})") from None
        if response.status_code in BUSY:
            self.throttle.narrow(sent_at)
        if response.status_code != requests.codes.ok:
            self._raise(response)
        try:
            completion = _completion(response.json(), attempts)
        except (ValueError, KeyError, TypeError):
            raise FaultError(f"answers with no chat completion: {self._detail(response)}") from None
        with self.lock:
            self.answered, self.answered_at = self.answered + 1, time.monotonic()
        self.throttle.widen()
        return completion

    def _raise(self, response: "requests.Response") -> NoReturn:
        status, detail = response.status_code, self._detail(response)
        if status in BUSY:
            raise BusyError(f"answers {status}: {detail}", _retry_after_s(response))
        if status == CONFLICT or status >= 500:
            raise FaultError(f"answers {status}: {detail}", _retry_after_s(response))
        if status in REFUSED:
            raise RefusedError(f"answers {status}: {detail}")
        hint = f"; the key comes from the variable {self.variable}" if status in (401, 403) else ""
        self._end(f"--captioner-url {self.url}: answers {status}: {detail}{hint}")

    def _detail(self, response: "requests.Response") -> str:
        """Return the beginning of an answer on one line, without the key."""
        text = " ".join(response.text.split())
        return (text.replace(self.key, "***") if self.key else text)[:DETAIL_CHARS]


def _completion(content: Any, attempts: int) -> Completion:
    usage, choices = content.get("usage") or {}, content["choices"]
    return Completion(
        texts=[_text(choice["message"].get("content")) for choice in choices],
        cut=[index for index, choice in enumerate(choices) if choice.get("finish_reason") == "length"],
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

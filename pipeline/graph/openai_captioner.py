"""A model behind an endpoint that speaks OpenAI's protocol, as a captioner: vLLM, SGLang, Ray Serve LLM, or a service.

A request holds one clip as a WAV of 16 kHz and one instruction, or a text to rewrite. Answers are kept beside the shard
until it is committed, so that a job that dies does not pay for them twice.
"""

import base64
import hashlib
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from pipeline import audio
from pipeline.dataset.answers import Answers
from pipeline.errors import InputError
from pipeline.graph import llm, prompts
from pipeline.graph.budget import Budget
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.caption_failures import REFUSED
from pipeline.graph.captioner import CaptionedBatch, CaptionerInfo, ClipBatch
from pipeline.graph.captioner_name import CaptionerName
from pipeline.graph.endpoint import Completion, Endpoint, RefusedError
from pipeline.graph.llm import Answer
from pipeline.graph.prompts import Instruction
from pipeline.graph.tag_predictor import TagPredictor
from train.models.captioner.decoding import Decoding

RATE_HZ = 16_000  # at which audio LLMs take sound
Samples = npt.NDArray[np.int16]


class Request(NamedTuple):
    """One request: an instruction, its decoding, and the body."""

    instruction: Instruction
    decoding: Decoding
    body: dict[str, Any]
    name: str  # of its kept answer


class Outcome(NamedTuple):
    """What became of a request: an answer, or why it was refused."""

    completion: Completion | None
    refused: str


def describe(config: CaptionActorConfig) -> CaptionerInfo:
    """Check the fields that concern an endpoint; nothing is sent. Raises InputError for what cannot be."""
    if not CaptionerName.parse(config.captioner).model:
        raise InputError(
            "--captioner", config.captioner, "give the name of the model at the endpoint, as openai:<model>"
        )
    _check_url(config.captioner_url)
    for decoding in config.decodings:
        if decoding.method == "beam":
            remedy = "an endpoint has no beam search; give --decoding.method greedy or nucleus"
            raise InputError("--decoding.method", decoding.method, remedy)
    if config.actors.gpus:
        raise InputError("--actors.gpus", config.actors.gpus, "the model is at the endpoint; actors need no GPU, use 0")
    if config.concurrency < 1:
        raise InputError("--concurrency", config.concurrency, "use 1 or more")
    if config.max_requests < 0:
        raise InputError("--max-requests", config.max_requests, "use 1 or more, or 0 for no bound")
    identity = llm.check(config)
    return CaptionerInfo(
        captioner=config.captioner, revision=config.captioner, clip_s=config.clip_s, has_score=False, identity=identity
    )


def _check_url(url: str) -> None:
    if not url:
        raise InputError("--captioner-url", url, "give the endpoint, such as http://127.0.0.1:8000/v1")
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        remedy = "holds more than a place, and run.json would keep that; a key comes from --captioner-key-variable"
        raise InputError("--captioner-url", f"{parts.scheme}://{parts.hostname}", remedy)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("--captioner-url", url, "give a URL that begins with http:// or https://")


class OpenAiCaptioner:
    """A `Captioner` that asks an endpoint."""

    def __init__(self, config: CaptionActorConfig, folder: str, budget: Budget | None = None) -> None:
        """Take the config, the dataset or overlay to keep answers in ('' keeps none), and the budget of the run."""
        self.config, self.folder = config, folder
        self.model = CaptionerName.parse(config.captioner).model
        self.clip_samples = round(config.clip_s * audio.SAMPLE_RATE_HZ)
        self.endpoint = Endpoint(config, budget)
        self.pool = ThreadPoolExecutor(config.concurrency)
        self.tagger = TagPredictor(config) if config.tagger else None
        self.tagger_lock = threading.Lock()  # one batch at a time

    def reject(self, tags: Sequence[str], texts: Sequence[str]) -> tuple[str, str] | None:
        """See `Captioner.reject`."""
        return prompts.reject(self.config, tags, texts)

    def caption(self, clips: ClipBatch) -> CaptionedBatch:
        """See `Captioner.caption`."""
        started = time.monotonic()
        asked = self._requests(clips)
        answers = Answers(self.folder, clips.shard) if self.folder else None
        kept = answers.names() if answers else set()
        outcomes = self._all([self.pool.submit(self._outcome, request, answers, kept) for request in asked])
        texts = [
            Answer(request.instruction, text, None, str(request.decoding), index in outcome.completion.cut)
            for request, outcome in zip(asked, outcomes, strict=True)
            if outcome.completion
            for index, text in enumerate(outcome.completion.texts)
        ]
        found = llm.captions(texts, len(clips.keys), self.config.max_words)
        refused = {
            clips.keys[request.instruction.clip]: (REFUSED, outcome.refused)
            for request, outcome in zip(asked, outcomes, strict=True)
            if not outcome.completion
        }
        failed = llm.cut_off(found, clips.keys, self.config.max_tokens) | refused
        return CaptionedBatch(found.rows, time.monotonic() - started, failed, found.counts + _used(outcomes))

    def _requests(self, clips: ClipBatch) -> list[Request]:
        """Return the requests for a batch, of each kind of guidance and decoding in turn."""
        cut = [row[:length] for row, length in zip(clips.waveform, clips.num_samples, strict=True)]
        predicted = None
        if self.tagger:
            with self.tagger_lock:
                predicted = self.tagger.predict(cut, clips.rate_hz)
        asked = prompts.instructions(self.config, clips, predicted)
        encoded = ["" if self.config.rewrite else _wav(clip, clips.rate_hz) for clip in cut]
        return [
            self._request(one, decoding, encoded[one.clip], clips.keys[one.clip])
            for guidance in self.config.guidance
            for decoding in self.config.decodings
            for one in asked
            if one.guidance == guidance
        ]

    def _request(self, one: Instruction, decoding: Decoding, wav: str, key: str) -> Request:
        content: object = one.text
        if not self.config.rewrite:
            sound = {"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}}
            content = [sound, {"type": "text", "text": one.text}]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.config.max_tokens,
            "temperature": 0.0,
        }
        if decoding.method == "nucleus":
            seed = hashlib.sha256(f"{decoding.seed}/{key}".encode()).digest()
            body |= {
                "temperature": decoding.temperature,
                "top_p": decoding.top_p,
                "n": decoding.num_captions,
                "seed": int.from_bytes(seed[:4], "big") >> 1,
            }
        name = hashlib.sha256(f"{key}\n{json.dumps(body, sort_keys=True)}".encode()).hexdigest()[:32]
        return Request(one, decoding, body, name)

    @staticmethod
    def _all(futures: list[Future[Outcome]]) -> list[Outcome]:
        """Return all results. After an error, requests that are under way end first: their answers are kept."""
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def _outcome(self, request: Request, answers: Answers | None, kept: set[str]) -> Outcome:
        """Return the kept answer to a request, or ask for it and keep it."""
        if answers and request.name in kept:
            return Outcome(Completion(**answers.read(request.name)), "")
        try:
            completion = self.endpoint.complete(request.body)
        except RefusedError as error:
            return Outcome(None, str(error))
        if answers:
            answers.keep(request.name, completion.to_json())
        return Outcome(completion, "")


def _used(outcomes: Sequence[Outcome]) -> Counter[str]:
    """Return requests and tokens of the answers."""
    found = [outcome.completion for outcome in outcomes if outcome.completion]
    return Counter(
        {name: sum(getattr(one, name) for one in found) for name in ("requests", "prompt_tokens", "completion_tokens")}
    )


def _wav(clip: Samples, rate_hz: int) -> str:
    """Return a clip as a WAV, in base64."""
    file = io.BytesIO()
    soundfile.write(file, soxr.resample(clip, rate_hz, RATE_HZ), RATE_HZ, subtype="PCM_16", format="WAV")
    return base64.b64encode(file.getvalue()).decode()

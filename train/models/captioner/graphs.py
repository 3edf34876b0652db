"""Searches for captions: as CUDA graphs on a GPU, one for each shape that comes back, and eagerly elsewhere.

A word of a search is some 75 small kernels. Launched one by one from Python, they leave a GPU idle most of the time. So
the start of a search, one word of it and its result are captured as three graphs. A batch is copied into the inputs of
the first.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from train.models.captioner.cache import DecoderCache
from train.models.captioner.decoder import WordDecoder
from train.models.captioner.decoding import Decoding
from train.models.captioner.search import Beam, Decoded, Nucleus, Search, run

log = logging.getLogger(__name__)
MAX_GRAPHS = 8  # shapes whose graphs are kept; each holds the memory of one search
WARM_UP = 2  # eager searches before a capture


class Inputs(NamedTuple):
    """What a search starts from."""

    memory: Tensor  # (B, S, memory_dim)
    num_frames: Tensor  # (B,) valid frames of the memory
    guidance: Tensor  # (B, D) tag vectors
    draws: Tensor | None  # (B, K, M) uniform numbers, for nucleus sampling


class Searches:
    """Search for captions with one decoder; threads may share it.

    A shape is captured when it comes for the second time. After a capture that fails, all searches are eager. A copy
    starts without graphs.
    """

    def __init__(self) -> None:
        self._graphs: OrderedDict[Hashable, _Graphs | None] = OrderedDict()  # None: the shape came once
        self._weights: Hashable = None  # that the graphs read
        self._lock = threading.Lock()
        self._captures = True  # until one fails

    def __reduce__(self) -> tuple[type["Searches"], tuple[()]]:
        return Searches, ()

    @torch.no_grad()
    def __call__(self, decoder: WordDecoder, inputs: Inputs, how: Decoding, max_words: int) -> Decoded:
        """Return the captions (B, K, M) of a batch, on the CPU."""
        if not (self._captures and _can_be_captured(decoder, inputs)):
            return eager(decoder, inputs, how, max_words)
        key = _key(inputs, how, max_words)
        # The lock is held until the results are read: the next replay writes over them.
        with self._lock, torch.cuda.device(inputs.memory.device):
            if (weights := _addresses(decoder)) != self._weights:
                self._graphs.clear()
                self._weights = weights
            came_before = key in self._graphs
            graphs = self._graphs.pop(key, None)
            if came_before and graphs is None and self._captures:
                graphs = self._captured(decoder, inputs, how, max_words)
            self._graphs[key] = graphs  # as the newest
            while len(self._graphs) > MAX_GRAPHS:
                self._graphs.popitem(last=False)
            return graphs(inputs) if graphs else eager(decoder, inputs, how, max_words)

    def _captured(self, decoder: WordDecoder, inputs: Inputs, how: Decoding, max_words: int) -> "_Graphs | None":
        """Return a search as graphs, or None where it cannot be captured.

        Raises:
            RuntimeError: when the device itself has failed.
        """
        try:
            with torch.cuda.stream(torch.cuda.current_stream()):  # a failed capture does not leave its own stream
                return _Graphs(decoder, inputs, how, max_words)
        except RuntimeError as error:
            cause = str(error.__context__ or error)  # the end of a broken capture fails, too
            torch.cuda.synchronize()
            log.warning("captions are searched without CUDA graphs, which is slower; a capture failed: %s", cause)
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.graphsafe_set_state(generator.clone_state())  # it may still be in the capture, and refuse to draw
        self._captures = False
        self._graphs.clear()
        return None


class _Graphs:
    """One search as graphs; for inputs of one shape, weights at one address, and one arithmetic."""

    def __init__(self, decoder: WordDecoder, inputs: Inputs, how: Decoding, max_words: int) -> None:
        self.inputs = Inputs(*(None if each is None else each.clone() for each in inputs))  # type: ignore[arg-type]
        stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries set themselves up at their first calls, which no graph can hold
            for _ in range(WARM_UP):
                eager(decoder, self.inputs, how, max_words)
        torch.cuda.current_stream().wait_stream(stream)
        self.start, self.word, self.end = (torch.cuda.CUDAGraph() for _ in range(3))

        def capture(graph: torch.cuda.CUDAGraph) -> torch.cuda.graph:
            # Other threads may allocate meanwhile, such as those that pin the next batch.
            return torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")

        with capture(self.start):
            self.search = start(decoder, self.inputs, how, max_words)
        with capture(self.word):
            self.search.advance()
        with capture(self.end):
            self.result = self.search.result()

    def __call__(self, inputs: Inputs) -> Decoded:
        for held, given in zip(self.inputs, inputs, strict=True):
            if held is not None and given is not None:
                held.copy_(given)
        self.start.replay()
        run(self.search, self.word.replay)
        self.end.replay()
        return _on_cpu(self.result)


def _can_be_captured(decoder: WordDecoder, inputs: Inputs) -> bool:
    return not decoder.training and inputs.memory.is_cuda


def _key(inputs: Inputs, how: Decoding, max_words: int) -> Hashable:
    """Return what is fixed in a graph beside the weights."""
    shapes = tuple(None if each is None else (each.shape, each.dtype, each.device) for each in inputs)
    autocast = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda")
    arithmetic = (autocast, torch.is_inference_mode_enabled())  # tensors of that mode may not be changed outside it
    return shapes, arithmetic, how.method, how.rows, how.top_p, how.temperature, max_words


def _addresses(decoder: WordDecoder) -> Hashable:
    """Return where a graph finds the weights. It sees new values in the same place, not weights in another one."""
    return tuple((each.data_ptr(), each.dtype) for each in (*decoder.parameters(), *decoder.buffers()))


def start(decoder: WordDecoder, inputs: Inputs, how: Decoding, max_words: int) -> Search:
    """Return a search before its first word."""
    memory, num_frames, guidance, draws = inputs
    cache = DecoderCache(decoder, memory, num_frames, guidance, how.rows, max_words)
    if draws is not None:
        return Nucleus(cache.step, draws, how.top_p, how.temperature)
    return Beam(cache.step, len(memory), how.rows, max_words, memory.device)


def eager(decoder: WordDecoder, inputs: Inputs, how: Decoding, max_words: int) -> Decoded:
    """Search without a graph; see `Searches`."""
    search = start(decoder, inputs, how, max_words)
    run(search)
    return _on_cpu(search.result())


def _on_cpu(found: Decoded) -> Decoded:
    return Decoded(*(tensor.cpu() for tensor in found))

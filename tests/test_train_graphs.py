"""Searches have what a CUDA graph asks for. `make gpu-check` compares graphs with the eager search word for word."""

import copy
import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import MethodType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.simulated import FakeTensorMode, move_to_cuda
from train.models.captioner import graphs, search
from train.models.captioner.cache import DecoderCache
from train.models.captioner.decoder import WordDecoder
from train.models.captioner.decoding import Decoding
from train.models.captioner.graphs import Inputs
from train.models.captioner.vocabulary import MAX_WORDS


def word_decoder() -> WordDecoder:
    torch.manual_seed(0)
    return WordDecoder(
        num_words=50, memory_dim=6, dim=16, layers=2, heads=4, feedforward=32, dropout=0.3, bias=True
    ).eval()


class Operations(TorchDispatchMode):
    """Counts the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "how", [Decoding(), Decoding(method="greedy"), Decoding(method="nucleus", num_captions=2)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_search_can_be_captured(how: Decoding, dtype: torch.dtype) -> None:
    """It reads no value back, copies none from Python, and changes its tensors in place: what a CUDA graph asks for."""
    decoder = word_decoder()
    draws = torch.rand(3, how.rows, MAX_WORDS) if how.method == "nucleus" else None
    inputs = Inputs(torch.randn(3, 7, 6), torch.tensor([7, 1, 3]), torch.randn(3, 16), draws)
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32), Operations() as operations:
        found = graphs.start(decoder, inputs, how, MAX_WORDS)
        before = addresses(found)
        for _ in range(MAX_WORDS):
            found.advance()
        assert addresses(found) == before
        found.result()
    assert len(before) > 15
    assert not operations.count.keys() & {
        "_local_scalar_dense",
        "lift_fresh",
        "nonzero",
        "masked_select",
        "native_dropout",
    }


@pytest.mark.parametrize("how", [Decoding(), Decoding(method="nucleus", num_captions=2)], ids=str)
def test_a_search_stays_on_its_gpu(how: Decoding) -> None:
    decoder = word_decoder()
    with FakeTensorMode(), torch.no_grad():
        move_to_cuda(decoder)
        given = (torch.empty(3, 7, 6, device="cuda"), torch.full((3,), 7, device="cuda"))
        draws = torch.empty(3, how.rows, MAX_WORDS, device="cuda") if how.method == "nucleus" else None
        found = graphs.start(decoder, Inputs(*given, torch.empty(3, 16, device="cuda"), draws), how, MAX_WORDS)
        for _ in range(MAX_WORDS):
            found.advance()
        result = found.result()
    assert {tensor.device.type for tensor in result} == {"cuda"}
    assert [tuple(tensor.shape) for tensor in result] == [(3, how.rows, 20), (3, how.rows, 20), (3, how.rows)]


def addresses(held: object) -> list[int]:
    """The addresses of all tensors that a search and its decoder's cache hold."""
    if isinstance(held, torch.Tensor):
        return [held.data_ptr()]
    if isinstance(held, list | tuple):
        return [address for each in held for address in addresses(each)]
    if isinstance(held, MethodType):  # the step
        return addresses(held.__self__)
    parts = (search.Beam, search.Nucleus, DecoderCache)
    return addresses([*vars(held).values()]) if isinstance(held, parts) else []


def test_a_copied_captioner_starts_without_graphs() -> None:
    """Also through pickle, as a copy for evaluation and a model in an object store are made."""
    searches = graphs.Searches()
    for copied in (copy.deepcopy(searches), pickle.loads(pickle.dumps(searches))):
        assert copied is not searches and isinstance(copied, graphs.Searches)


class BrokenCapture:
    """A capture that breaks at its first operation; its end fails, too, and leaves its stream current."""

    def __init__(self, device: "SimulatedCuda") -> None:
        self.device = device

    def __enter__(self) -> None:
        self.device.captures += 1
        self.device.stream_now = "of the capture"

    def __exit__(self, *_: object) -> None:
        raise RuntimeError("operation failed due to a previous error during capture")


class SimulatedCuda:
    """Stands for `torch.cuda` on a machine without a GPU: streams have names, and a capture allows no search."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.captures, self.stream_now, self.waits, self.states = 0, "of the caller", 0, 0
        generator = SimpleNamespace(clone_state=lambda: None, graphsafe_set_state=self.new_state)
        parts: dict[str, Any] = {
            "device": lambda _device: nullcontext(),
            "stream": self.stream,
            "Stream": Stream,
            "current_stream": lambda: Stream(self.stream_now),
            "graph_pool_handle": lambda: None,
            "CUDAGraph": lambda: None,
            "graph": lambda *_, **__: BrokenCapture(self),
            "synchronize": self.synchronize,
            "current_device": lambda: 0,
            "default_generators": [generator],
        }
        for name, part in parts.items():
            monkeypatch.setattr(torch.cuda, name, part)
        monkeypatch.setattr(graphs, "_can_be_captured", lambda *_: True)
        real = graphs.start

        def start(*given: Any) -> search.Search:
            if self.stream_now == "of the capture":
                raise RuntimeError("operation not permitted when stream is capturing")
            return real(*given)

        monkeypatch.setattr(graphs, "start", start)

    @contextmanager
    def stream(self, stream: "Stream") -> Iterator[None]:
        before, self.stream_now = self.stream_now, stream.name
        try:
            yield
        finally:
            self.stream_now = before

    def synchronize(self) -> None:
        self.waits += 1

    def new_state(self, _state: object) -> None:
        self.states += 1


class Stream:
    """A stream by its name."""

    def __init__(self, name: str = "of the warm-up") -> None:
        self.name = name

    def wait_stream(self, _other: object) -> None: ...


def test_after_a_capture_that_fails_searches_stay_eager(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One attempt and one warning for all calls and shapes, with what broke it; captions are those of the eager search."""
    decoder, searches = word_decoder(), graphs.Searches()
    shapes = [Inputs(torch.randn(b, 7, 6), torch.full((b,), 7), torch.randn(b, 16), None) for b in (3, 2)]
    with torch.no_grad():
        expected = [graphs.eager(decoder, inputs, Decoding(), MAX_WORDS) for inputs in shapes]
        cuda = SimulatedCuda(monkeypatch)
        found = [searches(decoder, inputs, Decoding(), MAX_WORDS) for inputs in shapes * 3]
    assert (cuda.captures, cuda.waits, cuda.states, cuda.stream_now) == (1, 1, 1, "of the caller")
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "operation not permitted when stream is capturing" in record.getMessage()
    for result, wanted in zip(found, expected * 3, strict=True):
        assert all(torch.equal(got, want) for got, want in zip(result, wanted, strict=True))

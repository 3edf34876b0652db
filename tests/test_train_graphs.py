"""Searches have what a CUDA graph asks for. `make gpu-check` compares graphs with the eager search word for word."""

import copy
import pickle
from collections import Counter
from types import MethodType
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

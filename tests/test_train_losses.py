"""Losses: hand-made values, and gradients over two real processes equal to one process with the whole batch."""

import math
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from train import losses, parallel

PAIRS, DIM = 6, 4


def model_and_batch() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"audio": torch.nn.Linear(3, DIM), "text": torch.nn.Linear(5, DIM)})
    model.register_parameter("scale", torch.nn.Parameter(torch.tensor(2.0)))
    return model, torch.randn(PAIRS, 3), torch.randn(PAIRS, 5)


class Towers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, _, _ = model_and_batch()

    def forward(self, audio: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, ...]:
        unit = torch.nn.functional.normalize
        return unit(self.inner["audio"](audio)), unit(self.inner["text"](text)), self.inner.scale.exp()


def gradients(model: torch.nn.Module, audio: torch.Tensor, text: torch.Tensor) -> list[torch.Tensor]:
    losses.contrastive(*model(audio, text), parallel.gather).backward()
    return [parameter.grad for parameter in parallel.unwrap(model).parameters()]


def one_rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    _, audio, text = model_and_batch()
    model = parallel.wrap(Towers(), torch.device("cpu"), 2)
    mine = slice(rank * PAIRS // 2, (rank + 1) * PAIRS // 2)
    torch.save(gradients(model, audio[mine], text[mine]), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_give_the_gradients_of_the_global_batch(tmp_path: Path) -> None:
    mp.spawn(one_rank, args=(str(tmp_path),), nprocs=2)
    _, audio, text = model_and_batch()
    expected = gradients(Towers(), audio, text)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for a, b in zip(expected, found, strict=True):
            assert torch.allclose(a, b, atol=1e-6)
    assert max(float(grad.abs().max()) for grad in expected) > 1e-3


def test_contrastive_is_zero_for_perfect_pairs_and_log_n_for_equal_ones() -> None:
    eye, same = torch.eye(4), torch.ones(4, 4) / 2
    assert losses.contrastive(eye, eye, torch.tensor(100.0), parallel.gather).item() == pytest.approx(0, abs=1e-6)
    assert losses.contrastive(same, same, torch.tensor(14.0), parallel.gather).item() == pytest.approx(
        math.log(4), abs=1e-5
    )


def test_caption_loss_ignores_padding() -> None:
    logits = torch.randn(1, 3, 7)
    words = torch.tensor([[4, 2, 0]])
    assert torch.allclose(losses.caption(logits, words, 0, 0.1), losses.caption(logits[:, :2], words[:, :2], 0, 0.1))


def test_tagging_loss_leaves_untagged_clips_out() -> None:
    logits, tags = torch.randn(2, 3), torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    assert torch.allclose(losses.tagging(logits, tags), losses.tagging(logits[:1], tags[:1]))
    assert losses.tagging(logits[1:], tags[1:]).item() == 0


def test_label_smoothing_spreads_over_the_other_words_and_leaves_out_padding() -> None:
    logits = torch.randn(2, 3, 5)
    words = torch.tensor([[4, 2, 0], [3, 4, 2]])
    log_probs = logits.log_softmax(dim=-1)
    terms = []
    for row in range(2):
        for place in range(3):
            if (word := int(words[row, place])) != 0:
                share = torch.full((5,), 0.1 / 4)
                share[word] = 0.9
                terms.append(-(share * log_probs[row, place]).sum())
    assert torch.allclose(losses.caption(logits, words, 0, 0.1), torch.stack(terms).mean())

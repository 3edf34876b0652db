"""Contrastive losses: hand-made values, and over real processes the gradients of one process with the whole batch."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, distributed, nn
from torch.nn import functional as nnf

from train import parallel
from train.losses import contrastive
from train.losses.contrastive import HardNegatives, Pairs
from train.losses.grad_cache import backward
from train.models.clap import Towers

TOTAL, DIM = 11, 4
KINDS: tuple[contrastive.Kind, ...] = ("global", "local", "sigmoid")
CASES = list(product(KINDS, (False, True), (1, 2), (False, True)))  # kind, mask, chunks, hard negatives


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.audio = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, DIM))
        self.text = nn.Linear(5, DIM)
        self.scale, self.bias = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(-1.0))

    def forward(self, audio: Tensor, text: Tensor) -> Towers:
        unit = nnf.normalize
        return Towers(unit(self.audio(audio)), unit(self.text(text), dim=-1), self.scale.exp(), self.bias * 1.0)


def inputs() -> dict[str, Tensor]:
    """A batch with a clip that comes twice, a caption that comes three times and a row that does not count."""
    random = torch.Generator().manual_seed(1)
    clip, caption = torch.arange(TOTAL), torch.arange(TOTAL)
    clip[7], caption[3], caption[9] = clip[0], caption[8], caption[8]
    return {
        "audio": torch.randn(TOTAL, 3, generator=random).double(),
        "text": torch.randn(TOTAL, 5, generator=random).double(),
        "negative": torch.randn(TOTAL, 5, generator=random).double(),
        "made": torch.arange(TOTAL) % 3 != 1,
        "clip": clip,
        "caption": caption,
        "valid": torch.arange(TOTAL) != 5,
    }


def gradients(
    model: nn.Module, rows: Any, kind: contrastive.Kind, mask: bool, chunks: int, hard: bool
) -> dict[str, Tensor]:
    batch = {name: value[rows] for name, value in inputs().items()}
    model.zero_grad()
    texts = torch.stack([batch["text"], batch["negative"]], dim=1) if hard else batch["text"]
    split = [each.tensor_split(chunks) for each in (batch["audio"], texts)]

    def loss(towers: Towers) -> Tensor:
        text, negatives = towers.text, None
        if hard:
            text, negatives = text[:, 0], HardNegatives(text[:, 1], batch["made"])
        pairs = Pairs(towers.audio, text, batch["clip"], batch["caption"], batch["valid"])
        return contrastive.loss(kind, pairs, towers.scale, towers.bias, parallel.Ranks(TOTAL), mask, negatives)

    value = backward(model, list(zip(*split, strict=True)), loss, seed=0)
    found = {name: p.grad.clone() for name, p in parallel.unwrap(model).named_parameters() if p.grad is not None}
    return {**found, "loss": parallel.mean(value)}


def one_rank(rank: int, size: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    model = nn.parallel.DistributedDataParallel(
        Model().double(), find_unused_parameters=True
    )  # bias has no part in InfoNCE
    mine = torch.arange(rank, TOTAL, size)
    torch.save({str(case): gradients(model, mine, *case) for case in CASES}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("size", [2, 3])
def test_processes_give_the_gradients_of_the_global_batch(tmp_path: Path, size: int) -> None:
    """Every kind, with and without masks and hard negatives, whole and in chunks; eleven rows are unequal shares."""
    mp.spawn(one_rank, args=(size, str(tmp_path)), nprocs=size)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(size)]
    for kind, mask, chunks, hard in CASES:
        expected = gradients(Model().double(), slice(None), kind, mask, 1, hard)
        assert max(float(g.abs().max()) for g in expected.values()) > 1e-2
        for rank, (name, value) in product(range(size), expected.items()):
            difference = (found[rank][str((kind, mask, chunks, hard))][name] - value).abs().max()
            assert difference < 1e-9, (kind, mask, chunks, hard, rank, name, difference)


def pairs(audio: Tensor, text: Tensor, **changes: Tensor) -> Pairs:
    count = len(audio)
    ids = torch.arange(count)
    return Pairs(audio, text, ids, ids, torch.ones(count, dtype=torch.bool))._replace(**changes)


def value(
    kind: contrastive.Kind,
    given: Pairs,
    scale: float = 1.0,
    bias: float = 0.0,
    mask: bool = False,
    negatives: HardNegatives | None = None,
) -> float:
    ranks = parallel.Ranks(len(given.audio))
    return contrastive.loss(kind, given, torch.tensor(scale), torch.tensor(bias), ranks, mask, negatives).item()


@pytest.mark.parametrize("kind", ["global", "local"])
def test_infonce_is_zero_for_perfect_pairs_and_log_n_for_equal_ones(kind: contrastive.Kind) -> None:
    eye, same = torch.eye(4), torch.ones(4, 4) / 2
    assert value(kind, pairs(eye, eye), 100.0) == pytest.approx(0, abs=1e-6)
    assert value(kind, pairs(same, same), 14.0) == pytest.approx(math.log(4), abs=1e-5)


def test_sigmoid_of_one_orthogonal_pair_by_hand() -> None:
    """Two pairs, scale 2, bias -1: matches have logit 1, others -1; four terms of log(1 + e^-1), over two pairs."""
    assert value("sigmoid", pairs(torch.eye(2), torch.eye(2)), 2.0, -1.0) == pytest.approx(
        2 * math.log(1 + math.exp(-1))
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", ["clip", "caption"])
def test_pairs_that_share_a_clip_or_caption_are_no_negatives(kind: contrastive.Kind, shared: str) -> None:
    """Rows 0 and 1 are the same: unmasked they push each other away, masked they are as good as apart."""
    audio = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    given = pairs(audio, audio, **{shared: torch.tensor([0, 0, 1])})
    assert value(kind, given, 20.0, -10.0) > 0.4
    assert value(kind, given, 20.0, -10.0, mask=True) < 1e-3


@pytest.mark.parametrize("kind", ["global", "local"])
def test_a_hard_negative_is_one_column_more_for_its_own_clip(kind: contrastive.Kind) -> None:
    """All vectors equal, four pairs, two hard negatives: two rows choose among five texts, two among four."""
    same, made = torch.ones(4, 4) / 2, torch.tensor([True, False, True, False])
    by_hand = ((math.log(5) + math.log(4)) / 2 + math.log(4)) / 2
    assert value(kind, pairs(same, same), negatives=HardNegatives(same, made)) == pytest.approx(by_hand)


def test_a_hard_negative_is_one_term_more_of_the_sigmoid_loss() -> None:
    """Two orthogonal pairs, scale 2, bias -1; the first clip has a hard negative that equals its caption: logit 1."""
    negatives = HardNegatives(torch.eye(2), torch.tensor([True, False]))
    plain, one = 2 * math.log(1 + math.exp(-1)), math.log(1 + math.exp(1)) / 2
    found = value("sigmoid", pairs(torch.eye(2), torch.eye(2)), 2.0, -1.0, negatives=negatives)
    assert found == pytest.approx(plain + one)


@pytest.mark.parametrize("kind", KINDS)
def test_hard_negatives_that_were_not_made_change_nothing(kind: contrastive.Kind) -> None:
    random = torch.Generator().manual_seed(0)
    audio, text, wrong = (nnf.normalize(torch.randn(5, 4, generator=random)) for _ in range(3))
    valid = torch.tensor([True, True, True, False, True])
    given, made = pairs(audio, text, valid=valid), ~valid  # made for a clip that does not count
    assert value(kind, given, 5.0, negatives=HardNegatives(wrong, made)) == value(kind, given, 5.0)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_do_not_count_change_nothing(kind: contrastive.Kind) -> None:
    random = torch.Generator().manual_seed(0)
    audio, text = (nnf.normalize(torch.randn(5, 4, generator=random)) for _ in range(2))
    some = torch.tensor([True, False, True, True, False])
    assert value(kind, pairs(audio, text, valid=some), 5.0) == pytest.approx(
        value(kind, pairs(audio[some], text[some]), 5.0), rel=1e-6
    )


def test_chunks_draw_the_same_dropout_twice_and_move_batchnorm_once() -> None:
    """The gradient of chunks is that of the embeddings that the loss saw; statistics move as in a single pass."""

    class Noisy(Model):
        def __init__(self) -> None:
            super().__init__()
            self.audio = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, DIM))

    batch, seen = inputs(), []
    chunks = list(zip(batch["audio"].tensor_split(2), batch["text"].tensor_split(2), strict=True))

    def loss(towers: Towers) -> Tensor:
        seen.append(towers)
        given = pairs(towers.audio, towers.text)
        return contrastive.loss("global", given, towers.scale, towers.bias, parallel.Ranks(TOTAL), False)

    cached, plain = Noisy().double(), Noisy().double()
    backward(cached, chunks, loss, seed=3)
    made = []
    for i, chunk in enumerate(chunks):
        torch.manual_seed(3 + i)
        made.append(plain(*chunk))
    whole = Towers(torch.cat([m.audio for m in made]), torch.cat([m.text for m in made]), made[0].scale, made[0].bias)
    loss(whole).backward()
    assert torch.equal(seen[0].audio, whole.audio)
    for (name, a), b in zip(cached.named_parameters(), plain.parameters(), strict=True):
        assert a.grad is not None or name == "bias"
        if b.grad is not None:
            assert torch.allclose(a.grad, b.grad, atol=1e-6), name
    for (name, a), b in zip(cached.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b), name

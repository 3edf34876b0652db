"""Order: one global sequence for any number of ranks; every clip once a pass; blocks read by one slot; mixed datasets."""

from collections import Counter

import numpy as np
import pytest

from train.data.order import BLOCK, Order


def epoch(order: Order, number: int) -> np.ndarray:
    """Return the clips of an epoch, (steps, batch)."""
    first = number * order.steps_per_epoch
    return np.stack([order.step(step).clips for step in range(first, first + order.steps_per_epoch)])


@pytest.mark.parametrize(("size", "batch"), [(1, 1), (7, 3), (64, 64), (1000, 8), (4096, 256)])
def test_an_epoch_repeats_no_clip_and_leaves_less_than_a_batch(size: int, batch: int) -> None:
    clips = epoch(Order(sizes=(size,), batch_size=batch, seed=1), 3).ravel()
    assert len(set(clips)) == len(clips) > size - batch
    assert set(clips) <= set(range(size))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    order = Order(sizes=(500,), batch_size=10, seed=1)
    assert np.array_equal(epoch(order, 0), epoch(Order(sizes=(500,), batch_size=10, seed=1), 0))
    assert not np.array_equal(epoch(order, 0), epoch(order, 1))
    assert not np.array_equal(epoch(order, 0), epoch(Order(sizes=(500,), batch_size=10, seed=2), 0))
    assert np.array_equal(order.step(51).clips, epoch(order, 1)[1])
    assert set(order.step(51).passes) == {1}


def test_a_slot_reads_a_block_to_its_end_and_a_batch_holds_many_blocks() -> None:
    blocks = epoch(Order(sizes=(BLOCK * 640,), batch_size=64, seed=0), 0) // BLOCK  # (160, 64): ten blocks a slot
    for slot in blocks.T:
        assert (np.diff(slot) != 0).sum() == 9  # changes block nine times: each is read once, whole
    assert all(len(set(step)) == 64 for step in blocks)


def test_neighbours_are_spread_over_the_epoch() -> None:
    """Blocks that follow one another in a shard come at unrelated times."""
    order = Order(sizes=(BLOCK * 1000,), batch_size=10, seed=0)
    clips = epoch(order, 0)
    position = {block: row for row, step in enumerate(clips) for block in step // BLOCK}
    gaps = np.diff([position[block] for block in range(1000)])
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1] + 0.5) < 0.1  # what independent places give


def test_datasets_mix_in_every_batch_by_their_weights() -> None:
    order = Order(sizes=(100, 40, 300), batch_size=50, seed=0, weights=(1.0, 2.5, 0.5))
    assert order.draws == (100, 100, 150)
    counts = [Counter(np.searchsorted([100, 140], step, side="right")) for step in epoch(order, 0)]
    assert all(abs(c[0] - 100 / 7) <= 2 and abs(c[1] - 100 / 7) <= 2 for c in counts), counts


def test_weights_lose_no_clip_over_epochs() -> None:
    """Half of a dataset an epoch is all of it in two; two and a half passes are five in two."""
    order = Order(sizes=(64, 64), batch_size=8, seed=0, weights=(0.5, 2.5))
    seen = Counter(clip for number in (0, 1) for clip in epoch(order, number).ravel())
    assert {seen[clip] for clip in range(64)} == {1}
    assert {seen[clip] for clip in range(64, 128)} == {5}

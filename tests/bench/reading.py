"""Reading shards for training: our loader at three resume points, beside raw decoding and plain webdataset."""

import io
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import webdataset
from torch.utils.data import DataLoader

from pipeline import audio
from pipeline.dataset.selection import SelectionConfig
from tests.bench import caption_job, inputs
from tests.bench.inputs import Range
from tests.bench.ratio import CORES, Comparison, Row, compare, measure_in_turn
from tests.bench.sizes import Sizes
from train.data import clip_sets, datasets
from train.data.loader import Loader, LoaderConfig
from train.data.order import Order

WARM_UP = 6  # batches; until then the processes start, and what was read ahead comes at once
EPOCHS = 3
SHUFFLED = 64  # samples that webdataset shuffles among


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield our clips a second at the start, in the middle and at the end, beside both peers."""
    out = folder / "dataset"
    source = inputs.write_clips(folder, "flac", sizes.clips, sizes)
    if not out.exists():
        caption_job.run(caption_job.configure(str(source), str(out), sizes.clips_per_shard, 0))
    parts = datasets.open_data([str(out)], SelectionConfig())
    clips, samples = clip_sets.Mixture(parts), round(sizes.clip_s * audio.SAMPLE_RATE_HZ)
    order = Order(sizes=clips.sizes, batch_size=sizes.loader_batch, seed=0)
    loader = Loader(clips, order, samples, config=LoaderConfig(processes=sizes.processes))
    window = WARM_UP + sizes.loader_steps
    last = max(window, EPOCHS * order.steps_per_epoch)
    points = {"the start": 0, "the middle": (last - window) // 2, "the end": last - window}
    ranges = [Range(place.uri, place.offset, place.size) for place in map(clips.location, range(len(clips.keys)))]
    peer = partial(_webdataset_rate, [str(path) for path in sorted(out.glob("*.tar"))], samples, sizes)
    with inputs.raw_decoder(ranges[: sizes.limit_clips]) as raw:
        for name, first in points.items():
            ours = partial(_rate, partial(loader.batches, first, first + window), sizes)
            peers = {f"soundfile on {CORES} cores": raw} | ({"webdataset": peer} if first == 0 else {})
            figures, *limits = measure_in_turn((ours, *peers.values()), sizes.repeats)
            for beside, limit in zip(peers, limits, strict=True):
                yield _row(f"loader from {name}, beside {beside}", compare(figures, limit))


def _row(what: str, found: Comparison) -> Row:
    return Row(
        what=what,
        ours=f"{found.ours.median:.0f} clips/s",
        peer=f"{found.peer.median:.0f} clips/s",
        found=found.ratio,
    )


def _rate(batches: Callable[[], Iterable[Any]], sizes: Sizes) -> float:
    """Return the clips a second of the batches after the first ones."""
    times: list[float] = []
    for _ in batches():
        times.append(time.perf_counter())
        if len(times) == WARM_UP + sizes.loader_steps:
            break  # processes end here, which is not measured
    return sizes.loader_steps * sizes.loader_batch / (times[WARM_UP + sizes.loader_steps - 1] - times[WARM_UP - 1])


def _webdataset_rate(tars: list[str], samples: int, sizes: Sizes) -> float:
    """Measure what a user of webdataset writes: shards to workers, a shuffle, soundfile, a batch; tars come again."""
    data = webdataset.WebDataset(tars, shardshuffle=False, repeat=True)
    decoded = data.shuffle(SHUFFLED).to_tuple("flac", "json").map(partial(_decode, samples=samples))
    loader: DataLoader[Any] = DataLoader(
        decoded.batched(sizes.loader_batch, collation_fn=_collate),
        batch_size=None,
        num_workers=sizes.processes,
        multiprocessing_context=get_context("spawn") if sizes.processes else None,
    )
    return _rate(lambda: loader, sizes)


def _decode(sample: tuple[bytes, bytes], samples: int) -> tuple[np.ndarray, bytes]:
    waveform, _ = soundfile.read(io.BytesIO(sample[0]), dtype="int16")
    padded = np.zeros(samples, np.int16)
    padded[: len(waveform)] = waveform[:samples]
    return padded, sample[1]


def _collate(samples: list[tuple[np.ndarray, bytes]]) -> tuple[torch.Tensor, list[bytes]]:
    return torch.from_numpy(np.stack([waveform for waveform, _ in samples])), [meta for _, meta in samples]

"""What a user writes without this repository: processes that decode, caption and write clip by clip.

`python -m tests.bench.user_loop SOURCE CAPTIONER OUT CLIPS_PER_TAR PROCESSES`. It keeps no plan, no ledger and no marks,
checks nothing, and cannot go on where it stopped.
"""

import csv
import io
import json
import multiprocessing
import sys
import tarfile
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import cast

import soundfile
import torch

from pipeline.configs import CAPTION
from train import checkpoint
from train.models.captioner.model import TagGuidedCaptioner

RATE_HZ = 32_000
DECODING = CAPTION["tiny"][1].decoding


@torch.no_grad()
def write_tar(task: tuple[int, list[dict[str, str]]], source: Path, captioner: str, out: Path) -> None:
    """Caption the clips of one tar, and write them with their FLAC as it is."""
    torch.set_num_threads(1)
    number, rows = task
    model = _model(captioner)
    with tarfile.open(out / f"{number:05d}.tar", "w") as tar:
        for row in rows:
            flac = (source / "audio" / row["file"]).read_bytes()
            samples, _ = soundfile.read(io.BytesIO(flac), dtype="int16")
            waveform = torch.from_numpy(samples[: round(model.config.clip_s * RATE_HZ)])[None]
            encoded = model.encode_audio(waveform, torch.tensor([waveform.shape[1]]), RATE_HZ)
            tags = row["labels"].split("|")
            captions = model.generate(encoded, model.multi_hot([tags]), DECODING, [row["file"]])[0]
            meta = {"text": [caption.text for caption in captions], "tag": tags}
            name = row["file"].partition(".")[0]
            for suffix, data in (("flac", flac), ("json", json.dumps(meta).encode())):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def main(words: Sequence[str]) -> None:
    """Caption all clips of an audio folder."""
    source, captioner, out, clips_per_tar, processes = words
    Path(out).mkdir()
    with open(Path(source) / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    size = int(clips_per_tar)
    tasks = [(first // size, rows[first : first + size]) for first in range(0, len(rows), size)]
    work = partial(write_tar, source=Path(source), captioner=captioner, out=Path(out))
    with multiprocessing.get_context("spawn").Pool(int(processes)) as pool:
        pool.map(work, tasks, chunksize=1)


@lru_cache(maxsize=1)
def _model(captioner: str) -> TagGuidedCaptioner:
    return cast("TagGuidedCaptioner", checkpoint.load(captioner).model)


if __name__ == "__main__":
    main(sys.argv[1:])

"""How much `make bench` measures."""

from dataclasses import dataclass
from pathlib import Path

from tests.bench.ratio import CORES

PICTURE = Path(__file__).with_name("growth.svg")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of all measurements. The defaults keep the whole below 20 minutes on two cores."""

    repeats: int = 5
    """Repetitions of each of the two that are compared."""
    clip_s: float = 10.0
    """Length of the procedural clips, seconds."""
    sounds: int = 192
    """Different clips; larger numbers of clips are hard links to them."""
    clips: int = 1280
    """Clips of a caption job in this process, and of the dataset that the loader reads."""
    long_job_clips: int = 2560
    """Clips of a caption job on Ray, more than 16 shards, and of canonical input in one process."""
    limit_clips: int = 640
    """Clips that are decoded to know the limit of a caption job."""
    clips_per_shard: int = 64
    loader_batch: int = 32
    loader_steps: int = 20
    """Batches that are timed after each resume point."""
    processes: int = CORES
    """Processes that read for training, ours and webdataset's."""
    user_clips: int = 384
    """Clips of the job beside a user's own loop."""
    ray: bool = True
    """Measure through Ray, too."""
    train_batch: int = 16
    train_steps: int = 3
    """Training steps in one repetition."""
    loop_steps: int = 12
    """Batches of the trainer with a model of one number."""
    rows: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Clips of plan, resume and index."""
    gallery: tuple[int, ...] = (1_000, 3_000, 10_000)
    """Clips of the retrieval metric, which compares each with each."""
    indexed: int = 100_000
    """Clips of the search index."""
    scored: tuple[int, int, int] = (800, 100, 32)
    """Clips, classes and frames of the sound detection score."""
    embedding: int = 512
    picture: Path | None = PICTURE
    """Where growth is drawn; None draws in the folder of the run, which is removed."""


TINY = Sizes(
    repeats=1, clip_s=2.0, sounds=8, clips=16, long_job_clips=72, limit_clips=16, clips_per_shard=4, loader_batch=2,
    loader_steps=2, processes=0, user_clips=8, ray=False, train_batch=2, train_steps=1, loop_steps=5, rows=(64, 256),
    gallery=(64, 256), indexed=512, scored=(32, 10, 16), embedding=16,
    picture=None,
)  # fmt: skip

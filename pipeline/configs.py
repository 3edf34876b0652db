"""Named pipeline configs. Each is the same code path; small ones differ only in numbers."""

from pipeline.caption import CaptionConfig
from pipeline.engine import ActorConfig
from pipeline.plan import PlanConfig
from pipeline.score import ScoreConfig
from pipeline.synth import SynthConfig
from train.models.decoding import Decoding

SYNTH: dict[str, tuple[str, SynthConfig]] = {
    "demo": ("1,360 clips of 5 s with 20 sound classes, in about 20 seconds", SynthConfig()),
    "tiny": (
        "a handful of clips for tests",
        SynthConfig(num_captioned=24, num_tagged=24, num_evaluation=24, clip_s=2.0),
    ),
}
PLAN: dict[str, tuple[str, PlanConfig]] = {
    "demo": ("64 clips to a shard", PlanConfig(clips_per_shard=64)),
    "tiny": ("8 clips to a shard, for tests", PlanConfig(clips_per_shard=8)),
    "audioset": ("512 clips of 10 s to a shard, about 250 MB", PlanConfig()),
}
CAPTION: dict[str, tuple[str, CaptionConfig]] = {
    "demo": (
        "one CPU actor, 64 clips to a shard, three captions a clip",
        CaptionConfig(clips_per_shard=64, decoding=Decoding(num_captions=3)),
    ),
    "esc50": (
        "one CPU actor, 100 clips to a shard, ESC-50 folds 1 to 3",
        CaptionConfig(folds=("1", "2", "3"), clips_per_shard=100, decoding=Decoding(num_captions=3)),
    ),
    "tiny": (
        "8 clips to a shard, for tests",
        CaptionConfig(clips_per_shard=8, batch_size=4, decoding=Decoding(num_captions=2)),
    ),
    "audioset": (
        "GPU actors that scale from 1 to 64, 512 clips to a shard",
        CaptionConfig(actors=ActorConfig(max=64, gpus=1.0), batch_size=128),
    ),
}
SCORE: dict[str, tuple[str, ScoreConfig]] = {
    "demo": ("one CPU actor", ScoreConfig()),
    "tiny": ("batches of four, for tests", ScoreConfig(batch_size=4)),
    "audioset": (
        "GPU actors that scale from 1 to 64",
        ScoreConfig(actors=ActorConfig(max=64, gpus=1.0), batch_size=128),
    ),
}

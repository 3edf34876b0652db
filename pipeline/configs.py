"""Named pipeline configs. Each is the same code path; small ones differ only in numbers."""

from pipeline.cli import ONLY
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.engine import ActorConfig
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.quality.audio_filter import AudioFilterConfig
from pipeline.stages.assign import AssignConfig
from pipeline.stages.audit import AuditConfig
from pipeline.stages.choose import ChooseConfig
from pipeline.stages.doctor import DoctorConfig
from pipeline.stages.export import ExportConfig
from pipeline.stages.fingerprint import FingerprintConfig
from pipeline.stages.import_captions import ImportCaptionsConfig
from pipeline.stages.index import IndexConfig
from pipeline.stages.inspect import InspectConfig
from pipeline.stages.listen import ListenConfig
from pipeline.stages.plan import PlanConfig
from pipeline.stages.recaption import RecaptionConfig
from pipeline.stages.retry import RetryConfig
from pipeline.stages.score import ScoreConfig
from pipeline.stages.synth import SynthConfig
from pipeline.stages.verify import VerifyConfig
from train.models.captioner.decoding import Decoding

SYNTH: dict[str, tuple[str, SynthConfig]] = {
    "demo": ("1,360 clips of 5 s with 20 sound classes, in some 20 seconds", SynthConfig()),
    "tiny": (
        "a handful of clips for tests",
        SynthConfig(num_captioned=24, num_tagged=24, num_evaluation=24, clip_s=2.0),
    ),
}
AUDIOSET_FIREWALL = DecontaminationConfig(
    required=("audioset-eval", "audiocaps", "vggsound")
)  # the sets that share its recordings
PLAN: dict[str, tuple[str, PlanConfig]] = {
    "demo": ("64 clips to a shard", PlanConfig(clips_per_shard=64)),
    "tiny": ("8 clips to a shard, for tests", PlanConfig(clips_per_shard=8)),
    "audioset": ("512 clips of 10 s to a shard, some 250 MB", PlanConfig(firewall=AUDIOSET_FIREWALL)),
}
AUDIBLE = AudioFilterConfig()
IN_PROCESS = ActorConfig(max=0)
CAPTION: dict[str, tuple[str, CaptionConfig]] = {
    "demo": (
        "in this process, 64 clips to a shard, three captions a clip",
        CaptionConfig(clips_per_shard=64, decoding=Decoding(num_captions=3), audio_filter=AUDIBLE, actors=IN_PROCESS),
    ),
    "esc50": (
        "one CPU actor, 100 clips to a shard, ESC-50 folds 1 to 3",
        CaptionConfig(
            folds=("1", "2", "3"), clips_per_shard=100, decoding=Decoding(num_captions=3), audio_filter=AUDIBLE
        ),
    ),
    "tiny": (
        "8 clips to a shard, for tests",
        CaptionConfig(clips_per_shard=8, batch_size=4, decoding=Decoding(num_captions=2), audio_filter=AUDIBLE),
    ),
    "audioset": (
        "GPU actors that scale from 1 to 64, 512 clips to a shard",
        CaptionConfig(
            actors=ActorConfig(max=64, gpus=1.0), batch_size=128, firewall=AUDIOSET_FIREWALL, audio_filter=AUDIBLE
        ),
    ),
}
DOCTOR: dict[str, tuple[str, DoctorConfig]] = {
    name: (f"as `caption {name}`: {summary}", DoctorConfig(**vars(config)))
    for name, (summary, config) in CAPTION.items()
}
SCORE: dict[str, tuple[str, ScoreConfig]] = {
    "demo": ("in this process", ScoreConfig(actors=IN_PROCESS)),
    "tiny": ("batches of four, for tests", ScoreConfig(batch_size=4)),
    "audioset": (
        "GPU actors that scale from 1 to 64",
        ScoreConfig(actors=ActorConfig(max=64, gpus=1.0), batch_size=128),
    ),
}
RECAPTION: dict[str, tuple[str, RecaptionConfig]] = {
    "demo": (
        "in this process, three captions a clip",
        RecaptionConfig(decoding=Decoding(num_captions=3), actors=IN_PROCESS),
    ),
    "tiny": ("batches of four, for tests", RecaptionConfig(batch_size=4, decoding=Decoding(num_captions=2))),
    "audioset": (
        "GPU actors that scale from 1 to 64",
        RecaptionConfig(actors=ActorConfig(max=64, gpus=1.0), batch_size=128),
    ),
}
INSPECT = {ONLY: ("", InspectConfig())}
FINGERPRINT = {ONLY: ("", FingerprintConfig())}
RETRY = {ONLY: ("", RetryConfig())}
VERIFY = {ONLY: ("", VerifyConfig())}
ASSIGN = {ONLY: ("", AssignConfig())}
AUDIT = {ONLY: ("", AuditConfig())}
CHOOSE = {ONLY: ("", ChooseConfig())}
IMPORT_CAPTIONS = {ONLY: ("", ImportCaptionsConfig())}
INDEX: dict[str, tuple[str, IndexConfig]] = {ONLY: ("any tars", IndexConfig())}
EXPORT = {ONLY: ("", ExportConfig())}
LISTEN = {ONLY: ("", ListenConfig())}

"""Named evaluation configs."""

from eval.captioning import CaptioningConfig, Guidance
from eval.report import ReportConfig
from eval.retrieval import RetrievalConfig
from eval.zero_shot import ZeroShotConfig

ZERO_SHOT: dict[str, tuple[str, ZeroShotConfig]] = {
    "demo": (
        "the procedural corpus, on CPU, with prompts in words that its captions use",
        ZeroShotConfig(task="synth", prompts=("{}", "{} nearby", "{} in the background")),
    ),
    "esc50": ("ESC-50 fold 4, on CPU", ZeroShotConfig(task="esc50", folds=("4",))),
}
RETRIEVAL: dict[str, tuple[str, RetrievalConfig]] = {
    "demo": ("the procedural corpus, on CPU", RetrievalConfig(task="synth")),
    "audiocaps": ("AudioCaps, on CPU", RetrievalConfig(task="audiocaps")),
}
ABLATION: tuple[Guidance, ...] = ("tags", "none", "predicted", "shuffled")
CAPTIONING: dict[str, tuple[str, CaptioningConfig]] = {
    "demo": ("the procedural corpus, on CPU: the ablation of tags", CaptioningConfig(task="synth", guidance=ABLATION)),
    "audiocaps": ("AudioCaps, on CPU, with the clips' own tags", CaptioningConfig(task="audiocaps")),
    "clotho": ("Clotho, on CPU, without tags", CaptioningConfig(task="clotho", guidance=("none",))),
    "ablation": ("any --task: own tags, none, predicted, other clips'", CaptioningConfig(guidance=ABLATION)),
}
REPORT: dict[str, tuple[str, ReportConfig]] = {"demo": ("all runs given, with ten captions", ReportConfig())}

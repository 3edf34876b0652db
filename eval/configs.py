"""Named evaluation configs."""

from eval.stages.captioning import CaptioningConfig, Guidance
from eval.stages.compositional import CompositionalConfig
from eval.stages.finetune import FinetuneTaskConfig
from eval.stages.grounding import GroundingConfig
from eval.stages.index_search import IndexSearchConfig
from eval.stages.linear_probe import LinearProbeConfig
from eval.stages.passport import PassportConfig
from eval.stages.report import ReportConfig
from eval.stages.retrieval import RetrievalConfig
from eval.stages.search import SearchConfig
from eval.stages.search_precision import SearchPrecisionConfig
from eval.stages.serve import ServeConfig
from eval.stages.suite import SuiteConfig
from eval.stages.zero_shot import ZeroShotConfig
from pipeline.cli import ONLY
from train.configs import FINETUNE as RECIPES

ZERO_SHOT: dict[str, tuple[str, ZeroShotConfig]] = {
    "demo": (
        "the procedural corpus, on CPU; --class-texts names the corpus's own",
        ZeroShotConfig(task="synth", prompts=("{}",)),
    ),
    "esc50": ("ESC-50 fold 4, on CPU", ZeroShotConfig(task="esc50", folds=("4",))),
    "any": ("any --task, on CPU: all folds, or the test split", ZeroShotConfig()),
}
PASSPORT: dict[str, tuple[str, PassportConfig]] = {
    "esc50": ("ESC-50, all folds, on CPU", PassportConfig(task="esc50")),
    "any": ("any --task, on CPU: all folds, or the test split", PassportConfig()),
}
RETRIEVAL: dict[str, tuple[str, RetrievalConfig]] = {
    "demo": ("the procedural corpus, on CPU", RetrievalConfig(task="synth")),
    "audiocaps": ("AudioCaps, on CPU", RetrievalConfig(task="audiocaps")),
    "any": ("any --task, on CPU: all clips, or the test split", RetrievalConfig()),
}
COMPOSITIONAL: dict[str, tuple[str, CompositionalConfig]] = {
    "demo": ("the procedural corpus, on CPU", CompositionalConfig(task="synth")),
    "any": ("any --task, on CPU: all clips, or the test split", CompositionalConfig()),
}
GROUNDING: dict[str, tuple[str, GroundingConfig]] = {
    "demo": ("the procedural corpus, on CPU", GroundingConfig(task="synth")),
    "desed": ("DESED's public evaluation set by PSDS 1 and 2 of DCASE task 4, on CPU", GroundingConfig(task="desed")),
    "audioset-strong": ("AudioSet's strongly labelled evaluation clips", GroundingConfig(task="audioset-strong")),
    "any": ("any --task with strong labels, on CPU: all clips, or the test split", GroundingConfig()),
}
ABLATION: tuple[Guidance, ...] = ("tags", "none", "predicted", "shuffled")
CAPTIONING: dict[str, tuple[str, CaptioningConfig]] = {
    "demo": ("the procedural corpus, on CPU: the ablation of tags", CaptioningConfig(task="synth", guidance=ABLATION)),
    "audiocaps": ("AudioCaps, on CPU, with the clips' own tags", CaptioningConfig(task="audiocaps")),
    "clotho": ("Clotho, on CPU, without tags", CaptioningConfig(task="clotho", guidance=("none",))),
    "ablation": ("any --task: own tags, none, predicted, other clips'", CaptioningConfig(guidance=ABLATION)),
}
LINEAR_PROBE: dict[str, tuple[str, LinearProbeConfig]] = {ONLY: ("any --task, on CPU", LinearProbeConfig())}
FINETUNE: dict[str, tuple[str, FinetuneTaskConfig]] = {
    name: (f"any --task: {summary}", FinetuneTaskConfig(recipe=recipe)) for name, (summary, recipe) in RECIPES.items()
}
SUITE: dict[str, tuple[str, SuiteConfig]] = {
    "laptop": ("in this process, on CPU", SuiteConfig(recipe=RECIPES["laptop"][1])),
    "one-gpu": (
        "in this process, on a GPU",
        SuiteConfig(device="cuda", batch_size=256, recipe=RECIPES["one-gpu"][1]),
    ),
    "cluster": (
        "as a job: eight Ray Data actors on a GPU each, as the cluster grows; folds are fine-tuned at the same time",
        SuiteConfig(workers=8, gpus_per_worker=1.0, batch_size=256, recipe=RECIPES["one-gpu"][1]),
    ),
    "tiny": ("seconds, in this process, for tests", SuiteConfig(recipe=RECIPES["tiny"][1])),
}
REPORT: dict[str, tuple[str, ReportConfig]] = {"demo": ("all runs given, with ten captions", ReportConfig())}
INDEX_SEARCH: dict[str, tuple[str, IndexSearchConfig]] = {
    "laptop": ("in this process, on CPU", IndexSearchConfig()),
    "one-gpu": ("in this process, on a GPU", IndexSearchConfig(device="cuda", batch_size=256)),
    "cluster": (
        "as a job: eight Ray Data actors on a GPU each, as the cluster grows",
        IndexSearchConfig(workers=8, gpus_per_worker=1.0, batch_size=256),
    ),
}
SEARCH: dict[str, tuple[str, SearchConfig]] = {ONLY: ("in this process, on CPU", SearchConfig())}
SEARCH_PRECISION: dict[str, tuple[str, SearchPrecisionConfig]] = {
    ONLY: ("in this process, on CPU", SearchPrecisionConfig())
}
SERVE: dict[str, tuple[str, ServeConfig]] = {ONLY: ("in this process, or as replicas of Ray Serve", ServeConfig())}

"""Published numbers, each with where it was read. They stand beside our own and are never ranked with them.

Clips that have disappeared, other folds, prompts and training data all move such numbers, so that each names its protocol.
Only numbers that could be read at their source are here; BLAT's own tables could not, and are left out.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One published number."""

    evaluation: str  # stage and task, as in results
    metric: str  # title of the headline number
    model: str
    value: float  # per cent
    protocol: str
    source: str


AUDIOCLIP = "Guzhov et al. 2021, arXiv 2106.13043, abstract; github.com/AndreyGuzhov/AudioCLIP"
AST = "Gong et al. 2021, arXiv 2104.01778; github.com/YuanGongND/ast, README"
CAPTIONER = "Labbé et al. 2023, arXiv 2308.15090, abstract"
BENCHMARK = "Koepke et al. 2021, arXiv 2112.09418; github.com/akoepke/audio-retrieval-benchmark, README, MMT"
CLAP_2022 = "Elizalde et al. 2022, arXiv 2206.04769, table 2; the authors in github.com/microsoft/CLAP, issue 8"
CLAP_2023 = "Elizalde et al. 2023, arXiv 2309.05767; github.com/microsoft/CLAP, README"
ESC50 = "Piczak 2015; github.com/karolpiczak/ESC-50, README"
IMAGEBIND = (
    "Girdhar et al. 2023, arXiv 2305.05665, as quoted in github.com/embeddings-benchmark/mteb, pull request 5015"
)
LAION = "Wu et al. 2022, arXiv 2211.06687; github.com/LAION-AI/CLAP, README, music_audioset_epoch_15_esc_90.14.pt"
LAION_VGGSOUND = "Wu et al. 2022, arXiv 2211.06687; the authors in github.com/LAION-AI/CLAP, issue 86"
ONE_PEACE = "Wang et al. 2023, arXiv 2305.11172; github.com/OFA-Sys/ONE-PEACE, README"
XARES = "X-ARES 2025, arXiv 2505.16369; github.com/jimbozhang/xares, README, MLP result"
PANNS = "Kong et al. 2019, arXiv 1912.10211; github.com/qiuqiangkong/audioset_tagging_cnn, README"
ALL_CLIPS = "all 2,000 clips"
TUNED_AUDIOCAPS = "fine-tuned, test"
LINEAR_EVAL = "a linear layer over the frozen encoder, fixed hyperparameters"
LINEAR = f"{LINEAR_EVAL}; mean over folds"
T2A, A2T = "text to audio R@1", "audio to text R@1"
T2A_10, A2T_10 = "text to audio R@10", "audio to text R@10"


def _at(evaluation: str, metric: str, *found: tuple[str, float, str, str]) -> list[Reference]:
    return [
        Reference(evaluation=evaluation, metric=metric, model=model, value=value, protocol=protocol, source=source)
        for model, value, protocol, source in found
    ]


REFERENCES = (
    *_at(
        "zero-shot esc50",
        "accuracy",
        ("ImageBind", 66.9, "clips not stated", IMAGEBIND),
        ("AudioCLIP", 69.40, "clips not stated", AUDIOCLIP),
        ("people", 81.30, "crowdsourced listeners", ESC50),
        ("MS CLAP 2022", 82.6, ALL_CLIPS, CLAP_2022),
        ("LAION-CLAP", 90.14, "clips not stated", LAION),
        ("ONE-PEACE", 91.8, ALL_CLIPS, ONE_PEACE),
        ("MS CLAP 2023", 93.9, ALL_CLIPS, CLAP_2023),
    ),
    *_at("zero-shot urbansound8k", "accuracy", ("AudioCLIP", 68.78, "clips not stated", AUDIOCLIP)),
    *_at("zero-shot vggsound", "accuracy", ("LAION-CLAP", 46.2, "test, clips not counted", LAION_VGGSOUND)),
    *_at("linear-probe esc50", "accuracy", ("Whisper", 52.8, LINEAR, XARES), ("Dasheng", 85.7, LINEAR, XARES)),
    *_at("linear-probe urbansound8k", "accuracy", ("Whisper", 68.7, LINEAR, XARES), ("Dasheng", 83.3, LINEAR, XARES)),
    *_at("linear-probe fsd50k", "mAP", ("Whisper", 26.2, LINEAR_EVAL, XARES), ("Dasheng", 40.9, LINEAR_EVAL, XARES)),
    *_at(
        "finetune esc50",
        "accuracy",
        ("AST", 95.6, "5 folds, trained on AudioSet before", AST),
        ("AudioCLIP", 97.15, "trained on AudioSet before; folds not stated", AUDIOCLIP),
    ),
    *_at(
        "finetune urbansound8k",
        "accuracy",
        ("AudioCLIP", 90.07, "trained on AudioSet before; folds not stated", AUDIOCLIP),
    ),
    *_at("finetune fsd50k", "mAP", ("ONE-PEACE", 69.7, "eval, fine-tuned", ONE_PEACE)),
    *_at(
        "finetune audioset",
        "mAP",
        ("PANNs CNN14", 43.1, "trained on all of AudioSet; some 18,887 of 20,371 clips", PANNS),
        ("AST", 45.9, "trained on all of AudioSet, weights averaged", AST),
    ),
    *_at(
        "retrieval audiocaps",
        T2A,
        ("MMT", 36.1, "trained on AudioCaps, mean over seeds", BENCHMARK),
        ("ConvNeXt captioner", 38.2, "trained on AudioCaps, ranked by the captions' likelihood", CAPTIONER),
        ("ONE-PEACE", 42.5, TUNED_AUDIOCAPS, ONE_PEACE),
    ),
    *_at(
        "retrieval audiocaps",
        A2T,
        ("MMT", 39.6, "trained on AudioCaps, mean over seeds", BENCHMARK),
        ("ONE-PEACE", 51.0, TUNED_AUDIOCAPS, ONE_PEACE),
    ),
    *_at(
        "retrieval audiocaps",
        T2A_10,
        ("ImageBind", 42.3, "not trained on pairs of audio and text", IMAGEBIND),
        ("MMT", 84.5, "trained on AudioCaps, mean over seeds", BENCHMARK),
    ),
    *_at("retrieval audiocaps", A2T_10, ("MMT", 86.7, "trained on AudioCaps, mean over seeds", BENCHMARK)),
    *_at("retrieval clotho", T2A, ("ONE-PEACE", 22.4, "fine-tuned, evaluation", ONE_PEACE)),
    *_at("retrieval clotho", A2T, ("ONE-PEACE", 27.1, "fine-tuned, evaluation", ONE_PEACE)),
)


def find(evaluation: str, metric: str) -> list[Reference]:
    """Return the published numbers for one headline number, lowest first."""
    return [each for each in REFERENCES if (each.evaluation, each.metric) == (evaluation, metric)]

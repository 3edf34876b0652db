"""Named training configs. The small ones run the same code as the full ones, with smaller numbers."""

from dataclasses import replace

from pipeline.cli import ONLY
from train.data.augment import AugmentConfig
from train.data.loader import LoaderConfig
from train.launch import ScaleConfig
from train.models.captioner.config import CaptionerConfig
from train.models.configs import ClapConfig, TextConfig
from train.models.encoders.configs import WIDTHS, Cnn14Config, MobileNetConfig
from train.stages.captioner import TrainCaptionerConfig
from train.stages.convert import ConvertConfig
from train.stages.doctor import DoctorConfig
from train.stages.finetune import FinetuneConfig
from train.stages.mixture import MixtureConfig
from train.stages.pretrain import PretrainConfig
from train.stages.publish import PublishConfig
from train.trainer.optim import OptimConfig
from train.trainer.performance import PerformanceConfig

SMALL_CNN = Cnn14Config(
    hop_samples=960, num_mels=48, channels=(8, 16, 32, 64, 128), block_dropout=0.1, clip_dropout=0.1
)
SMALL_TEXT = TextConfig(name="", hidden_dim=128, layers=2, heads=4)
SMALL_CAPTIONER = CaptionerConfig(
    audio=SMALL_CNN, clip_s=5.0, gru_layers=1, gru_dim=64, model_dim=128, decoder_heads=4, decoder_feedforward=256
)
SMALL_CLAP = ClapConfig(audio=SMALL_CNN, text=SMALL_TEXT, joint_dim=128, clip_s=5.0)
PROXY_CLAP = ClapConfig(
    audio=Cnn14Config(hop_samples=1920, num_mels=48, channels=(8, 16, 32, 64), block_dropout=0.1, clip_dropout=0.1),
    text=SMALL_TEXT,
    joint_dim=128,
    clip_s=5.0,
)
MEDIUM_CNN = Cnn14Config(
    hop_samples=960, num_mels=64, channels=(16, 32, 64, 128, 256), block_dropout=0.1, clip_dropout=0.3
)
TINY_CNN = Cnn14Config(hop_samples=1280, num_mels=16, channels=(4, 8), block_dropout=0.0, clip_dropout=0.0)
TINY_CAPTIONER = CaptionerConfig(
    audio=TINY_CNN, clip_s=2.0, gru_layers=1, gru_dim=8, model_dim=16, decoder_heads=2, decoder_feedforward=16
)
TINY_CLAP = ClapConfig(
    audio=TINY_CNN, text=TextConfig(name="", hidden_dim=16, layers=1, heads=2, dropout=0.0), joint_dim=16, clip_s=2.0
)
MN04 = MobileNetConfig(width=WIDTHS["mn04"])
LABEL_PHRASES = ("{}", "the sound of {}", "{} can be heard", "a recording of {}")
IN_PROCESS = ScaleConfig(num_workers=0)
MINILM = TextConfig(name="sentence-transformers/all-MiniLM-L6-v2", pooling="mean")
MANY = LoaderConfig(processes=6)
EIGHT_GPUS = ScaleConfig(num_workers=8, gpu=True, cpus_per_worker=7)

ONE_GPU = ScaleConfig(num_workers=1, gpu=True, cpus_per_worker=8)
BLAT_OPTIM = OptimConfig(epochs=21, batch_size=128, optimizer="adam", lr=1e-4)  # 200,000 steps of 1.22 M captions
RELEASED_OPTIM = OptimConfig(
    epochs=25,
    batch_size=32,
    optimizer="adam",
    lr=5e-4,
    decay="exponential",
    final_lr=5e-7,
    warmup_fraction=0.2,
    weight_decay=1e-6,
    swa_epochs=5,
    seed=1,
)

RELEASED = TrainCaptionerConfig(  # wsntxxn/AudioCaption's AudioCaps config, with tags on all clips as BLAT has them
    network=CaptionerConfig(tagger=False),
    freeze_audio=True,
    tag_dropout=0.0,
    label_smoothing=0.1,
    final_teacher_forcing=0.7,
    optim=RELEASED_OPTIM,
    scale=ONE_GPU,
)

CAPTIONER: dict[str, tuple[str, TrainCaptionerConfig]] = {
    "demo": (
        "the procedural corpus: 5 s clips, in this process, under two minutes on two cores",
        TrainCaptionerConfig(
            network=SMALL_CAPTIONER,
            tag_dropout=0.15,
            optim=OptimConfig(epochs=22, batch_size=16, lr=3e-3, save_every_s=15.0),
            scale=IN_PROCESS,
        ),
    ),
    "audiocaps": (
        "the released recipe: frozen CNN14 from --init-audio, scheduled sampling, the last five epochs averaged; one GPU",
        RELEASED,
    ),
    "clotho": (
        "as audiocaps, without tags, on clips of up to 30 s with five captions each: an epoch there is five here",
        replace(
            RELEASED,
            network=replace(RELEASED.network, clip_s=30.0, guided=False),
            optim=replace(RELEASED_OPTIM, epochs=125, swa_epochs=25),
        ),
    ),
    "audiocaps-modern": (
        "one model for given, predicted and no tags: tag dropout, tagging head, subwords, AdamW and cosine, bf16; 8 GPUs",
        TrainCaptionerConfig(
            network=CaptionerConfig(subwords=True),
            freeze_audio=True,
            optim=OptimConfig(
                epochs=25, batch_size=256, lr=1e-3, weight_decay=0.01, precision="bfloat16", swa_epochs=5
            ),
            scale=EIGHT_GPUS,
        ),
    ),
    "esc50": (
        "real 5 s clips with captions or labels, ESC-50's fold 4 held out, in this process, 15 minutes on two cores",
        TrainCaptionerConfig(
            network=replace(SMALL_CAPTIONER, audio=MEDIUM_CNN),
            exclude_folds=("4",),
            label_phrases=LABEL_PHRASES,
            optim=OptimConfig(epochs=25, batch_size=16, lr=1e-3),
            scale=IN_PROCESS,
        ),
    ),
    "esc50-mn04": (
        "as esc50, over a frozen EfficientAT mn04 that --init-audio names",
        TrainCaptionerConfig(
            network=replace(SMALL_CAPTIONER, audio=MN04),
            exclude_folds=("4",),
            label_phrases=LABEL_PHRASES,
            freeze_audio=True,
            optim=OptimConfig(epochs=12, batch_size=16, lr=1e-3),
            scale=IN_PROCESS,
        ),
    ),
    "tiny": (
        "seconds, in this process, for tests",
        TrainCaptionerConfig(
            network=TINY_CAPTIONER, optim=OptimConfig(epochs=2, batch_size=8, lr=1e-2), scale=IN_PROCESS
        ),
    ),
}


def _mobilenet(name: str) -> ConvertConfig:
    return ConvertConfig(layout="efficientat", audio=MobileNetConfig(width=WIDTHS[name], num_classes=527))


CONVERT: dict[str, tuple[str, ConvertConfig]] = {
    "cnn14": ("PANNs' Cnn14_mAP=0.431.pth (zenodo 3987831) -> audio encoder", ConvertConfig(layout="panns")),
    **{name: (f"EfficientAT's {name}_as_mAP_*.pt -> audio encoder and tagger", _mobilenet(name)) for name in WIDTHS},
    "ast": ("an AudioSet AST by its name on the hub, or from a folder -> audio encoder", ConvertConfig(layout="ast")),
    "blat": ("blat_cnn14_bertm.pth (zenodo 8192397) -> two towers", ConvertConfig(layout="blat")),
    "captioner": ("a captioner of wsntxxn/AudioCaption -> captioner", ConvertConfig(layout="audiocaption")),
}

PRETRAIN: dict[str, tuple[str, PretrainConfig]] = {
    "demo": (
        "the procedural corpus: 5 s clips, in this process, a minute on two cores",
        PretrainConfig(
            network=replace(SMALL_CLAP, text=replace(SMALL_TEXT, pooling="mean")),  # learns in fewer steps than [CLS]
            optim=OptimConfig(epochs=8, batch_size=64, lr=1e-3, save_every_s=15.0),
            scale=IN_PROCESS,
        ),
    ),
    "blat": (
        "BLAT's first stage, on synthetic captions: CNN14 from --init-audio and BERT-medium, 10 s clips; 8 GPUs",
        PretrainConfig(optim=BLAT_OPTIM, scale=EIGHT_GPUS, loader=MANY),
    ),
    "blat-stage2": (
        "BLAT's second stage: --init the first on real captions, such as those of AudioCaps, Clotho and MACS; 8 GPUs",
        PretrainConfig(optim=replace(BLAT_OPTIM, lr=2e-5), scale=EIGHT_GPUS, loader=MANY),
    ),
    "blat-small": (
        "the same method at a tenth of the size: EfficientAT's mn04 and a BERT of 4 layers, 10 s clips; one GPU",
        PretrainConfig(
            network=ClapConfig(audio=MN04, text=TextConfig(name="", hidden_dim=256, layers=4, heads=4), joint_dim=256),
            optim=replace(BLAT_OPTIM, lr=5e-4, precision="bfloat16"),
            scale=ONE_GPU,
            loader=MANY,
        ),
    ),
    "modern": (
        "EfficientAT's mn10 from --init-audio, MiniLM, the sigmoid loss, bf16, compiled: an evening on one GPU",
        PretrainConfig(
            network=ClapConfig(
                audio=MobileNetConfig(), text=replace(MINILM, max_tokens=40), joint_dim=512, sigmoid=True
            ),
            loss="sigmoid",
            mask_duplicates=True,
            augment=AugmentConfig(spec_augment=True),
            text_lr_scale=0.1,
            optim=OptimConfig(
                epochs=12, batch_size=1024, lr=1e-3, weight_decay=0.05, precision="bfloat16", ema_decay=0.999
            ),
            speed=PerformanceConfig(compile=True),
            scale=ONE_GPU,
            loader=MANY,
        ),
    ),
    "esc50": (
        "real 5 s clips, in this process, 10 minutes on two cores",
        PretrainConfig(
            network=replace(SMALL_CLAP, audio=MEDIUM_CNN),
            optim=OptimConfig(epochs=15, batch_size=64, lr=5e-4),
            scale=IN_PROCESS,
        ),
    ),
    "esc50-mn04": (
        "as esc50, with EfficientAT's mn04, whose weights --init-audio names, as audio tower",
        PretrainConfig(
            network=replace(SMALL_CLAP, audio=MN04),
            optim=OptimConfig(epochs=8, batch_size=64, lr=5e-4),
            scale=IN_PROCESS,
        ),
    ),
    "esc50-minilm": (
        "as esc50, over a frozen mn04 that --init-audio names and a frozen MiniLM: their projections learn",
        PretrainConfig(
            network=ClapConfig(audio=MN04, text=MINILM, joint_dim=384, clip_s=5.0),
            freeze_audio=True,
            freeze_text=True,
            mask_duplicates=True,
            optim=OptimConfig(epochs=10, batch_size=64, lr=1e-3),
            scale=IN_PROCESS,
        ),
    ),
    "tiny": (
        "seconds, in this process, for tests",
        PretrainConfig(network=TINY_CLAP, optim=OptimConfig(epochs=2, batch_size=8, lr=1e-2), scale=IN_PROCESS),
    ),
}

MIXTURE: dict[str, tuple[str, MixtureConfig]] = {
    "demo": (
        "four clusters and ten models of thirty steps or so, in this process, two minutes on two cores",
        MixtureConfig(
            num_clusters=4,
            proxies=(6, 4),
            recipe=replace(
                PRETRAIN["demo"][1],
                network=PROXY_CLAP,
                optim=replace(PRETRAIN["demo"][1].optim, epochs=2, batch_size=32),
            ),
        ),
    ),
    "blat": (
        "CLIMB's 112 models in three rounds, each a tenth of the size (blat-small) for one epoch; one GPU",
        MixtureConfig(
            num_clusters=16,
            recipe=replace(PRETRAIN["blat-small"][1], optim=replace(PRETRAIN["blat-small"][1].optim, epochs=1)),
        ),
    ),
    "tiny": (
        "seconds, in this process, for tests",
        MixtureConfig(num_clusters=2, proxies=(2, 1), recipe=PRETRAIN["tiny"][1]),
    ),
}

DOCTOR: dict[str, tuple[str, DoctorConfig]] = {
    name: (f"as `pretrain {name}`: {summary}", DoctorConfig(**vars(config)))
    for name, (summary, config) in PRETRAIN.items()
}
FINETUNE: dict[str, tuple[str, FinetuneConfig]] = {
    "one-gpu": (
        "a classifier on one GPU: linear layer first, AdamW, layer-wise rates, mixup, SpecAugment, bf16",
        FinetuneConfig(
            spec_augment=True,
            mixup=0.3,
            probe_first=True,
            keep_statistics=True,
            layer_decay=0.85,
            optim=OptimConfig(epochs=30, batch_size=64, lr=1e-3, weight_decay=0.01, precision="bfloat16"),
            loader=LoaderConfig(processes=6),
            scale=ONE_GPU,
        ),
    ),
    "laptop": (
        "the same without mixup for a small encoder and a small dataset, in this process",
        FinetuneConfig(
            spec_augment=True,
            probe_first=True,
            keep_statistics=True,
            layer_decay=0.85,
            clip_s=5.0,
            optim=OptimConfig(epochs=6, batch_size=32, lr=5e-4, weight_decay=0.01),
            scale=IN_PROCESS,
        ),
    ),
    "tiny": (
        "seconds, in this process, for tests",
        FinetuneConfig(clip_s=2.0, optim=OptimConfig(epochs=2, batch_size=8, lr=1e-2), scale=IN_PROCESS),
    ),
}
PUBLISH = {ONLY: ("", PublishConfig())}

"""The config of contrastive pre-training: every flag of `python -m train pretrain`."""

from dataclasses import dataclass, field

from pipeline.dataset.selection import SelectionConfig
from train.data.augment import AugmentConfig
from train.data.loader import LoaderConfig
from train.launch import ScaleConfig
from train.losses import contrastive
from train.models.clap import ClapConfig
from train.trainer.monitor import MonitorConfig
from train.trainer.optim import OptimConfig
from train.trainer.performance import PerformanceConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(SelectionConfig):
    """Train the two towers on captioned clips."""

    data: tuple[str, ...] = ()
    """Datasets of shards that `pipeline caption` wrote, indexes of `pipeline index`, or listings of captioned clips."""
    columns: str = ""
    """Columns of listings that are named otherwise, as in file=path,captions=said."""
    weights: tuple[float, ...] = ()
    """Passes over each of them in an epoch, such as 1 0.5; one each when left out."""
    label_phrases: tuple[str, ...] = ()
    """Captions for clips of a listing that have tags and no caption, with {} for the tags; empty leaves such clips out."""
    init: str = ""
    """Two-tower checkpoint that the whole model starts from, as BLAT's second stage does."""
    init_audio: str = ""
    """Checkpoint whose audio encoder the audio tower starts from: a captioner, a two-tower model, or released
    weights after `train convert`, as BLAT starts from PANNs. Empty starts at random."""
    freeze_audio: bool = False
    """Leave the audio encoder as it is; its projection learns."""
    freeze_text: bool = False
    """Leave the text encoder as it is; its projection learns."""
    audio_lr_scale: float = 1.0
    """Factor on the learning rate of the audio encoder."""
    text_lr_scale: float = 1.0
    """Factor on the learning rate of the text encoder."""
    loss: contrastive.Kind = "global"
    """`global` is InfoNCE as BLAT has it, `local` the same with memory that grows with the ranks and not with their square,
    `sigmoid` is SigLIP's."""
    mask_duplicates: bool = False
    """Do not push apart pairs that have the same clip or the same caption."""
    parts: int = 1
    """Parts that each rank takes its share of a batch in, one after the other; all pairs still meet."""
    validation: str = ""
    """Listing of held-out clips with captions, tags or both, measured each epoch; the best model goes to <out>/best."""
    hold_out: int = 0
    """Hold out so many clips of --data instead, drawn by their names."""
    validate_every_steps: int = 0
    """Validate also after every so many steps."""
    out: str = ""
    """Folder or URI of the checkpoint."""
    network: ClapConfig = field(default_factory=ClapConfig)
    """The model."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation."""
    speed: PerformanceConfig = field(default_factory=PerformanceConfig)
    """Speed and memory."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """Reading."""
    watch: MonitorConfig = field(default_factory=MonitorConfig)
    """Where numbers go."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    """Workers."""

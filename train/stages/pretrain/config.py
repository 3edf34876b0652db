"""The flags of `python -m train pretrain`, and which of them fit together."""

from dataclasses import dataclass, field

from pipeline import cli
from pipeline.dataset.selection import SelectionConfig
from pipeline.errors import InputError
from pipeline.run_dir import NOT_IDENTITY
from train.data.augment import AugmentConfig
from train.data.hard_negatives import Kind as HardNegativeKind
from train.losses import contrastive
from train.models.configs import ClapConfig
from train.stages.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(SelectionConfig, TrainingConfig):
    """Train the two towers on captioned clips."""

    data: tuple[str, ...] = field(default=(), metadata=NOT_IDENTITY)
    """Datasets of shards that `pipeline caption` wrote, what `pipeline index` or `pipeline assign` wrote, or listings of
    captioned clips."""
    weights: tuple[float, ...] = ()
    """Passes over each of them in an epoch, such as 1 0.5; one each when left out."""
    mixture: str = field(default="", metadata=NOT_IDENTITY)
    """Mixture of caption clusters that `train mixture` wrote, such as searched.json; empty takes the clips as they come."""
    label_phrases: tuple[str, ...] = ()
    """Captions for clips of a listing that have tags and no caption, with {} for the tags; empty leaves such clips out."""
    init: str = field(default="", metadata=NOT_IDENTITY)
    """Two-tower checkpoint that the whole model starts from, as BLAT's second stage does; or `hf:` and a CLAP of
    transformers, a folder or a name on the hub, whose own network and clip length hold in place of --network."""
    init_audio: str = field(default="", metadata=NOT_IDENTITY)
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
    hard_negatives: tuple[HardNegativeKind, ...] = ()
    """Wrong texts that each clip is compared with as well: `order` swaps the events of its caption; `absence` replaces half
    of the captions of clips with tags by "rain without siren" and the like, with a wrong one of the same form."""
    frame_weight: float = 0.0
    """Weight of the loss of frames against phrases, beside that of clips against captions: what sounds when, in datasets of
    `pipeline caption --timed`; 0 leaves it out."""
    grad_cache_chunks: int = field(default=1, metadata={"was": "parts"})
    """Chunks that each rank takes its share of a batch in, one after the other (GradCache); all pairs still meet."""
    validation: str = field(default="", metadata=NOT_IDENTITY)
    """Listing of held-out clips with captions, tags or both, measured each epoch; the best model goes to <out>/best."""
    hold_out: int = 0
    """Hold out so many clips of --data instead, drawn by their names."""
    validate_every_steps: int = 0
    """Validate also after every so many steps."""
    network: ClapConfig = field(default_factory=ClapConfig)
    """The model."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation."""

    def check(self) -> None:
        """Raise InputError for flags that cannot be, before anything is read."""
        self._check_clips()
        if self.grad_cache_chunks < 1:
            raise InputError("--grad-cache-chunks", self.grad_cache_chunks, "use 1 or more")
        if self.init and self.init_audio:
            raise InputError("--init-audio", self.init_audio, "--init brings both towers; leave out one of the two")
        if self.freeze_audio and not (self.init or self.init_audio):
            raise InputError("--init-audio", "", "a frozen audio encoder needs weights to start from")
        if self.loss == "sigmoid" and not self.network.sigmoid and not self.init.startswith("hf:"):
            raise InputError("--network.sigmoid", False, "the sigmoid loss learns a bias: set it to True")
        if min(self.audio_lr_scale, self.text_lr_scale) <= 0:
            remedy = "use numbers above 0; --freeze-audio stops learning"
            raise InputError("--audio-lr-scale", self.audio_lr_scale, remedy)
        if self.hard_negatives and self.augment.mix_fraction:
            remedy = "they belong to one clip and not to a mixture; leave out one of the two flags"
            raise InputError("--hard-negatives", self.hard_negatives, f"with --augment.mix-fraction: {remedy}")
        self._check_frames()
        self.augment.check()
        self.check_common()

    def _check_frames(self) -> None:
        if self.frame_weight < 0:
            raise InputError("--frame-weight", self.frame_weight, "use 0 or more")
        if self.network.frames and not self.frame_weight:
            raise InputError("--network.frames", True, "is learned with --frame-weight above 0: set that alone")
        if self.frame_weight and self.grad_cache_chunks > 1:
            remedy = "the loss of frames takes a batch whole: leave out one of the two flags"
            raise InputError("--grad-cache-chunks", self.grad_cache_chunks, f"with --frame-weight: {remedy}")
        if self.frame_weight and self.augment.mix_fraction:
            remedy = "times belong to one clip and not to a mixture; leave out one of the two flags"
            raise InputError("--augment.mix-fraction", self.augment.mix_fraction, f"with --frame-weight: {remedy}")

    def _check_clips(self) -> None:
        if self.weights and (len(self.weights) != len(self.data) or min(self.weights) <= 0):
            raise InputError(
                "--weights", self.weights, f"give a number above 0 for each of the {len(self.data)} --data"
            )
        if self.weights and self.mixture:
            raise InputError("--mixture", self.mixture, "sets the weights: leave out --weights")
        if self.validation and self.hold_out:
            raise InputError("--hold-out", self.hold_out, "give this or --validation, not both")
        if self.hold_out < 0 or self.validate_every_steps < 0:
            raise InputError("--hold-out", self.hold_out, "use 0 or more, here and in --validate-every-steps")
        for phrase in self.label_phrases:
            cli.check_template("--label-phrases", phrase)

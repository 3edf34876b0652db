"""How a caption job is configured, and which values of its fields cannot be."""

from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Annotated, Any, Literal, Self

import tyro

from pipeline import run_dir
from pipeline.errors import InputError
from pipeline.graph.captioner_name import CaptionerName, Kind
from pipeline.graph.engine import ActorConfig
from pipeline.graph.frame_tagger_config import FrameTaggerConfig
from pipeline.planning.cut import MAX_SHARD_MB
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.quality import audio_filter
from pipeline.quality.audio_filter import AudioFilterConfig
from train.models.captioner.decoding import Decoding

Guidance = Literal["tags", "predicted", "none", "shuffled"]
Precision = Literal["auto", "float32", "bfloat16"]
KIND_NAMES: dict[Kind, str] = {
    "blat": "checkpoints of `train captioner`",
    "hf": "hf: models",
    "openai": "openai: models",
}
KINDS = "kinds"  # metadata of a field that only captioners of these kinds use
LLM = {KINDS: ("hf", "openai")}
ENDPOINT = run_dir.NOT_IDENTITY | {KINDS: ("openai",)}
LOCAL = {KINDS: ("blat", "hf")}


COMPILED_BATCHES = 5_500  # of an actor: CNN14 saves 11 ms of each on an H200, and compiling takes a minute


@dataclass(frozen=True, kw_only=True)
class CaptionSpeedConfig:
    """Speed of the captioner. Captions stay the same but for rounding."""

    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the audio encoder, which takes each actor a minute; auto does so on a GPU, from 5,500 batches an actor on."""

    def resolved(self, on_gpu: bool, num_batches: float) -> "CaptionSpeedConfig":
        """Return the config of actors that have so many batches each: on or off."""
        auto: Literal["on", "off"] = "on" if on_gpu and num_batches >= COMPILED_BATCHES else "off"
        return replace(self, compile=auto if self.compile == "auto" else self.compile)


@dataclass(frozen=True, kw_only=True)
class CaptionActorConfig:
    """The captioner, and how it captions a clip."""

    captioner: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Checkpoint directory that `train captioner` wrote; hf:<namespace/name or folder>, an audio LLM of transformers;
    openai:<model>, a model behind the endpoint at --captioner-url."""
    guidance: tuple[Guidance, ...] = ("tags",)
    """Give the captioner each clip's tags, those it predicts itself, none, or those of another clip of its shard; several
    of these make captions of each kind. With `tags` or `shuffled` alone, clips without tags are filtered out."""
    tag_threshold: float = 0.3
    """Probability from which a predicted tag guides, from 0 to 1; a clip with none goes unguided."""
    decoding: Decoding = field(default_factory=Decoding)
    """How captions are chosen."""
    samples: int = 0
    """Captions added for each kind of guidance by nucleus sampling, with the top_p, temperature and seed of decoding."""
    prompt: str = field(default="", metadata=LLM)
    """Instruction to an LLM: guided, unguided, or a text of your own, with {tags} where the tags belong. Empty takes guided
    for clips with tags and unguided for others."""
    rewrite: Literal["", "tags", "captions"] = field(default="", metadata={KINDS: ("openai",)})
    """Let a text LLM write the captions from the clip's tags, or from the captions that it has: in `caption` those of the
    source, or another text that --columns captions=title names, in `recaption` those of the dataset. --prompt names them
    {captions}. No audio is sent. Empty: the model gets the audio."""
    clip_s: float = field(default=30.0, metadata=LLM)
    """Seconds of each clip, from its start, that an LLM gets."""
    max_words: int = field(default=40, metadata=LLM)
    """Words that stay of an LLM's caption."""
    max_tokens: int = field(default=96, metadata=LLM)
    """Tokens that an LLM may write for a caption."""
    tagger: str = field(default="", metadata=run_dir.NOT_IDENTITY | LLM)
    """Checkpoint with a tagging head, which predicts the tags of --guidance predicted for an LLM."""
    batch_size: int = 32
    """Clips in one pass of the model; on a GPU every batch has this size."""
    captioner_url: str = field(default="", metadata=ENDPOINT)
    """Endpoint of an openai: captioner, such as http://127.0.0.1:8000/v1. It gets the audio of every clip."""
    captioner_key_variable: str = field(default="OPENAI_API_KEY", metadata=ENDPOINT)
    """Variable of the environment, on every node, that holds the key of the endpoint. Where it is not set, none is sent."""
    concurrency: int = field(default=8, metadata=ENDPOINT)
    """Requests that each actor has under way."""
    max_requests: int = field(default=0, metadata=ENDPOINT)
    """Requests that a run of the command may send, of all actors together and repeated ones included. 0: no bound."""
    max_bad_fraction: float = field(default=0.05, metadata=run_dir.NOT_IDENTITY)
    """The job fails when a larger share of the clips failed, from 0 to 1. Filtered clips do not count."""
    precision: Precision = field(default="auto", metadata=LOCAL)
    """Arithmetic of the model; auto is bfloat16 on a GPU and float32 on a CPU."""
    speed: CaptionSpeedConfig = field(
        default_factory=CaptionSpeedConfig, metadata=run_dir.NOT_IDENTITY | {KINDS: ("blat",)}
    )
    """Speed."""
    actors: ActorConfig = field(default_factory=ActorConfig, metadata=run_dir.NOT_IDENTITY)
    """The pool of captioner actors."""

    def check(self) -> None:
        """Raise InputError for a field that cannot be, or that captioners of this kind do not use."""
        for each in fields(self):
            self._check_kind(each)
        if not self.guidance or len(set(self.guidance)) < len(self.guidance):
            raise InputError(
                "--guidance", self.guidance, "give one or more of tags, predicted, none, shuffled, each once"
            )
        if not 0 <= self.tag_threshold <= 1:
            raise InputError("--tag-threshold", self.tag_threshold, "use a probability from 0 to 1")
        try:
            for decoding in self.decodings:
                decoding.check()
        except ValueError as error:
            raise InputError("--decoding", str(self.decoding), str(error)) from None
        if self.batch_size < 1:
            raise InputError("--batch-size", self.batch_size, "use 1 or more")
        if not 0 <= self.max_bad_fraction <= 1:
            raise InputError("--max-bad-fraction", self.max_bad_fraction, "use a share from 0 to 1")
        self.actors.check()

    def _check_kind(self, each: "Field[Any]") -> None:
        """Raise InputError for a field that was set and that only captioners of other kinds use."""
        kinds: tuple[Kind, ...] = each.metadata.get(KINDS, ())
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        value = getattr(self, each.name)
        if kinds and self.kind not in kinds and value != default:
            names = " and ".join(KIND_NAMES[kind] for kind in kinds)
            remedy = f"only {names} use it; leave it out for {self.captioner or 'a checkpoint'}"
            raise InputError(f"--{each.name.replace('_', '-')}", str(value), remedy)

    @property
    def kind(self) -> Kind:
        """Return the kind of the captioner."""
        return CaptionerName.parse(self.captioner).kind

    def sized(self, num_clips: int) -> Self:
        """Return the config of actors that caption a dataset of so many clips: of all its clips, so that a job that goes
        on compiles as it did before."""
        on_gpu, num_batches = self.actors.device == "cuda", num_clips / self.batch_size / max(1, self.actors.max)
        return replace(self, speed=self.speed.resolved(on_gpu, num_batches))

    @property
    def decodings(self) -> list[Decoding]:
        """Return the ways in which each kind of guidance is decoded."""
        extra = [replace(self.decoding, method="nucleus", num_captions=self.samples)] if self.samples else []
        return [self.decoding, *extra]

    @property
    def arithmetic(self) -> str:
        """Return the arithmetic that `precision` comes to: float32 or bfloat16; served where an endpoint decides."""
        if self.kind == "openai":
            return "served"
        automatic: Precision = "bfloat16" if self.actors.device == "cuda" else "float32"
        return automatic if self.precision == "auto" else self.precision


@dataclass(frozen=True, kw_only=True)
class CaptionConfig(CaptionActorConfig):
    """Write captions for tagged clips with a captioner, into WebDataset shards.

    Fields that are not part of the identity may change between runs: what they decide is in the hash of the plan, in the
    revision of the captioner or in the arithmetic, or it does not change the dataset.
    """

    source: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Where the clips are: a CSV, a folder, tars or Parquet files."""
    folds: tuple[str, ...] = field(default=(), metadata=run_dir.NOT_IDENTITY)
    """Keep only rows with one of these values in the fold column; empty keeps all."""
    columns: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Columns of a table that are named otherwise, as in file=path,labels=tags."""
    precision: Precision = field(default="auto", metadata=run_dir.NOT_IDENTITY | LOCAL)
    """Arithmetic of the model; auto is bfloat16 on a GPU and float32 on a CPU. A dataset has one arithmetic."""
    out: str = ""
    """Folder or URI of the dataset of shards."""
    clips_per_shard: int = 512
    """Clips in each tar at most; 512 clips of 10 s take 200 to 300 MB."""
    max_shard_mb: float = field(default=MAX_SHARD_MB, metadata=run_dir.NOT_IDENTITY)
    """Megabytes in each tar at most, by what the listing gives: 64 kB for each second of a clip, else the size of its file.
    Clips of neither count nothing; 0 bounds by clips alone."""
    decode: Literal["reader", "actor"] = field(default="reader", metadata=run_dir.NOT_IDENTITY)
    """Where the captioner gets its samples from: from the tasks that read, which decode each clip anyway, or decoded once
    more beside the model. The second saves a third of the bytes that travel to GPU nodes, for a slow network."""
    licence: str = "other"
    """Licence of the audio and captions, as the dataset card states it; an identifier of the Hugging Face hub."""
    firewall: DecontaminationConfig = field(default_factory=DecontaminationConfig, metadata=run_dir.NOT_IDENTITY)
    """Which evaluation clips are left out."""
    timed: bool = False
    """Write `phrases` beside the captions: what sounds when, by the strong labels of the source, else by --timed.tagger."""
    timed_by: Annotated[FrameTaggerConfig, tyro.conf.arg(name="timed")] = field(default_factory=FrameTaggerConfig)
    """Times of clips without strong labels."""
    audio_filter: AudioFilterConfig = audio_filter.OFF
    """Which clips are left out for their sound. The named configs leave out silence; jobs that began before there was
    this field go on without."""


def frame_tagger_of(config: CaptionConfig) -> FrameTaggerConfig | None:
    """Return the config of the tagger that finds times in the actors, or None where none does."""
    return config.timed_by if config.timed and config.timed_by.tagger else None


def check_fields(config: CaptionConfig) -> None:
    """Raise InputError for a field of a caption job that cannot be, beside those of its captioner."""
    config.audio_filter.check()
    config.timed_by.check()
    if config.timed_by != FrameTaggerConfig() and not config.timed:
        raise InputError("--timed", False, "the flags --timed.tagger and --timed.threshold need it; add --timed")

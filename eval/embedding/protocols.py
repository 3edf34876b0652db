"""How others evaluate zero-shot classification: their prompts, and what they do to the audio. Each names its source."""

from dataclasses import dataclass, replace
from typing import Literal

from eval.embedding.view import AS_IT_IS, Crop, View
from train.metrics.zero_shot import PROMPTS

CROPS: tuple[Crop, ...] = ("first", "middle", "random")
RATES_HZ = (8_000, 16_000)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to evaluate. What is empty is as this package does it."""

    prompts: tuple[str, ...] = PROMPTS
    """Templates with {} for the class; the embeddings of several are averaged."""
    names: Literal["words", "labels"] = "words"
    """What stands in the prompt: the class in words ("sea waves"), or its label as it is written ("sea_waves")."""
    view: View = AS_IT_IS
    """How the audio is read; its length is the model's."""
    source: str = ""
    """Where the protocol could be read."""

    def view_of(self, clip_s: float) -> View:
        """Return the view for a model that takes so many seconds; without crop or fill it is the same for all models."""
        return replace(self.view, length_s=clip_s) if self.view.crop or self.view.fill else self.view

    @property
    def changes_audio_alone(self) -> bool:
        """Return whether the texts are ours, and the samples may not be."""
        return self.view != AS_IT_IS and (self.prompts, self.names) == (PROMPTS, "words")


OURS = Protocol()
PUBLISHED = {
    "LAION-CLAP": Protocol(
        prompts=("This is a sound of {}.",),
        view=View(crop="random", fill="repeat"),
        source="Wu et al. 2022, arXiv 2211.06687; the defaults of transformers' ClapFeatureExtractor and zero-shot pipeline",
    ),
    "MS CLAP": Protocol(
        prompts=("this is the sound of {}",),
        view=View(crop="random", fill="loop"),
        source="github.com/microsoft/CLAP, examples/zero_shot_classification.py and msclap/CLAPWrapper.py; to the model's "
        "own length",
    ),
    "MTEB": Protocol(
        prompts=("This is a sound of {}",),
        names="labels",
        source="github.com/embeddings-benchmark/mteb, task ESC50_Zeroshot; windows and their mean as this package's adapter",
    ),
}
"""Whole protocols. X-ARES has none: it probes (x_ares.py beside this). BLAT's prompts were not published."""

ONE_AT_A_TIME: dict[str, dict[str, Protocol]] = {
    "prompt": {
        "class name alone": Protocol(prompts=("{}",)),
        "the sound of {}": Protocol(prompts=("the sound of {}",)),
        "this is a sound of {}": Protocol(prompts=("this is a sound of {}",)),
        "This is a sound of {}.": Protocol(prompts=("This is a sound of {}.",)),
        "this is the sound of {}": Protocol(prompts=("this is the sound of {}",)),
        "labels as they are written": Protocol(names="labels"),
    },
    "crop": {f"{crop} part of longer clips": Protocol(view=View(crop=crop)) for crop in CROPS},
    "padding": {
        "zeros that count as sound": Protocol(view=View(fill="zeros")),
        "the clip repeated": Protocol(view=View(fill="repeat")),
        "the clip looped": Protocol(view=View(fill="loop")),
    },
    "rate": {f"through {rate_hz / 1000:g} kHz": Protocol(view=View(through_hz=rate_hz)) for rate_hz in RATES_HZ},
}
"""By what differs: protocols that differ from ours in that alone."""

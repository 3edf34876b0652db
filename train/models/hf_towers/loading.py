"""Two towers from a folder that transformers wrote."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from train.models.hf_towers import clap, pe_audio
from train.models.hf_towers.towers import DAMAGED, HfTowers, quiet

ARCHITECTURES: dict[str, Callable[[Path, Any], HfTowers]] = {  # by `model_type` in config.json
    "clap": clap.load,
    "pe_audio": pe_audio.load,
    "pe_audio_video": pe_audio.load,
}


def load(folder: Path) -> HfTowers:
    """Load what transformers wrote, in eval mode. It runs no code of the folder and needs no network.

    Raises:
        ValueError: when config, processor or weights are missing, damaged, or not those of two towers; says which.
    """
    from transformers import AutoConfig

    quiet()
    try:
        architecture = AutoConfig.from_pretrained(folder)
        return ARCHITECTURES[architecture.model_type](folder, architecture).eval()
    except DAMAGED as error:
        raise ValueError(str(error).strip().partition("\n")[0]) from error

"""Audio LLMs of transformers: which classes they have, where they lie, what fixes their weights."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.errors import InputError
from pipeline.graph.captioner_name import CaptionerName
from pipeline.storage import hf

if TYPE_CHECKING:
    import torch

FLAG = "--captioner"
WHOLE = 8 * 2**20  # bytes: of larger files, which hold weights, size, first and last MiB are hashed
EDGE = 2**20
THINKERS = {  # of models that speak, the part that writes
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
}


class CaptionerModel(NamedTuple):
    """An audio LLM, and what fixes its weights."""

    captioner: str  # the name that `--captioner` comes to
    revision: str


def find(captioner: str) -> CaptionerModel:
    """Return where a model lies and what fixes its weights; of a name on the hub only config.json is fetched.

    Raises:
        InputError: when there is no model, or one that transformers does not load as an audio LLM.
    """
    found = hf.find(captioner, FLAG)
    if not _auto_class(found.model_type):
        kind = found.model_type or "model without a type"
        raise InputError(FLAG, captioner, f"is a {kind}: no audio LLM of transformers")
    return CaptionerModel(found.name, found.commit or _hash(Path(found.location)))


def load(captioner: str, dtype: "torch.dtype") -> tuple[Any, Any]:
    """Load processor and model of what `find` found."""
    import transformers

    location = CaptionerName.parse(captioner).model
    where: dict[str, str] = {}
    if not Path(location).is_dir():
        location, _, where["revision"] = location.partition("@")
    config = transformers.AutoConfig.from_pretrained(location, **where)
    model = getattr(transformers, _auto_class(config.model_type)).from_pretrained(location, dtype=dtype, **where)
    return transformers.AutoProcessor.from_pretrained(location, **where), model.eval()


def _auto_class(model_type: str) -> str:
    """Return the name of the class that loads models of a type and takes audio and text, or ''."""
    from transformers.models.auto import modeling_auto

    if model_type in THINKERS:
        return THINKERS[model_type]
    if model_type in modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES:
        return "AutoModelForMultimodalLM"
    return "AutoModelForSeq2SeqLM" if model_type in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES else ""


def _hash(folder: Path) -> str:
    """Return a hash of the files of a folder: of small ones all bytes, of weights size, first and last MiB."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            if size <= WHOLE:
                digest.update(file.read())
            else:
                digest.update(file.read(EDGE))
                file.seek(-EDGE, 2)
                digest.update(file.read())
    return digest.hexdigest()

"""Audio LLMs of transformers: which classes they have, where they lie, what fixes their weights."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import storage
from pipeline.errors import InputError
from pipeline.graph.captioner_name import HF, CaptionerName

if TYPE_CHECKING:
    import torch

FLAG = "--captioner"
WHOLE = 8 * 2**20  # bytes: of larger files, which hold weights, size, first and last MiB are hashed
EDGE = 2**20
THINKERS = {  # of models that speak, the part that writes
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
}


class HfModel(NamedTuple):
    """A model of transformers: a folder, or a name on the hub with its commit."""

    location: str
    commit: str | None  # None of a folder
    revision: str

    @property
    def captioner(self) -> str:
        """Return the name that `--captioner` comes to."""
        return HF + self.location + (f"@{self.commit}" if self.commit else "")


def find(captioner: str) -> HfModel:
    """Return where a model lies and what fixes its weights; of a name on the hub only config.json is fetched.

    Raises:
        InputError: when there is no model, or one that transformers does not load as an audio LLM.
    """
    location = CaptionerName.parse(captioner).model
    folder = Path(location)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(FLAG, captioner, "has no config.json: no model of transformers")
        found = HfModel(str(folder.resolve()), None, _hash(folder))
        config = folder / "config.json"
    else:
        config = _fetch_config(captioner, *location.partition("@")[::2])
        commit = config.parent.name
        found = HfModel(location.partition("@")[0], commit, commit)
    model_type = storage.read_json(str(config)).get("model_type", "")
    if not _auto_class(model_type):
        raise InputError(FLAG, captioner, f"is a {model_type or 'model without a type'}: no audio LLM of transformers")
    return found


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


def _fetch_config(captioner: str, name: str, commit: str) -> Path:
    """Return config.json of a model on the hub, from the cache where it is; its folder is named as the commit."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(name, "config.json", revision=commit or None))
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = f"no such folder, and the hub has no such model or cannot be reached ({first})"
        raise InputError(FLAG, captioner, remedy) from None


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

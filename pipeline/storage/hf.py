"""Models of transformers by name: where they lie, and their files.

hf:folder                       on this disk
hf:namespace/name[@commit]      on the Hugging Face hub; without a commit, that of its main branch now
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import InputError
from pipeline.storage.formats import read_json
from pipeline.storage.retrying import with_retries

PREFIX = "hf:"
CONFIG_FILE = "config.json"


class HfModel(NamedTuple):
    """A model that was found: a folder, or a name on the hub with its commit."""

    location: str  # absolute folder, or namespace/name
    commit: str | None  # None of a folder
    model_type: str  # the architecture that its config.json names, or ''
    classes: tuple[str, ...]  # those of transformers that wrote it, as config.json names them

    @property
    def name(self) -> str:
        """Return the name that fixes it: with the absolute folder, or with the commit."""
        return PREFIX + self.location + (f"@{self.commit}" if self.commit else "")


def is_name(text: str) -> bool:
    """Return whether a text names a model of transformers; hf:// begins a URI of the storage."""
    return text.startswith(PREFIX) and not text.startswith("hf://")


def title(name: str) -> str:
    """Return the last part of a name, without the commit."""
    return name.removeprefix(PREFIX).rstrip("/").rpartition("/")[2].partition("@")[0]


def find(name: str, flag: str) -> HfModel:
    """Return where a model lies; of a name on the hub only config.json is fetched.

    Raises:
        InputError: naming the flag, when there is no such model, or its config.json is damaged.
    """
    location = name.removeprefix(PREFIX)
    folder = Path(location).expanduser()
    if location and folder.is_dir():
        if not (folder / CONFIG_FILE).is_file():
            raise InputError(flag, name, "has no config.json: no model of transformers")
        return HfModel(str(folder.resolve()), None, *_described(folder / CONFIG_FILE, name, flag))
    repository, _, commit = location.partition("@")
    import huggingface_hub

    try:
        download = huggingface_hub.hf_hub_download
        config = Path(with_retries(download, repository, CONFIG_FILE, revision=commit or None))
    except (OSError, ValueError) as error:
        raise InputError(flag, name, _not_there(error)) from None
    return HfModel(repository, config.parent.name, *_described(config, name, flag))


def fetch(model: HfModel, patterns: Sequence[str], flag: str) -> Path:
    """Return a folder on this disk with the files of a model, those of the hub whose names fit one of the patterns.

    Raises:
        InputError: naming the flag, when the hub cannot be reached and the files are not in its cache.
    """
    if model.commit is None:
        return Path(model.location)
    import huggingface_hub

    try:
        download = huggingface_hub.snapshot_download
        return Path(with_retries(download, model.location, revision=model.commit, allow_patterns=[*patterns]))
    except (OSError, ValueError) as error:
        raise InputError(flag, model.name, _not_there(error)) from None


def _described(config: Path, name: str, flag: str) -> tuple[str, tuple[str, ...]]:
    try:
        content: Any = read_json(str(config))
    except (OSError, ValueError) as error:
        raise InputError(flag, name, f"its config.json cannot be read ({error})") from None
    content = content if isinstance(content, dict) else {}
    return str(content.get("model_type", "")), tuple(map(str, content.get("architectures") or ()))


def _not_there(error: Exception) -> str:
    from huggingface_hub.errors import RepositoryNotFoundError

    if isinstance(error.__cause__, RepositoryNotFoundError):  # of the StoreFault that `with_retries` makes of it
        remedy = "write namespace/name as the hub has it; for a private one run `hf auth login`, or set HF_TOKEN"
        return f"no such folder, and the hub has no such model; {remedy}"
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    remedy = "fetch it where there is a network, or give a folder"
    return f"no such folder, and the hub has no such model or cannot be reached ({first}); {remedy}"

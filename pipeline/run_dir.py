"""The output folder of a command. It belongs to one resolved config, which is stored in `run.json`."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pipeline import storage
from pipeline.errors import InputError
from pipeline.storage import hf

Config = TypeVar("Config")
RUN_FILE = "run.json"  # the resolved config of the command that an output folder belongs to
JOB_FOLDER = "working_dir_files"  # where Ray unpacks the code of a job
NOT_IDENTITY = {"identity": False}  # metadata of a field that may change between runs, as it does not change the result


def claim(
    out: str,
    config: Any,
    identity: Mapping[str, object] | None = None,
    flag: str = "--out",
) -> str:
    """Bind an output folder to one resolved config: the same command continues there, and another one is refused.

    The first command writes its config to `<out>/run.json`; of several at once exactly one does. A field that run.json
    lacks, because it was added later, counts as its default. Thus the default of a new field must be what was done before
    the field existed. A name in `identity` that run.json lacks counts as None.

    Args:
        out: folder or URI to write to.
        config: the stage's config dataclass. Fields with the metadata NOT_IDENTITY may change between runs.
        identity: what else decides the result, such as the revision of a model; None where there is no such thing.
        flag: the flag that chose the folder.

    Returns:
        The absolute folder.

    Raises:
        InputError: when `out` is empty or holds the work of another config; names the fields that differ.
    """
    folder = writable(out, flag)
    current = storage.plain({**dataclasses.asdict(config), **(identity or {}), "out": folder})
    marker = storage.join(folder, RUN_FILE)
    try:
        if not storage.exists(marker) and storage.create(marker, storage.json_bytes(current)):
            return folder
    except OSError as error:
        raise InputError(flag, out, f"cannot be written: {error}") from None
    stored = storage.read_json(marker)
    was, now = (_bound(each, config) for each in (with_defaults(stored, config), current))
    differing = {
        name: (was.get(name), value)
        for name, value in now.items()
        if name != "out" and was.get(name) != value  # a folder may be moved or copied
    }
    if differing:
        listed = "; ".join(f"{name} was {before!r}, now {value!r}" for name, (before, value) in differing.items())
        remedy = _remedy(stored, (before for before, _ in differing.values()))
        raise InputError(flag, out, f"holds the work of another config ({listed}); {remedy}")
    return folder


def _remedy(stored: Mapping[str, Any], before: Iterable[Any]) -> str:
    """Return what to do where some values of a config were others; where all are of a model of the hub, name its commit."""
    begun = [value for value in stored.values() if isinstance(value, str) and hf.is_name(value)]
    if all(any(value == name or name.endswith(f"@{value}") for name in begun) for value in before):
        return f"to go on with the commit of the hub that it began with, give {' and '.join(begun)}"
    return "choose another folder, or delete this one to start over"


def writable(out: str, flag: str = "--out") -> str:
    """Return the absolute folder or URI of an output. Raises InputError when it is empty or cannot be written to."""
    if not out:
        raise InputError(flag, out, "give the folder or URI to write to")
    folder = storage.resolve(out)
    if JOB_FOLDER in Path(folder).parts:
        remedy = "lies in the job's copy of the code, which goes with it: give an absolute path or a URI"
        raise InputError(flag, out, remedy)
    try:
        storage.check_writable(folder)
    except OSError as error:
        raise InputError(flag, out, str(error)) from None
    return folder


def restore(kind: type[Config], stored: Mapping[str, Any]) -> Config:
    """Rebuild a config dataclass from JSON.

    Args:
        kind: the dataclass; its fields may be dataclasses and tuples.
        stored: the JSON. A field that it lacks gets its default, as in `claim`. Names that are no fields are ignored.
    """
    stored = _with_current_names(kind, stored)
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.name in stored]  # type: ignore[arg-type]
    return kind(**{name: _value(hints[name], stored[name]) for name in names})


def _value(hint: Any, value: Any) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return restore(hint, value)
    if typing.get_origin(hint) is tuple:  # all tuples of configs are tuple[T, ...]
        return tuple(_value(typing.get_args(hint)[0], item) for item in value)
    return value


def _bound(plain: Any, config: Any) -> Any:
    """Return a plain config without the fields that may change between runs, wherever they are nested."""
    if not (dataclasses.is_dataclass(config) and isinstance(plain, dict)):
        return plain
    free = {field.name for field in dataclasses.fields(config) if not field.metadata.get("identity", True)}
    return {name: _bound(value, getattr(config, name, None)) for name, value in plain.items() if name not in free}


def with_defaults(stored: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Return a stored config, plain, with the default of every field of the dataclass `config` that it lacks."""
    complete, defaults = _with_current_names(type(config), stored), storage.plain(dataclasses.asdict(type(config)()))
    for name, default in defaults.items():
        value = getattr(config, name)
        if name not in complete:
            complete[name] = default
        elif dataclasses.is_dataclass(value) and isinstance(complete[name], dict):
            complete[name] = with_defaults(complete[name], value)
    return complete


def _with_current_names(kind: Any, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config under the current names of its fields; `metadata={"was": ...}` holds the old name."""
    renamed = {field.metadata["was"]: field.name for field in dataclasses.fields(kind) if "was" in field.metadata}
    return {renamed.get(name, name): value for name, value in stored.items()}

"""The output folder of a command: claimed for one resolved config, which `run.json` holds and from which it is rebuilt."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pipeline import storage
from pipeline.errors import InputError

Config = TypeVar("Config")
JOB_FOLDER = "working_dir_files"  # where Ray unpacks the code of a job
RUN_FILE = "run.json"  # the resolved config of the command that owns an output folder


def claim(
    out: str,
    config: Any,
    identity: Mapping[str, object] | None = None,
    ignore: Sequence[str] = (),
    flag: str = "--out",
) -> str:
    """Take an output folder for one resolved config, so that the same command continues and another one is refused.

    The first command writes its config to `<out>/run.json`; of several at once exactly one does. A field that run.json
    lacks, because it was added since, counts as its default: what a new field does by default must be what was done
    before there was the field. A name in `identity` that run.json lacks counts as None.

    Args:
        out: folder or URI to write to.
        config: the stage's config dataclass.
        identity: what else decides the result, such as the revision of a model; None where there is no such thing.
        ignore: fields that may change between runs because they do not change the result, such as a worker count.
        flag: the flag that chose the folder.

    Returns:
        The absolute folder.

    Raises:
        InputError: when `out` is empty or holds the work of another config; names the fields that differ.
    """
    folder = writable(out, flag)
    wanted = storage.plain({**dataclasses.asdict(config), **(identity or {}), "out": folder})
    marker = storage.join(folder, RUN_FILE)
    try:
        if not storage.exists(marker) and storage.create(marker, storage.json_bytes(wanted)):
            return folder
    except OSError as error:
        raise InputError(flag, out, f"cannot be written: {error}") from None
    held = _with_defaults(storage.read_json(marker), config)
    free = {*ignore, "out"}  # a folder may be moved or copied
    differing = [f"{k} was {held.get(k)!r}, now {v!r}" for k, v in wanted.items() if k not in free and held.get(k) != v]
    if differing:
        remedy = "choose another folder, or delete this one to start over"
        raise InputError(flag, out, f"holds the work of another config ({'; '.join(differing)}); {remedy}")
    return folder


def writable(out: str, flag: str = "--out") -> str:
    """Return the absolute folder or URI of an output. Raises InputError when it is empty or in no store to write to."""
    if not out:
        raise InputError(flag, out, "give the folder or URI to write to")
    folder = storage.resolve(out)
    if JOB_FOLDER in Path(folder).parts:
        raise InputError(
            flag, out, "lies in the job's copy of the code, which goes with it: give an absolute path or a URI"
        )
    try:
        storage.check_writable(folder)
    except OSError as error:
        raise InputError(flag, out, str(error)) from None
    return folder


def restore(kind: type[Config], held: Mapping[str, Any]) -> Config:
    """Rebuild a config dataclass from JSON.

    Args:
        kind: the dataclass; its fields may be dataclasses and tuples.
        held: the JSON. A field that it lacks, because the field was added since, gets its default: what a new field
            does by default is what was done before there was the field. What is no field is ignored.
    """
    held = _with_current_names(kind, held)
    hints = typing.get_type_hints(kind)
    names = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: _value(hints[name], held[name]) for name in names if name in held})


def _value(hint: Any, value: Any) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return restore(hint, value)
    if typing.get_origin(hint) is tuple:  # all tuples of configs are of one type, and of any length
        return tuple(_value(typing.get_args(hint)[0], item) for item in value)
    return value


def _with_defaults(held: dict[str, Any], config: Any) -> dict[str, Any]:
    """Return a config that JSON holds with the default of every field of `config` that it lacks."""
    complete, defaults = _with_current_names(type(config), held), storage.plain(dataclasses.asdict(type(config)()))
    for name, default in defaults.items():
        value = getattr(config, name)
        if name not in complete:
            complete[name] = default
        elif dataclasses.is_dataclass(value) and isinstance(complete[name], dict):
            complete[name] = _with_defaults(complete[name], value)
    return complete


def _with_current_names(kind: Any, held: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON holds under the names that fields of a dataclass have now; `metadata={"was": ...}` is the old one."""
    renamed = {each.metadata["was"]: each.name for each in dataclasses.fields(kind) if "was" in each.metadata}
    return {renamed.get(name, name): value for name, value in held.items()}

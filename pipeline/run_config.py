"""The config of a stage, rebuilt from the run.json of its output folder."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")


def restore(kind: type[Config], held: Mapping[str, Any]) -> Config:
    """Rebuild a config dataclass from JSON.

    Args:
        kind: the dataclass; its fields may be dataclasses and tuples.
        held: the JSON. A field that it lacks, because the field was added since, gets its default: what a new field
            does by default is what was done before there was the field. What is no field is ignored.
    """
    hints = typing.get_type_hints(kind)
    names = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: _value(hints[name], held[name]) for name in names if name in held})


def _value(hint: Any, value: Any) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return restore(hint, value)
    if typing.get_origin(hint) is tuple:  # all tuples of configs are of one type, and of any length
        return tuple(_value(typing.get_args(hint)[0], item) for item in value)
    return value

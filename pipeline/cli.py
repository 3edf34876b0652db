"""The command line contract of all three rooms: `python -m <room> <stage> <config> [--field value]`.

A stage is a module with `run(config)`; its named configs are values of one dataclass. Exit codes: 0 published, 1 the job
failed, 2 the command was wrong, 130 interrupted (the same command continues).
"""

import dataclasses
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from pipeline import harmless, storage

ONLY = ""  # name of the config of a stage that has just one: it is not typed
JOB_FOLDER = "working_dir_files"  # where Ray unpacks the code of a job
RUN_FILE = "run.json"  # the resolved config of the command that owns an output folder


class InputError(Exception):
    """Wrong or missing input: names the flag, its value and the remedy. Ends the command with exit code 2."""

    def __init__(self, flag: str, value: object, remedy: str) -> None:
        super().__init__(flag, value, remedy)  # all in args: an exception from a worker is rebuilt from them

    def __str__(self) -> str:
        flag, value, remedy = self.args
        return f"{flag} {value!r}: {remedy}" if value not in ("", (), None) else f"{flag} is missing: {remedy}"


class JobError(Exception):
    """The job ran and cannot publish a good result. Ends the command with exit code 1."""


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


def _with_defaults(held: dict[str, Any], config: Any) -> dict[str, Any]:
    """Return a config that JSON holds with the default of every field of `config` that it lacks."""
    complete, defaults = dict(held), storage.plain(dataclasses.asdict(type(config)()))
    for name, default in defaults.items():
        value = getattr(config, name)
        if name not in held:
            complete[name] = default
        elif dataclasses.is_dataclass(value) and isinstance(held[name], dict):
            complete[name] = _with_defaults(held[name], value)
    return complete


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


def check_template(flag: str, template: str) -> None:
    """Raise InputError when a text has no {} to fill, or anything else in braces."""
    try:
        filled = template.format("x") != template
    except (KeyError, IndexError, ValueError):
        filled = False
    if not filled:
        raise InputError(flag, template, "write {} where the label belongs, and no other braces")


class Stage(NamedTuple):
    """One word of a room's vocabulary."""

    module: str  # imported only when the stage is called, so that --help stays quick
    summary: str
    configs: Mapping[str, tuple[str, Any]]  # name -> (one-line description, config); or ONLY -> the one there is


def main(room: str, summary: str, stages: Mapping[str, Stage], argv: Sequence[str] | None = None) -> int:
    """Parse `<stage> [config] [--field value]`, run the stage and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help(room, summary, stages))
        return 0 if words else 2
    name, rest = words[0], words[1:]
    if name not in stages:
        print(f"{room}: no stage {name!r}; choose one of: {', '.join(stages)}", file=sys.stderr)
        return 2
    config = parse(room, name, stages[name], rest)
    _quiet()
    try:
        importlib.import_module(stages[name].module).run(config)
    except InputError as error:
        print(f"{room} {name}: {error}", file=sys.stderr)
        return 2
    except JobError as error:
        print(f"{room} {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{room} {name}: interrupted; the same command continues from here", file=sys.stderr)
        return 130
    return 0


def parse(room: str, name: str, stage: Stage, words: Sequence[str]) -> Any:
    """Return the config that `<config> [--field value]` names; a word that is no config or flag ends with exit code 2."""
    how: dict[str, Any] = {
        "args": list(words),
        "prog": f"python -m {room} {name}",
        "description": stage.summary,
        "config": (tyro.conf.AvoidSubcommands,),  # the named config decides between kinds of encoder
    }
    if list(stage.configs) == [ONLY]:
        only = stage.configs[ONLY][1]
        return tyro.cli(type(only), default=only, **how)
    return tyro.extras.overridable_config_cli(dict(stage.configs), **how)


def _help(room: str, summary: str, stages: Mapping[str, Stage]) -> str:
    lines = [f"usage: python -m {room} <stage> <config> [--field value]", "", summary, "", "stages:"]
    for name, stage in stages.items():
        configs = f" Configs: {', '.join(stage.configs)}." if ONLY not in stage.configs else ""
        lines.append(f"  {name:<14}{stage.summary}{configs}")
    return "\n".join([*lines, "", f"python -m {room} <stage> <config> --help lists the fields with their units."])


def _quiet() -> None:
    """Let our own plain-word log lines through and silence the engines' chatter, unless RAY_* variables ask for it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    for engine in ("ray", "ray.data", "ray.train", "botocore", "httpx"):
        logging.getLogger(engine).setLevel(logging.WARNING)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault(harmless.SKIP_VARIABLE, f"{harmless.RESTARTS}|{harmless.CLEANER}")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\..*")

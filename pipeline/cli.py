"""The command line contract of all three rooms: `python -m <room> <stage> <config> [--field value]`.

A stage is a module with `run(config)`; its named configs are values of one dataclass. Exit codes: 0 published, 1 the job
failed, 2 the command was wrong, 130 interrupted (the same command continues).
"""

import dataclasses
import importlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tyro

from pipeline import ray_noise
from pipeline.errors import InputError, JobError

ONLY = ""  # name of the config of a stage that has just one: it is not typed


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
    example = next(iter(stage.configs.values()))[1]
    how: dict[str, Any] = {
        "args": _with_current_flags(f"{room} {name}", example, words),
        "prog": f"python -m {room} {name}",
        "description": stage.summary,
        "config": (tyro.conf.AvoidSubcommands,),  # the named config decides between kinds of encoder
    }
    if list(stage.configs) == [ONLY]:
        only = stage.configs[ONLY][1]
        return tyro.cli(type(only), default=only, **how)
    return tyro.extras.overridable_config_cli(dict(stage.configs), **how)


def _with_current_flags(command: str, config: Any, words: Sequence[str]) -> list[str]:
    """Return the words with the new flags of renamed fields; `metadata={"was": ...}` of a field names the old one."""
    renamed = {each.metadata["was"]: each.name for each in dataclasses.fields(config) if "was" in each.metadata}
    flags = {f"--{old}": f"--{new}".replace("_", "-") for old, new in renamed.items()}
    current = []
    for word in words:
        flag = re.split("[.=]", word, maxsplit=1)[0]
        if flag in flags:
            print(
                f"{command}: {flag} is now {flags[flag]}; the old flag will be gone in the next release",
                file=sys.stderr,
            )
            word = flags[flag] + word.removeprefix(flag)
        current.append(word)
    return current


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
    os.environ.setdefault(ray_noise.SKIP_VARIABLE, f"{ray_noise.RESTARTS}|{ray_noise.CLEANER}")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\..*")

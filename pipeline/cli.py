"""The command line of pipeline, train and eval: `python -m <package> <stage> <config> [--field value]`.

A stage is a module with a function `run(config)`. Its named configs are values of one dataclass, and every field of that
dataclass is a flag. Exit codes: 0 the result is published, 1 the job failed, 2 the command is wrong, 130 interrupted (the
same command continues).
"""

import dataclasses
import functools
import importlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tyro

from pipeline import ray_noise, seeds
from pipeline.errors import InputError, JobError

log = logging.getLogger(__name__)
ONLY = ""  # name of the config of a stage that has just one: the command leaves it out
QUIET_LOGGERS = ("ray", "ray.data", "ray.train", "botocore", "httpx")
QUIET_VARIABLES = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "TOKENIZERS_PARALLELISM": "false",
    ray_noise.SKIP_VARIABLE: f"{ray_noise.RESTARTS}|{ray_noise.CLEANER}",
}


class Stage(NamedTuple):
    """One command of a package."""

    module: str  # imported only when the stage runs, so that --help is quick
    summary: str
    configs: Mapping[str, tuple[str, Any]]  # name -> (one-line description, config dataclass); ONLY -> the single one
    no_seeds: str = ""  # of a stage that takes no --seeds: what to do instead


def main(
    package: str,
    summary: str,
    stages: Mapping[str, Stage],
    argv: Sequence[str] | None = None,
    former_names: Mapping[str, str] | None = None,
) -> int:
    """Parse `<stage> [config] [--field value]`, run the stage and return the exit code. Former names of stages work on."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(package, summary, stages))
        return 0 if arguments else 2
    name = arguments.pop(0)
    if current := (former_names or {}).get(name):
        print(f"{package} {name}: this stage is now named {current}", file=sys.stderr)
        name = current
    if name not in stages:
        print(f"{package}: no stage {name!r}; choose one of: {', '.join(stages)}", file=sys.stderr)
        return 2
    stage, command = stages[name], f"{package} {name}"
    try:
        runs = parse_runs(package, name, stage, arguments)
    except InputError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 2
    _configure_logging()
    return next((code for run in runs if (code := _run(command, stage, run))), 0)


def _run(command: str, stage: Stage, run: seeds.Run) -> int:
    """Run a stage on one config and return the exit code. Of several runs, each is named before its lines of the log."""
    if run.name:
        command = f"{command}: {run.name}"
        log.info("%s", command)
    try:
        importlib.import_module(stage.module).run(run.config)
    except InputError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 2
    except JobError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{command}: interrupted; the same command continues from here", file=sys.stderr)
        return 130
    return 0


def parse_runs(package: str, name: str, stage: Stage, arguments: Sequence[str]) -> list[seeds.Run]:
    """Return the runs that `<config> [--seeds N] [--field value]` describes. Ends as `parse` does, and as `seeds.runs`."""
    return seeds.runs(arguments, functools.partial(parse, package, name, stage), stage.no_seeds)


def parse(package: str, name: str, stage: Stage, arguments: Sequence[str]) -> Any:
    """Return the config that `<config> [--field value]` describes.

    Raises:
        InputError: when the config is missing or unknown.
        SystemExit: with code 2 for an unknown flag or a wrong value, with 0 for --help.
    """
    _check_config(stage, arguments)
    example, seeds_help = next(iter(stage.configs.values()))[1], "" if stage.no_seeds else f" {seeds.HELP}"
    options: dict[str, Any] = {
        "args": _with_current_flags(f"{package} {name}", example, arguments),
        "prog": f"python -m {package} {name}",
        "description": stage.summary + seeds_help,
        "config": (tyro.conf.AvoidSubcommands,),  # a named config fixes the type of a field that is a union
    }
    if list(stage.configs) == [ONLY]:
        config = stage.configs[ONLY][1]
        return tyro.cli(type(config), default=config, **options)
    described = {
        config: (f"{summary}.{seeds_help}" if [config] == list(arguments[:1]) else summary, value)
        for config, (summary, value) in stage.configs.items()
    }
    return tyro.extras.overridable_config_cli(described, **options)


def _check_config(stage: Stage, arguments: Sequence[str]) -> None:
    """Raise InputError unless the first argument names a config, where a stage has several, or asks for help."""
    first = arguments[0] if arguments else ""
    if ONLY in stage.configs or first in (*stage.configs, "-h", "--help"):
        return
    given = "" if first.startswith("-") else first
    raise InputError("the config", given, f"write one of {', '.join(stage.configs)} after the stage")


def _with_current_flags(command: str, config: Any, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the current flags of renamed fields; `metadata={"was": ...}` holds the old name."""
    renamed = {field.metadata["was"]: field.name for field in dataclasses.fields(config) if "was" in field.metadata}
    flags = {f"--{old}".replace("_", "-"): f"--{new}".replace("_", "-") for old, new in renamed.items()}
    current = []
    for argument in arguments:
        flag = re.split("[.=]", argument, maxsplit=1)[0]
        if flag in flags:
            print(
                f"{command}: {flag} is now {flags[flag]}; the next release drops the old flag",
                file=sys.stderr,
            )
            argument = flags[flag] + argument.removeprefix(flag)
        current.append(argument)
    return current


def check_template(flag: str, template: str) -> None:
    """Raise InputError when a text has no {} to fill, or anything else in braces."""
    try:
        has_slot = template.format("x") != template
    except (KeyError, IndexError, ValueError):
        has_slot = False
    if not has_slot:
        raise InputError(flag, template, "write {} where the label belongs, and no other braces")


def _help(package: str, summary: str, stages: Mapping[str, Stage]) -> str:
    lines = [f"usage: python -m {package} <stage> <config> [--field value]", "", summary, "", "stages:"]
    width = max(map(len, stages)) + 2
    for name, stage in stages.items():
        configs = f" Configs: {', '.join(stage.configs)}." if ONLY not in stage.configs else ""
        lines.append(f"  {name:<{width}}{stage.summary}{configs}")
    return "\n".join([*lines, "", f"python -m {package} <stage> <config> --help lists the fields with their units."])


def _configure_logging() -> None:
    """Show our log lines, and of Ray and the HTTP clients only warnings. Variables of the environment take precedence."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name, value in QUIET_VARIABLES.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\..*")

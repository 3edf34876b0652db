"""Several runs of one command: `--seeds N` runs a stage for seed 0 to N-1, one after the other, in one process.

    python -m train pretrain demo --seeds 3 --data d/guided/seed{seed} --out d/models/guided

writes d/models/guided/seed0 to seed2. The number takes the place of {seed} in every argument; an --out without {seed} gets
/seed<n> at its end; and the seed of the config (`seed`, `optim.seed` or `recipe.optim.seed`), where it has one, is set.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pipeline.errors import InputError

FLAG, OUT, SLOT = "--seeds", "--out", "{seed}"
FIELDS = ("seed", "optim.seed", "recipe.optim.seed")  # of configs, where one of these decides what is drawn
HELP = f"{FLAG} N runs it for seed 0 to N-1; {SLOT} in an argument becomes the number, {OUT} gets /seed<n>."


class Run(NamedTuple):
    """One run of a command."""

    name: str  # "seed 2 of 0 to 4"; "" where the command has no --seeds
    config: Any


def runs(arguments: Sequence[str], parse: Callable[[Sequence[str]], Any], refusal: str = "") -> list[Run]:
    """Return the runs of a command, all parsed before the first one starts.

    Args:
        arguments: what follows the stage on the command line.
        parse: arguments -> config.
        refusal: of a stage that takes no --seeds, what to do instead; "" where it takes them.

    Raises:
        InputError: when --seeds is no number of runs, is given beside a seed, is not for this stage, or makes runs that
            are all the same; when {seed} is in an argument without it.
    """
    value, template = _take(arguments)
    _check(value, template, refusal)
    if value is None:
        return [Run("", parse(template))]
    count, out = int(value), _out(template)
    varies = any(SLOT in argument for index, argument in enumerate(template) if index != out)
    if out is not None and SLOT not in template[out] and template[out] not in ("", f"{OUT}="):
        template[out] = f"{template[out].rstrip('/')}/seed{SLOT}"
    found = []
    for seed in range(count):
        config = parse([argument.replace(SLOT, str(seed)) for argument in template])
        field = next((name for name in FIELDS if _has(config, name)), "")
        if not (field or varies):
            raise InputError(FLAG, value, f"every run would be the same; write {SLOT} in an argument, such as --model")
        found.append(Run(f"seed {seed} of 0 to {count - 1}", _replace(config, field, seed) if field else config))
    return found


def _check(value: str | None, template: Sequence[str], refusal: str) -> None:
    """Raise InputError for what is wrong with the value of --seeds, None where it is absent, or with {seed}."""
    if value is None:
        for index, argument in enumerate(template):
            if SLOT in argument:
                flag = next((each for each in template[index::-1] if each.startswith("--")), "the config")
                remedy = refusal or f"add {FLAG} N, which puts 0 to N-1 in the place of {SLOT}"
                raise InputError(flag.partition("=")[0], argument.removeprefix(f"{flag.partition('=')[0]}="), remedy)
        return
    if refusal:
        raise InputError(FLAG, value, refusal)
    if not value.isdecimal() or int(value) < 1:
        raise InputError(FLAG, value, "give the number of runs, 1 or more")
    for flag in (argument.partition("=")[0] for argument in template if argument.startswith("--")):
        if flag.removeprefix("--") in FIELDS:
            raise InputError(FLAG, value, f"sets the seed of every run; leave out {flag}, or leave out {FLAG}")


def _take(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the value of --seeds, None where it is absent, and the other arguments."""
    value, others, rest = None, [], list(arguments)
    while rest:
        flag, equals, given = (argument := rest.pop(0)).partition("=")
        if flag != FLAG:
            others.append(argument)
        else:
            value = given if equals or not rest else rest.pop(0)
    return value, others


def _out(arguments: Sequence[str]) -> int | None:
    """Return the index of the argument that holds the value of --out, None where there is none."""
    for index, argument in enumerate(arguments):
        if argument.startswith(f"{OUT}="):
            return index
        if argument == OUT and index + 1 < len(arguments):
            return index + 1
    return None


def _has(config: Any, path: str) -> bool:
    name, _, rest = path.partition(".")
    if not dataclasses.is_dataclass(config) or not hasattr(config, name):
        return False
    return not rest or _has(getattr(config, name), rest)


def _replace(config: Any, path: str, value: int) -> Any:
    name, _, rest = path.partition(".")
    return dataclasses.replace(config, **{name: _replace(getattr(config, name), rest, value) if rest else value})

"""What no linter checks of this repository: `python -m tests.check_words`, a part of `make check`.

Lists each line that breaks one of three rules, and exits with code 1 when there is one:

    Python files lie in the packages that the import contracts of pyproject.toml cover, in tests/ or in cluster/.
    Lines of Markdown have at most 120 characters.
    Python files have no word of WORDS: names are nouns for values, and programs do not speak, listen or own. A word
    that begins a string may stay: it is the name of a field in a file.

Other exceptions are not needed. What is right English can be written in another way: "some 40 s", "a siren is heard".
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OTHER_FOLDERS = ("tests", "cluster")
MAX_COLUMNS = 120
WORDS = re.compile(r"(?<![\"'])\b(told|(?<!is )(?<!are )(?<!be )heard|owner|about|hears|tells)\b")
SPEECH = re.compile(r"(?i)\b(told|tells?|hears?|heard)\b")  # not in READMEs either
OWN_FILES = ("tests/check_words.py", "tests/test_check_words.py")  # they spell the words


def problems(root: Path, files: list[str], packages: list[str]) -> Iterator[str]:
    """Yield `<file>:<line>: <problem>` for everything that breaks a rule.

    Args:
        root: of the repository.
        files: paths to check, relative to it.
        packages: the packages that import contracts cover.
    """
    for file in files:
        if file.endswith(".py"):
            if file.partition("/")[0] not in (*packages, *OTHER_FOLDERS):
                yield f"{file}:1: no import contract covers a Python file here"
            if file not in OWN_FILES:
                yield from _words(file, (root / file).read_text())
        elif file.endswith(".md"):
            for number, line in enumerate((root / file).read_text().splitlines(), start=1):
                if len(line) > MAX_COLUMNS:
                    yield f"{file}:{number}: {len(line)} characters, at most {MAX_COLUMNS}"


def _words(file: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if found := WORDS.search(line):
            yield f"{file}:{number}: {found[1]!r}: {line.strip()}"


def main() -> int:
    """Check all files that are tracked by git or could be added; return the exit code."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    found = list(problems(ROOT, [file for file in listed if (ROOT / file).exists()], contracts["root_packages"]))
    print("\n".join(found) or "check_words: nothing to change")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

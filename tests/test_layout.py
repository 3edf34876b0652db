"""The tree: packages resolve to this checkout, files stay small, imports stay light. `make check` has the contracts."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [path for package in ("pipeline", "train", "eval", "tests") for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("package", ["pipeline", "train", "eval"])
def test_packages_resolve_here(package: str) -> None:
    assert Path(str(importlib.import_module(package).__file__)).parent == ROOT / package


def test_files_and_functions_stay_small() -> None:
    large = []
    for path in FILES:
        text = path.read_text()
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        large += [f"{path}: {node.name}" for node in functions if (node.end_lineno or 0) - node.lineno >= 80]
        large += [str(path)] if len(text.splitlines()) > 300 else []
    assert not large


def test_stage_modules_are_never_main() -> None:
    mains = [path for path in FILES if 'if __name__ == "__main__"' in path.read_text() and "tests" not in path.parts]
    assert {path.name for path in mains} == {"__main__.py"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("pipeline.configs", "torch"),  # CPU tasks and `--help` start without it
        ("train.checkpoint", "torch"),  # the driver of a job describes a checkpoint and loads none
        ("train.checkpoint.format", "torch._dynamo"),  # three seconds in every stage and every actor
        ("train.checkpoint.format", "transformers"),  # a captioner never needs it
    ],
)
def test_imports_stay_light(module: str, heavy: str) -> None:
    program = f"import sys, {module}; assert {heavy!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)

"""The tree: packages resolve to this checkout, import only what they need, and files stay small."""

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


def test_import_contracts_hold() -> None:
    done = subprocess.run(["lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, node.name


def test_stage_modules_are_never_main() -> None:
    mains = [path for path in FILES if 'if __name__ == "__main__"' in path.read_text() and "tests" not in path.parts]
    assert {path.name for path in mains} == {"__main__.py"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("pipeline.configs", "torch"),  # CPU tasks and `--help` start without it
        ("train.checkpoint.format", "torch._dynamo"),  # three seconds in every stage and every actor
        ("train.checkpoint.format", "transformers"),  # a captioner never needs it
    ],
)
def test_imports_stay_light(module: str, heavy: str) -> None:
    program = f"import sys, {module}; assert {heavy!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)

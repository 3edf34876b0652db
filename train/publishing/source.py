"""The code that travels with published weights: the network's own modules, as flat files.

transformers runs code that lies beside the weights only as files of one folder that import one another relatively. Instead
of a second network written for it, the files are those of this repository: beginning with the three of train/publishing/
remote/, imports of ours are followed, and rewritten from `train.models.encoders.cnn14` to `.encoders_cnn14`. Nothing but
the lines of these imports changes, so that the published network is the tested one.
"""

import ast
import importlib.util
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

ROOMS = ("train", "pipeline")  # packages whose modules travel
ENTRIES = tuple(f"train.publishing.remote.{name}_blat" for name in ("configuration", "modeling", "processing"))
PREFIXES = ("train.publishing.remote.", "train.models.")  # left out of the names of files
HEAD = "# Published with its weights by blat-ray {version} (Apache-2.0); the source is {path}.\n"


def files() -> dict[str, str]:
    """Return the text of each file by its name.

    Raises:
        ValueError: when a module imports one of ours in a way that flat files cannot; names the line.
    """
    found: dict[str, str] = {}
    waiting = list(ENTRIES)
    while waiting:
        module = waiting.pop()
        name = f"{_flat(module)}.py"
        if name not in found:
            found[name], imported = _rewritten(module)
            waiting += imported
    return dict(sorted(found.items()))


def _rewritten(module: str) -> tuple[str, list[str]]:
    """Return the text of a module with relative imports, and the modules of ours that it imports."""
    path = _path(module)
    assert path is not None, module
    lines = path.read_text().splitlines(keepends=True)
    imported: list[str] = []
    for node in _imports(ast.parse("".join(lines)), module):
        statements, modules = _relative(node)
        indent = " " * node.col_offset
        first, last = node.lineno - 1, node.end_lineno or node.lineno
        lines[first:last] = ["".join(f"{indent}{each}\n" for each in statements), *[""] * (last - first - 1)]
        imported += modules
    head = HEAD.format(version=version("blat-ray"), path=f"{module.replace('.', '/')}.py")
    return head + "".join(lines), imported


def _imports(tree: ast.Module, module: str) -> Iterator[ast.ImportFrom]:
    """Yield the imports of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] in ROOMS):
            if node.level:
                raise ValueError(f"{module}, line {node.lineno}: a relative import; write the whole name")
            yield node
        elif isinstance(node, ast.Import) and any(alias.name.split(".")[0] in ROOMS for alias in node.names):
            raise ValueError(f"{module}, line {node.lineno}: `import` of ours; write `from ... import ...`")


def _relative(node: ast.ImportFrom) -> tuple[list[str], list[str]]:
    """Return the relative statements that an import becomes, and the modules that they need."""
    source = str(node.module)
    if _path(source) is not None:
        names = ", ".join(ast.unparse(alias) for alias in node.names)
        return [f"from .{_flat(source)} import {names}"], [source]
    statements, modules = [], []
    for alias in node.names:
        module = f"{source}.{alias.name}"
        if _path(module) is None:
            raise ValueError(f"line {node.lineno}: {alias.name} is no module of the package {source}")
        # transformers finds the files to copy by statements like the first, which `from . import x` is not.
        statements.append(f"from .{_flat(module)} import __name__ as _")
        statements.append(f"from . import {_flat(module)} as {alias.asname or alias.name}")
        modules.append(module)
    return statements, modules


def _path(module: str) -> Path | None:
    """Return the file of a module of ours, None of a package and of what is no module."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.submodule_search_locations is not None or not spec.origin:
        return None
    return Path(spec.origin)


def _flat(module: str) -> str:
    """Return the name of the file that a module becomes, without its ending."""
    for prefix in PREFIXES:
        module = module.removeprefix(prefix)
    return module.replace(".", "_")

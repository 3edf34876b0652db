"""What a figure depends on beside the code: the machine, the versions, the commit."""

import platform
import re
import subprocess
import textwrap
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import soundfile
import torch

from tests.bench.ratio import CORES

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "ray", "pyarrow", "lancedb", "webdataset", "transformers", "soundfile")


def describe(command: str) -> str:
    """Return the Markdown lines that head a dated section; `command` is how to measure again."""
    memory_gb = int(re.findall(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())[0]) / 2**20
    models = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    machine = f"{CORES} cores of {models[0] if models else platform.machine()}, {memory_gb:.0f} GiB"
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    versions.append(f"libsndfile {soundfile.__libsndfile_version__}")
    items = [f"{machine}, GPU: {_gpu()}", f"commit {_commit()}; `{command}`", ", ".join(versions)]
    bullets = [textwrap.fill(f"- {item}", 120, subsequent_indent="  ", break_on_hyphens=False) for item in items]
    lines = [f"### `make bench`, {datetime.now(UTC):%Y-%m-%d}", "", *bullets, ""]
    return "\n".join(lines)


def _gpu() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def _commit() -> str:
    """Return the short hash, and whether files differ from it."""
    head = _git("rev-parse", "--short", "HEAD")
    return f"{head} and changes that are not committed" if _git("status", "--porcelain") else head


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    return done.stdout.strip() or ("unknown" if done.returncode else "")

"""Programs of others: processes that cannot import this repository, in a folder elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

BAN = """
import sys

class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("train", "pipeline", "eval", "tests"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Ban())
"""


def run_alone(program: str, folder: Path, *arguments: str, **variables: str) -> str:
    """Run a program in a folder without this repository; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache"), "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", BAN + program, *arguments],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout

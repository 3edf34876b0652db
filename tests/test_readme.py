"""The README tells the truth: its demo is the script, its commands parse, its tree is the tree."""

import re
import shlex
from pathlib import Path

import pytest

import eval.__main__ as eval_room
import pipeline.__main__ as pipeline_room
import train.__main__ as train_room
from pipeline import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DEMO = (ROOT / "cluster" / "demo.sh").read_text()
ROOMS = {"pipeline": pipeline_room.STAGES, "train": train_room.STAGES, "eval": eval_room.STAGES}
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
LINES = [line.strip() for block in [*BLOCKS, DEMO] for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = sorted(
    {
        re.split(r"python -m |cluster/submit.sh ", line)[1]
        for line in LINES
        if re.match(r"(python -m|cluster/submit)", line)
    }
)


def test_the_demo_in_the_readme_is_the_script() -> None:
    block = README.split("<!-- demo -->\n```bash\n")[1].split("```")[0]
    assert block in DEMO
    assert "python -m" not in DEMO.replace(block, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command: str) -> None:
    room, stage, *words = shlex.split(command, comments=True)
    if room.endswith(".sh"):
        assert (ROOT / room).exists()
        return
    assert cli.parse(room, stage, ROOMS[room][stage], words) is not None


def test_every_stage_and_file_is_named() -> None:
    for stages in ROOMS.values():
        assert all(f"`{stage}`" in README for stage in stages)
    tree = README.split("## Architecture")[1].split("Decisions worth knowing")[0]
    for path in (p for room in ROOMS for p in (ROOT / room).rglob("*.py")):
        assert path.name in tree or path.stem in tree or path.name == "__init__.py", path


def test_nothing_is_left_to_fill_in() -> None:
    for name in ("README.md", "BENCHMARKS.md"):
        assert not re.findall(r"^(?:RESULTS_\w+|BENCH)$", (ROOT / name).read_text(), flags=re.MULTILINE)


def test_every_reason_is_explained() -> None:
    from pipeline.audio import REASONS

    assert all(f"`{reason}`" in README for reason in REASONS)

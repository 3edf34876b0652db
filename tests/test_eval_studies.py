"""The studies: their scripts are sound, their commands exist at every size, and they run, end and continue."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import eval.__main__ as eval_room
import pipeline.__main__ as pipeline_room
import train.__main__ as train_room
from pipeline import cli, seeds
from tests.support import sounds50

SCRIPTS = sorted(path for path in Path("eval/studies").glob("*.sh"))
STUDIES = [path for path in SCRIPTS if path.stem != "common"]
ROOMS = {"pipeline": pipeline_room, "train": train_room, "eval": eval_room}
GIVEN = ("SOURCE", "CAPTIONED", "ENCODER", "TASK_DIR", "LISTS", "REAL", "REAL_TRAIN", "REAL_TEST")
FULL = {name: f"/data/{name.lower()}" for name in GIVEN}


def environment(**variables: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {name: value for name, value in os.environ.items() if name not in FULL} | {"PATH": path, **variables}


def commands(script: Path, tmp_path: Path, *flags: str, **variables: str) -> list[list[str]]:
    """Return the arguments of every `python` that a study would run; nothing in it depends on what they do."""
    listing, recorder = tmp_path / "commands", tmp_path / "python"
    listing.write_text("")
    recorder.write_text(f'#!/usr/bin/env bash\nprintf "%q " "$@" >>{listing}\necho >>{listing}\n')
    recorder.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run([str(script), *flags], check=True, env=environment(**variables) | {"PATH": path})
    return [shlex.split(line) for line in listing.read_text().splitlines()]


def test_scripts_pass_shellcheck() -> None:
    assert len(STUDIES) >= 6
    subprocess.run(["shellcheck", "-x", *map(str, SCRIPTS)], check=True)


@pytest.mark.parametrize("size", ["small", "tiny", "full"])
@pytest.mark.parametrize("script", STUDIES, ids=lambda path: path.stem)
def test_every_command_of_a_study_exists_and_ends_in_a_report(script: Path, size: str, tmp_path: Path) -> None:
    given = {"tiny": {}, "small": {name: FULL[name] for name in ("REAL_TRAIN", "REAL_TEST", "ENCODER")}, "full": FULL}
    found = commands(script, tmp_path, "--size", size, "--seeds", "2", "--out", "s3://b/studies/x", **given[size])
    for module, room, name, *arguments in found:
        assert module == "-m"
        stage = ROOMS[room].STAGES[name]
        runs = seeds.runs(arguments, lambda each, r=room, n=name, s=stage: cli.parse(r, n, s, each), stage.no_seeds)  # type: ignore[misc]
        assert len(runs) in (1, 2)
    assert found[-1][1:3] == ["eval", "report"]
    outs = [(argv[1], argv[argv.index("--out") + 1]) for argv in found if "--out" in argv]
    made = [out for room, out in outs if room != "eval"]  # evaluations of a model share a folder
    assert len(set(made)) == len(made), "two commands write to one folder"
    assert all(out.startswith("s3://b/studies/") for _, out in outs)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--size", "huge"], "--size 'huge': use small, tiny or full"),
        (["--seeds", "none"], "--seeds 'none': give the number of runs"),
        (["--sizes", "tiny"], "--sizes: no such flag"),
        (["--out"], "--out is missing its value"),
        (["--size", "full"], "the variable SOURCE is missing"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_runs(flags: list[str], message: str) -> None:
    refused = subprocess.run(
        ["eval/studies/scale.sh", *flags], env=environment(), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2 and message in refused.stderr and " python " not in refused.stderr


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of studies; they share the base in it."""
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def task_dir(studies: Path) -> Iterator[str]:
    """The procedural corpus of the base beside a set with folds, which an encoder can be fine-tuned on."""
    folder = studies / "tasks"
    if not folder.exists():
        sounds50.write(folder / "esc50", per_fold=2)
        (folder / "synth").symlink_to(studies / "base" / "corpus")
    yield str(folder)


def run_in_process(found: list[list[str]]) -> None:
    for _, room, name, *arguments in found:
        assert cli.main(room, "", ROOMS[room].STAGES, [name, *arguments]) == 0, (room, name, arguments)


@pytest.mark.parametrize("study", ["guidance", "scale", "encoders", "rounds"])
def test_a_study_ends_in_a_table_over_its_runs(
    study: str, studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, out = Path(f"eval/studies/{study}.sh"), studies / study
    found = commands(script, tmp_path, "--size", "tiny", "--seeds", "2", "--out", str(out))
    run_in_process(found)
    assert (out / "report" / "report.html").exists()
    print(capsys.readouterr().out)
    before = written(studies)
    run_in_process(found[:-1])
    assert written(studies) == before, "a second call has written something"


def written(folder: Path) -> dict[str, int]:
    """Return when each file was written, but for logs of runs and reports, which are drawn anew."""
    files = (path for path in folder.rglob("*") if path.is_file() and "report" not in path.parts)
    return {str(path): path.stat().st_mtime_ns for path in files}

"""The studies: their scripts are sound, their commands exist at every size, and they run, end and continue."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from pipeline import cli, seeds
from pipeline.graph import prompts
from tests.support import commands as support
from tests.support import sounds50
from tests.support.commands import ROOMS

SCRIPTS = sorted(path for path in Path("eval/studies").glob("*.sh"))
STUDIES = [path for path in SCRIPTS if path.stem != "common"]
LISTING = ("mixture", "real-audio", "synthetic-first", "unseen-classes")  # a list of their commands has no files
GIVEN = ("SOURCE", "CAPTIONED", "ENCODER", "TASK_DIR", "LISTS", "REAL", "REAL_TRAIN", "REAL_TEST", "LLM", "TAGGER")
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
@pytest.mark.parametrize("script", [each for each in STUDIES if each.stem not in LISTING], ids=lambda path: path.stem)
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
    """A folder of studies, which share the base in it, and of what they are evaluated on."""
    folder = tmp_path_factory.mktemp("studies")
    sounds50.write(folder / "tasks" / "esc50", per_fold=2)
    (folder / "tasks" / "synth").symlink_to(folder / "base" / "corpus")
    return folder


def tiny(study: str, studies: Path, tmp_path: Path) -> list[list[str]]:
    flags = ("--size", "tiny", "--seeds", "2", "--out", str(studies / study))
    return commands(Path(f"eval/studies/{study}.sh"), tmp_path, *flags, TASK_DIR=str(studies / "tasks"))


def written(folder: Path) -> dict[str, int]:
    """Return when each file was written, but for those of reports, which are drawn anew."""
    files = (path for path in folder.rglob("*") if path.is_file() and "report" not in path.parts)
    return {str(path): path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize("study", ["guidance", "rounds", "paper"])
def test_a_study_ends_in_a_table_and_a_second_call_does_nothing(study: str, studies: Path, tmp_path: Path) -> None:
    """Not filtering, whose filters leave nothing of a tiny captioner's captions."""
    found = tiny(study, studies, tmp_path)
    support.run(found)
    report = (studies / study / "report" / "report.html").read_text()
    results = found[-1][found[-1].index("--results") + 1 : found[-1].index("--out")]
    assert all(Path(each).name in report for each in results if each.startswith("/"))
    before = written(studies)
    support.run(found)
    assert written(studies) == before


def test_the_rule_that_stands_for_an_llm_writes_from_tags(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "eval/studies/rule_captioner.py"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        for tags, wanted in ((["Rain", "Bell"], "the sound of rain and bell"), (["Dog"], "the sound of dog")):
            text = prompts.TEMPLATES["from-tags"].replace(prompts.TAGS, ", ".join(tags))
            body = {"model": "rules", "messages": [{"role": "user", "content": text}]}
            answer = requests.post(f"{url}/chat/completions", json=body, timeout=30).json()
            assert answer["choices"][0]["message"]["content"] == wanted
        server.kill()


def test_a_killed_study_continues(studies: Path, tmp_path: Path) -> None:
    found = tiny("encoders", studies, tmp_path)
    frozen = studies / "encoders" / "models" / "frozen"
    running = [sys.executable, "-m", "tests.support.commands", str(tmp_path / "commands")]
    with subprocess.Popen(running, env=environment(), stderr=subprocess.DEVNULL) as study:
        while not (frozen / "seed0" / "run.json").exists():
            assert study.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        study.kill()
    base = written(studies / "base")
    assert not (frozen / "seed1").exists()
    support.run(found)
    assert written(studies / "base") == base, "what was done before was done again"
    assert (frozen / "seed1" / "config.json").exists() and (studies / "encoders/report/report.html").exists()

"""`--seeds N`: several runs of one command, each with its seed and its folder; finished runs are not run again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import eval.__main__ as eval_commands
import pipeline.__main__ as pipeline_commands
import train.__main__ as train_commands
from pipeline import cli, seeds, storage
from tests.support import sounds50

STAGES = {"pipeline": pipeline_commands.STAGES, "train": train_commands.STAGES, "eval": eval_commands.STAGES}


def call(command: str) -> int:
    package, *words = command.split()
    return cli.main(package, "", STAGES[package], words)


def parsed(command: str) -> list[seeds.Run]:
    package, stage, *words = command.split()
    return cli.parse_runs(package, stage, STAGES[package][stage], words)


def written(folder: Path) -> dict[str, int]:
    """Return every file in a folder with the time of its last change."""
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_each_run_has_its_seed_its_folder_and_its_arguments() -> None:
    found = parsed("train pretrain tiny --seeds 3 --data d/seed{seed} --init-audio=m/{seed}/x --out d/models/")
    assert [run.name for run in found] == ["seed 0 of 0 to 2", "seed 1 of 0 to 2", "seed 2 of 0 to 2"]
    assert [run.config.optim.seed for run in found] == [0, 1, 2]
    assert [run.config.out for run in found] == ["d/models/seed0", "d/models/seed1", "d/models/seed2"]
    assert [(run.config.data, run.config.init_audio) for run in found] == [
        (("d/seed0",), "m/0/x"), (("d/seed1",), "m/1/x"), (("d/seed2",), "m/2/x"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("out", "folder"),
    [
        ("--out d", "d/seed1"),
        ("--out=d/", "d/seed1"),
        ("--out d{seed}/x", "d1/x"),
        ("--out s3://bucket/d/", "s3://bucket/d/seed1"),
    ],
)
def test_the_folder_of_a_run(out: str, folder: str) -> None:
    assert parsed(f"pipeline synth tiny {out} --seeds=2")[1].config.out == folder


def test_the_seed_of_a_config_is_found_wherever_it_is() -> None:
    last = [
        parsed(f"{command} --seeds 2 --out d")[1].config
        for command in ("pipeline synth tiny", "train captioner tiny", "eval finetune tiny")
    ]
    assert [last[0].seed, last[1].optim.seed, last[2].recipe.optim.seed] == [1, 1, 1]


def test_a_value_that_reads_like_a_seed_flag_is_none() -> None:
    found = parsed("pipeline score demo --seeds 2 --data d/{seed} --model m --name seed")
    assert [run.config.name for run in found] == ["seed", "seed"]


def test_other_braces_stay_as_they_are() -> None:
    (run,) = parsed("eval zero-shot demo --prompts {} {}_nearby --out d")
    assert (run.name, run.config.prompts, run.config.out) == ("", ("{}", "{}_nearby"), "d")
    runs = parsed("eval zero-shot demo --prompts {} {}_{seed} --model m/{seed} --out d --seeds 2")
    assert [run.config.prompts for run in runs] == [("{}", "{}_0"), ("{}", "{}_1")]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train pretrain tiny --seeds 0 --out d", "--seeds '0': give the number of runs, 1 or more"),
        ("train pretrain tiny --seeds=x --out d", "--seeds 'x': give the number of runs, 1 or more"),
        ("train pretrain tiny --out d --seeds", "--seeds is missing: give the number of runs, 1 or more"),
        ("train pretrain tiny --seeds 2 --optim.seed 1 --out d", "--seeds '2': sets the seed of every run; leave out"),
        ("pipeline synth tiny --seeds 2 --seed=1 --out d", "leave out --seed, or leave out --seeds"),
        ("eval finetune tiny --seeds 2 --recipe.optim.seed 1 --out d", "leave out --recipe.optim.seed"),
        ("eval zero-shot demo --model m/{seed} --out d", "--model 'm/{seed}': add --seeds N"),
        ("eval zero-shot demo --model=m/{seed} --out d", "--model 'm/{seed}': add --seeds N"),
        ("eval zero-shot demo --seeds 2 --model m --out d", "--seeds '2': every run would be the same"),
        ("eval zero-shot demo --seeds 2 --model m --out d/{seed}", "--seeds '2': every run would be the same"),
        ("eval report demo --seeds 2 --results d", "--seeds '2': a report shows all runs"),
        ("eval report demo --results d/seed{seed}", "--results 'd/seed{seed}': a report shows all runs"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_exit_2(
    command: str, message: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(command) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith(" ".join(command.split()[:2]) + ": ") and message in line
    assert not list(tmp_path.iterdir())


def test_a_wrong_flag_fails_before_the_first_run(tmp_path: Path) -> None:
    """The value is a number for seed 0 alone."""
    with pytest.raises(SystemExit) as ended:
        call(f"pipeline synth tiny --seeds 2 --clip-s 1e{{seed}}x --out {tmp_path}/corpus")
    assert ended.value.code == 2 and not list(tmp_path.iterdir())


WITHOUT_SEEDS = {"report", "index-search", "search", "search-precision", "serve"}


@pytest.mark.parametrize("package", STAGES)
def test_the_help_of_each_stage_that_takes_it_names_it(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, stage in STAGES[package].items():
        with pytest.raises(SystemExit):
            call(f"{package} {name} {next(iter(stage.configs))} --help")
        assert ("--seeds N" in capsys.readouterr().out) == (name not in WITHOUT_SEEDS)


LOOP = """
train captioner tiny --source {corpus}/captioned_segments.csv --out {d}/captioner
pipeline caption tiny --source {tagged} --captioner {d}/captioner/seed{seed} --actors.max 0 --out {d}/captions
train pretrain tiny --data {d}/captions/seed{seed} --init-audio {d}/captioner/seed{seed} --out {d}/models
pipeline score tiny --data {d}/captions/seed{seed} --model {d}/models/seed{seed} --actors.max 0 --name scores
train finetune tiny --data {sounds}/meta/esc50.csv --init-audio {d}/models/seed{seed} --out {d}/classifiers
eval zero-shot demo --model {d}/models/seed{seed} --task-dir {corpus} --out {d}/results/models
eval retrieval demo --model {d}/models/seed{seed} --task-dir {corpus} --out {d}/results/models
eval captioning clotho --task synth --model {d}/captioner/seed{seed} --task-dir {corpus} --out {d}/results/captioner
eval linear-probe --model {d}/models/seed{seed} {esc50} --out {d}/results/models
eval finetune tiny --model {d}/models/seed{seed} {esc50} --recipe.optim.batch-size 4 --out {d}/results/models
eval suite tiny --model {d}/models/seed{seed} --task-dir {sounds} --stages linear-probe --out {d}/results/models
"""


@pytest.fixture(scope="module")
def folders(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    d = tmp_path_factory.mktemp("seeds")
    sounds = sounds50.write(d / "sounds" / "esc50", per_fold=1)
    return {
        "corpus": corpus,
        "tagged": f"{corpus}/tagged_segments.csv",
        "sounds": str(sounds),
        "esc50": f"--task esc50 --task-dir {sounds}",
        "d": str(d),
        "seed": "{seed}",
    }


@pytest.fixture(scope="module")
def loop(folders: dict[str, str]) -> Path:
    """Two runs of every stage that draws numbers or follows one that does."""
    for command in LOOP.format(**folders).strip().splitlines():
        assert call(f"{command} --seeds 2") == 0, command
    return Path(folders["d"])


def test_every_run_of_every_stage_is_there(loop: Path) -> None:
    assert sorted(path.name for path in (loop / "models").iterdir()) == ["seed0", "seed1"]
    for seed in ("seed0", "seed1"):
        assert (loop / "captions" / seed / "overlays" / "scores").is_dir()
        assert (loop / "classifiers" / seed / "config.json").exists()
        assert sorted(path.name for path in (loop / "results" / "models" / seed / "results").iterdir()) == [
            "finetune-esc50.json", "linear-probe-esc50.json", "retrieval-synth.json", "zero-shot-synth.json",
        ]  # fmt: skip
        assert (loop / "results" / "captioner" / seed / "results" / "captioning-synth.json").exists()


def test_runs_differ_and_each_follows_its_own(loop: Path) -> None:
    captioners, models = (
        [json.loads((loop / name / f"seed{seed}" / "config.json").read_text()) for seed in (0, 1)]
        for name in ("captioner", "models")
    )
    assert captioners[0]["revision"] != captioners[1]["revision"]
    made_by = [model["lineage"]["generation"]["captioner_revision"] for model in models]
    assert made_by == [captioner["revision"] for captioner in captioners]


def test_a_run_is_that_of_its_seed_alone(loop: Path, folders: dict[str, str]) -> None:
    """Nothing of the run before it in the same process reaches a run."""
    d = folders["d"]
    words = f"--data {d}/captions/seed1 --init-audio {d}/captioner/seed1"
    assert call(f"train pretrain tiny {words} --optim.seed 1 --out {d}/alone") == 0
    alone, of_two = (json.loads((loop / name / "config.json").read_text()) for name in ("alone", "models/seed1"))
    assert alone["revision"] == of_two["revision"]


def test_the_same_commands_change_no_file(
    loop: Path, folders: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """The suite alone writes its report anew."""
    caplog.set_level("INFO")
    before = written(loop)
    commands = LOOP.format(**folders).strip().splitlines()
    for command in commands:
        assert call(f"{command} --seeds 2") == 0, command
    after = written(loop)
    changed = {name for name in after if after[name] != before.get(name)}
    assert {name.split("/")[3] for name in changed} == {"report"}, changed
    assert sum("is complete already" in message for message in caplog.messages) == 2 * len(commands)


def test_a_run_that_fails_names_its_seed_and_no_later_one_starts(
    loop: Path, folders: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 2):
        (tmp_path / f"seed{seed}").symlink_to(loop / "models" / "seed0")
    command = f"eval zero-shot demo --model {tmp_path}/seed{{seed}} --task-dir {folders['corpus']} --out {tmp_path}/out"
    assert call(f"{command} --seeds 3") == 2
    assert "eval zero-shot: seed 1 of 0 to 2: --model" in capfd.readouterr().err.splitlines()[-1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["seed0"]
    (tmp_path / "seed1").symlink_to(loop / "models" / "seed1")
    assert call(f"{command} --seeds 3") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["seed0", "seed1", "seed2"]


def test_a_command_that_was_killed_in_its_second_run_continues(corpus: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train", "captioner", "tiny", "--seeds", "3", "--out", str(tmp_path)]
    command += ["--source", storage.join(corpus, "captioned_segments.csv"), "--optim.save-every-s", "0"]
    command += ["--optim.epochs", "12"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    states = tmp_path / "seed1" / "training_state"
    while not list(states.glob("*.json")):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    assert first.returncode == -signal.SIGKILL and not (tmp_path / "seed1" / "config.json").exists()
    before = written(tmp_path / "seed0")
    second = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ), check=True)
    shown = second.stderr
    assert "seed0 is complete already" in shown and "continues at step" in shown
    assert [f"train captioner: seed {seed} of 0 to 2" in shown for seed in range(3)] == [True, True, True]
    assert written(tmp_path / "seed0") == before
    assert all((tmp_path / f"seed{seed}" / "config.json").exists() for seed in range(3))


def test_runs_share_one_ray(ray_session: None, folders: dict[str, str], captioner: str, tmp_path: Path) -> None:
    """Several runs of one process use one Ray, and write the captions of runs without Ray."""
    for seed in (0, 1):
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}" / "captioner").symlink_to(captioner)
    words = f"pipeline caption tiny --source {folders['tagged']} --seeds 2 --captioner "
    words += f"{tmp_path}/seed{{seed}}/captioner"
    assert call(f"{words} --out {tmp_path}/ray") == 0
    assert call(f"{words} --actors.max 0 --out {tmp_path}/here") == 0
    tars = [sorted((tmp_path / name).glob("*.tar")) for name in ("ray/seed0", "ray/seed1", "here/seed0", "here/seed1")]
    assert len(tars[0]) == 3
    assert all([tar.read_bytes() for tar in found] == [tar.read_bytes() for tar in tars[0]] for found in tars)

"""The command line: stages, help with units, and wrong input as one line and exit code 2, before Ray starts."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import eval.__main__ as eval_commands
import pipeline.__main__ as pipeline_commands
import train.__main__ as train_commands
from pipeline import cli, errors, run_dir, storage
from tests.test_cli_claim import Inner, Renamed
from train.configs import PRETRAIN

PACKAGES = {"pipeline": pipeline_commands.STAGES, "train": train_commands.STAGES, "eval": eval_commands.STAGES}
STAGES = [(package, stage) for package, stages in PACKAGES.items() for stage in stages]
FLAGS = {"without_tags": "--not", "timed_by": "--timed.tagger"}  # of fields whose flag has another name


def call(package: str, *words: str) -> int:
    return cli.main(package, "", PACKAGES[package], list(words))


@pytest.mark.parametrize("package", PACKAGES)
def test_help_lists_every_stage(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(package, "--help") == 0
    shown = capsys.readouterr().out
    assert all(stage in shown for stage in PACKAGES[package])
    assert call(package) == 2
    assert call(package, "nonsense") == 2


@pytest.mark.parametrize(("package", "stage"), STAGES)
def test_stage_help_describes_every_field(package: str, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = next(iter(PACKAGES[package][stage].configs))
    with pytest.raises(SystemExit) as ended:
        call(package, stage, config, "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(PACKAGES[package][stage].configs[config][1]):
        assert FLAGS.get(field.name, f"--{field.name.replace('_', '-')}") in shown


def test_a_renamed_flag_is_taken_by_its_old_name_and_the_new_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    stage = cli.Stage("", "", {"only": ("", Renamed())})
    words = ["only", "--number", "3", "--inner.width=2"]
    assert cli.parse("train", "stage", stage, words) == Renamed(3, Inner(width=2))
    messages = capsys.readouterr().err.splitlines()
    assert ["--count" in messages[0], "--within" in messages[1], len(messages)] == [True, True, 2]
    assert cli.parse("train", "stage", stage, ["only", "--count", "3"]) == Renamed(3) and not capsys.readouterr().err


@pytest.mark.parametrize(("package", "stage"), STAGES)
def test_unknown_flag_and_unknown_config_exit_with_2(package: str, stage: str) -> None:
    config = next(iter(PACKAGES[package][stage].configs))
    for words in ((stage, config, "--no-such-flag", "1"), (stage, "no-such-config")):
        with pytest.raises(SystemExit) as ended:
            sys.exit(call(package, *words))  # `search` takes the second for its text, and lacks an index
        assert ended.value.code == 2


WRONG = [  # command, text that the line must contain
    ("pipeline plan dmo --out {tmp}", "the config 'dmo': write one of demo, tiny, audioset after the stage"),
    ("train pretrain --out {tmp}", "the config is missing: write one of demo,"),
    ("pipeline synth tiny", "--out is missing"),
    ("pipeline synth tiny --out {tmp} --clip-s 0.5", "--clip-s 0.5"),
    ("pipeline plan tiny --source {tmp}/no.csv --out {tmp}", "no.csv': no such file"),
    ("pipeline plan tiny --source {source}", "--out is missing"),
    ("pipeline caption tiny", "--source is missing"),
    ("pipeline caption tiny --source {source} --out {tmp}", "--captioner is missing"),
    ("pipeline caption tiny --source {source} --captioner {clap} --out {tmp}", "holds a clap, not a captioner"),
    (
        "pipeline caption tiny --source {source} --captioner {captioner} --decoding.num-captions 9 --out {tmp}",
        "num_captions 9",
    ),
    ("pipeline caption tiny --source {source} --captioner {captioner}", "--out is missing"),
    ("pipeline score tiny --data {tmp} --model {clap} --name r", "no finished dataset"),
    ("pipeline score tiny --data {tmp} --model {clap} --name ../x", "--name '../x'"),
    ("train captioner tiny --out {tmp}", "--source is missing"),
    ("train captioner tiny --source {source} --out {tmp}", "no row has a caption"),
    ("train captioner tiny --source {captioned} --optim.batch-size 99 --out {tmp}", "--optim.batch-size 99"),
    ("train pretrain tiny --data {tmp} --out {tmp}", "no finished dataset"),
    ("train pretrain tiny --out {tmp}", "--data is missing"),
    (
        "eval zero-shot demo --task esc51 --model {clap} --task-dir {tmp} --out {tmp}",
        "--task 'esc51': did you mean esc50",
    ),
    (
        "eval zero-shot demo --task mine --model {clap} --task-dir {tmp}/no --out {tmp}",
        "--task-dir '{tmp}/no': no such file",
    ),
    ("pipeline inspect --source {tmp}/no.csv", "no.csv': no such file"),
    ("eval zero-shot demo --model {clap} --task-dir {tmp} --out {tmp}", "holds no evaluation_segments.csv"),
    ("eval retrieval demo --model {tmp} --task-dir {corpus} --out {tmp}", "no checkpoint there"),
    ("eval report demo --results {tmp} --out {tmp}", "holds no results; run an evaluation"),
]


@pytest.mark.parametrize(("command", "message"), WRONG)
def test_wrong_input_is_one_line_and_exit_2(
    command: str,
    message: str,
    corpus: str,
    captioner: str,
    clap: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folders = {
        "tmp": str(tmp_path),
        "corpus": corpus,
        "captioner": captioner,
        "clap": clap,
        "source": storage.join(corpus, "tagged_segments.csv"),
        "captioned": storage.join(corpus, "captioned_segments.csv"),
    }
    package, *words = command.format(**folders).split()
    assert call(package, *words) == 2
    *listed, error = capfd.readouterr().err.strip().splitlines()
    assert message.format(**folders) in error
    assert error.startswith(f"{package} {words[0]}: ")
    assert all(": read " in line for line in listed)  # the counts of a source that could be listed


CHECK = """
import dataclasses, sys
from pipeline.configs import CAPTION
from pipeline.graph.captioners import check_command
from train import checkpoint
source, captioner, clap, out = sys.argv[1:]
config = dataclasses.replace(CAPTION["tiny"][1], source=source, captioner=captioner, out=out)
info, draft = check_command(config)
assert info.captioner == captioner and draft.plan.num_clips == 24
assert checkpoint.describe(clap, "--model", "clap").network.text.layers == 1
assert "torch" not in sys.modules
assert checkpoint.load(captioner).info.revision == info.revision and "torch" in sys.modules
"""


def test_a_command_is_checked_without_torch(corpus: str, captioner: str, clap: str, tmp_path: Path) -> None:
    """Its import takes two seconds; only what loads a model does it."""
    source = storage.join(corpus, "tagged_segments.csv")
    subprocess.run([sys.executable, "-c", CHECK, source, captioner, clap, str(tmp_path)], check=True)


def test_ctrl_c_saves_and_the_same_command_continues(corpus: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train", "captioner", "tiny", "--out", str(tmp_path / "out")]
    command += ["--source", storage.join(corpus, "captioned_segments.csv")]
    command += ["--optim.epochs", "40", "--optim.save-every-s", "0"]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    interruptible = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # jobs in the background ignore it
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=interruptible)
    states = tmp_path / "out" / "training_state"
    while not list(states.glob("*.json")):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    _, message = first.communicate(timeout=120)
    assert first.returncode == 130, message
    assert "the same command continues" in message
    second = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, check=True)
    assert "continues at step" in second.stderr
    assert (tmp_path / "out" / "config.json").exists()
    assert not states.exists()
    third = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, check=True)
    assert "is complete already" in third.stderr


def test_a_field_added_since_is_at_its_default_in_an_older_run(tmp_path: Path) -> None:
    """A job that was begun before a flag was there goes on by the same command, and not with another value of the flag."""
    config = PRETRAIN["tiny"][1]
    out = run_dir.claim(str(tmp_path), config)
    stored = storage.read_json(storage.join(out, run_dir.RUN_FILE))
    del stored["network"]["padding"], stored["hold_out"]
    storage.publish_json(storage.join(out, run_dir.RUN_FILE), stored)
    assert run_dir.claim(str(tmp_path), config) == out
    with pytest.raises(errors.InputError, match="hold_out was 0, now 3"):
        run_dir.claim(str(tmp_path), dataclasses.replace(config, hold_out=3))
    with pytest.raises(errors.InputError, match="network was"):
        network = dataclasses.replace(config.network, padding="none")
        run_dir.claim(str(tmp_path), dataclasses.replace(config, network=network))

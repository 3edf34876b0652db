"""The model card: what the hub reads, the numbers of evaluations with their marks; and commands that are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from eval import results as evaluations
from pipeline import storage
from pipeline.cli import main
from pipeline.errors import InputError
from train import checkpoint
from train.__main__ import STAGES
from train.publishing import results
from train.stages import publish
from train.stages.publish import PublishConfig

ENTRY: dict[str, Any] = {
    "text_to_audio": {
        "R@1": {"value": 0.25, "interval95": [0.2, 0.3], "chance": 0.003},
        "MedR": {"value": 4.0},
    },
    "accuracy": {"{}": {"value": 0.8}, "a {}": {"value": 0.7}, "ensemble": {"value": 0.9}},
    "per_fold": {"1": {"value": 0.1}},
    "num_captions": 1600,
    "classes": ["a|b"],
    "n": 320,
    "n_single_label": 130,
    "num_listed": 321,
    "overlap": {"model": 0, "captioner": 12, "init": None},
    "config": {"model": "x"},
}


def evaluated(folder: Path, model: str, entry: dict[str, Any] = ENTRY) -> str:
    """Write results of a checkpoint as an evaluation does; return their folder."""
    loaded = checkpoint.load(model)
    evaluations.publish(str(folder), "retrieval synth", loaded, model, entry, {})
    return str(folder)


def published(tmp_path: Path, clap: str, **fields: Any) -> Path:
    publish.run(PublishConfig(model=clap, out=str(tmp_path / "bell-model"), **fields))
    return tmp_path / "bell-model"


def test_the_hub_reads_the_card(clap: str, tmp_path: Path) -> None:
    folder = published(tmp_path, clap, results=(evaluated(tmp_path / "results", clap),), license="apache-2.0")
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "transformers")
    assert card.data.pipeline_tag == "zero-shot-audio-classification"
    assert {"audio", "clap"} <= set(card.data.tags or ())
    found = {
        (each.task_type, each.dataset_type, each.metric_type): each.metric_value
        for each in card.data.eval_results or ()
    }
    assert found == {
        ("retrieval", "synth", "text to audio R@1"): 0.25,
        ("retrieval", "synth", "text to audio MedR"): 4.0,
        ("retrieval", "synth", "accuracy"): 0.9,
    }
    assert "| retrieval synth | text to audio R@1 | 0.250*? | [0.200, 0.300] | 0.003 | 320 |" in card.text
    assert "| retrieval synth | accuracy | 0.900*? |  |  | 130 |" in card.text
    assert "* retrieval synth: `captioner` was trained or selected on 12 of the 320 clips." in card.text
    assert "? retrieval synth: which clips `init` was trained on is not known." in card.text


def test_without_results_and_licence_the_card_says_so(clap: str, tmp_path: Path) -> None:
    card = ModelCard.load(published(tmp_path, clap) / "README.md")
    assert card.data.license == "unknown" and not card.data.eval_results
    assert "licence of the weights is unknown" in card.text and "No results were given." in card.text


def test_the_card_has_the_lineage_and_the_folder_all_of_it(clap: str, tmp_path: Path) -> None:
    lineage = {
        "stage": "train pretrain",
        "data": ["/data/shards"],
        "num_clips": 640,
        "generation": {
            "captioner": "/models/bart",
            "captioner_revision": "f" * 64,
            "guidance": ["tags"],
            "out": "/c/guided",
        },
    }
    loaded = checkpoint.load(clap)
    checkpoint.save(str(tmp_path / "model"), loaded.model, lineage, ["a"])
    folder = published(tmp_path, str(tmp_path / "model"))
    card = (folder / "README.md").read_text()
    for row in ("| captioner | bart (ffffffffffff) |", "| clips trained on | 640 |", "| tags given | yes |"):
        assert row in card
    held = json.loads((folder / "lineage.json").read_text())
    assert held["lineage"] == lineage and held["revision"] == loaded.revision


def test_results_of_another_model_or_of_none_are_refused(clap: str, tmp_path: Path) -> None:
    revision = checkpoint.load(clap).revision
    folder = evaluated(tmp_path / "results", clap)
    assert len(results.read([folder], revision).numbers) == 3
    with pytest.raises(InputError, match=r"--results .*revision .*; the model has 000000000000"):
        results.read([folder], "0" * 64)
    with pytest.raises(InputError, match=r"--results .*holds no results; give the --out of an evaluation"):
        results.read([str(tmp_path / "absent")], revision)
    (tmp_path / "results" / "results" / "retrieval-synth.json").write_text("[]")
    with pytest.raises(InputError, match=r"--results .*holds no results of a model"):
        results.read([folder], revision)


def test_the_single_file_of_earlier_versions_is_read(clap: str, tmp_path: Path) -> None:
    revision = checkpoint.load(clap).revision
    model = {"name": "a", "revision": revision, "lineage": {}}
    storage.publish_json(str(tmp_path / "results.json"), {"model": model, "results": {"zero-shot esc50": ENTRY}})
    assert {number.evaluation for number in results.read([str(tmp_path)], revision).numbers} == {"zero-shot esc50"}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that a wrong command ends with."""
    assert main("train", "", STAGES, ["publish", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_wrong_commands_are_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], clap: str, captioner: str, tmp_path: Path
) -> None:
    out, occupied = str(tmp_path / "out"), tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "notes.txt").write_text("mine")
    for arguments, wanted in {
        (
            "--model",
            captioner,
            "--out",
            out,
        ): "holds a captioner, not a clap; give a directory that `python -m train pretrain`",
        ("--model", clap): "--out is missing",
        ("--model", clap, "--out", clap): "--out '" + clap + "': holds something else",
        ("--model", clap, "--out", str(occupied)): "holds something else; choose another folder, or empty this one",
        ("--model", clap, "--out", out, "--license", "my own"): "--license 'my own': write the hub's identifier",
        ("--model", clap, "--out", out, "--int8"): "--int8 True: is of the ONNX files; add --onnx",
        ("--model", clap, "--out", out, "--push", "model"): "--push 'model': write namespace/name",
    }.items():
        assert wanted in refusal(capsys, *arguments)
    assert not Path(out).exists() and [file.name for file in occupied.iterdir()] == ["notes.txt"]


def test_the_same_model_may_be_published_again_and_another_not(clap: str, tmp_path: Path) -> None:
    folder = published(tmp_path, clap)
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    published(tmp_path, clap, license="mit")
    again = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {name for name in first if first[name] != again[name]} == {"README.md"}
    other = checkpoint.load(clap).model
    other.logit_scale.data.add_(1.0)
    checkpoint.save(str(tmp_path / "other"), other, {"stage": "train pretrain"}, [])
    with pytest.raises(InputError, match=r"--out .*holds something else"):
        published(tmp_path, str(tmp_path / "other"))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == again


def test_a_folder_on_s3(clap: str, s3: str) -> None:
    publish.run(PublishConfig(model=clap, out=f"{s3}/published/bell-model"))
    names = storage.list_names(f"{s3}/published/bell-model")
    assert {"README.md", "config.json", "model.safetensors", "modeling_blat.py", "lineage.json"} <= set(names)

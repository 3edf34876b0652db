"""Results: one file for each evaluation, what is done already, what cannot be read or written, the mean over folds."""

import dataclasses
import itertools
import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from eval import results, tasks
from eval.stages import report
from eval.stages.report import ReportConfig
from pipeline import storage
from pipeline.errors import InputError
from tests.support import sounds50
from train.checkpoint import Checkpoint, CheckpointInfo
from train.models.configs import TaggerConfig

ABOUT = Checkpoint(
    model=None,
    info=CheckpointInfo(kind="tagger", network=TaggerConfig(), revision="r" * 64, lineage={}, versions={}),
)


@dataclass(frozen=True)
class Config:
    """Of a stage."""

    task: str = "esc50"
    batch_size: int = 8


def source(folder: str) -> str:
    return results.source(*(lambda task, clips: (task, folder, clips))(*tasks.read("esc50", folder, ())))


def publish(out: str, name: str = "zero-shot esc50", loaded: Checkpoint = ABOUT, **entry: Any) -> str:
    return results.publish(out, name, loaded, "build/model", {"config": storage.plain(vars(Config())), **entry}, {})


def earlier(folder: Path, **entries: dict[str, Any]) -> bytes:
    """Write results as earlier versions did, all evaluations in one file; return its bytes."""
    model = {"name": "model", "revision": ABOUT.revision, "lineage": {}, "network": {}}
    named = {name.replace("__", " ").replace("_", "-"): entry for name, entry in entries.items()}
    (folder / "results.json").write_text(json.dumps({"model": model, "results": named}))
    return (folder / "results.json").read_bytes()


def evaluate(number: int, outs: list[str], barrier: Barrier) -> None:
    """One of two processes: it publishes, and looks at what is there, at the same time as the other."""
    for out, task in itertools.product(outs, range(10)):
        name = f"retrieval {number}-{task}"
        barrier.wait(timeout=300)
        results.check(out, ABOUT.revision)
        publish(out, name, n=task, source_sha256=f"source {number}")


def test_two_evaluations_at_once_both_keep_their_results(s3: str, tmp_path: Path) -> None:
    outs, context = [str(tmp_path), f"{s3}/at-once"], multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=evaluate, args=(number, outs, barrier)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    for out in outs:
        kept = {(name, entry["n"], entry["source_sha256"]) for name, entry in results.read(out)["results"].items()}
        assert kept == {(f"retrieval {n}-{task}", task, f"source {n}") for n in range(2) for task in range(10)}


def test_results_of_earlier_versions_go_on(tmp_path: Path) -> None:
    """The one file is read and left as it is; what is evaluated again replaces its entry."""
    entry = {"config": storage.plain(vars(Config())), "source_sha256": "s", "n": 1}
    before, out = earlier(tmp_path, retrieval__clotho=entry, zero_shot__esc50=entry), str(tmp_path)
    results.check(out, ABOUT.revision)
    assert results.done(out, "retrieval clotho", Config(), "s")
    later = dataclasses.make_dataclass("Later", [("columns", str, "")], bases=(Config,), frozen=True)
    assert results.done(out, "retrieval clotho", later(), "s"), "a field that came later, and is left empty"
    assert not results.done(out, "retrieval clotho", later(columns="a=b"), "s")
    publish(out, n=2)
    found = results.read(out)["results"]
    assert {name: entry["n"] for name, entry in found.items()} == {"retrieval clotho": 1, "zero-shot esc50": 2}
    assert not results.done(out, "zero-shot esc50", Config(), "s"), "it is not known what the new one read"
    assert (tmp_path / "results.json").read_bytes() == before
    with pytest.raises(InputError, match="holds the results of another model, model"):
        results.check(out, "other")


def test_another_evaluation_of_the_same_name_is_replaced_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, config = str(tmp_path), storage.plain(vars(Config()))
    publish(out)
    publish(out, config=config | {"batch_size": 99})
    assert not caplog.messages
    publish(out, config=config | {"task": "us8k"}, evaluated_at="2026-11-28")
    publish(out)
    assert caplog.messages == [
        "zero-shot esc50: replaces the results of None, which had other task",
        "zero-shot esc50: replaces the results of 2026-11-28, which had other task",
    ]


def test_any_name_of_a_task_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = [
        "zero-shot a b",
        "zero-shot a-b",
        "zero-shot a/b",
        "zero-shot ../a",
        "zero-shot Käfer 100%",
        "retrieval a b",
    ]
    for name in names:
        publish(str(tmp_path), name)
    assert set(results.read(str(tmp_path))["results"]) == set(names)
    assert (tmp_path / "results" / "zero-shot-a-b.json").exists() and len(list(tmp_path.iterdir())) == 1


def test_results_of_two_models_in_one_folder_are_both_kept_and_told_apart(tmp_path: Path) -> None:
    """Only two commands that start at once get there: each has looked into the folder before."""
    other = dataclasses.replace(ABOUT, info=dataclasses.replace(ABOUT.info, revision="o" * 64))
    uris = [publish(str(tmp_path), "retrieval a"), publish(str(tmp_path), "retrieval b", other)]
    with pytest.raises(InputError, match=r"--out.*retrieval-b\.json is of .*move the files of one model"):
        results.read(str(tmp_path))
    assert [storage.read_json(uri)["model"]["revision"][0] for uri in uris] == ["r", "o"]


def test_a_report_does_not_replace_results(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    before = earlier(tmp_path / "old")
    publish(str(tmp_path / "new"))
    for folder in ("old", "new"):
        with pytest.raises(InputError, match=r"--out.*holds the results of a model"):
            report.run(ReportConfig(results=(str(tmp_path / "new"),), out=str(tmp_path / folder)))
    assert (tmp_path / "old" / "results.json").read_bytes() == before
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "results"]


def test_an_evaluation_is_done_for_the_clips_it_read_and_no_others(tmp_path: Path) -> None:
    here = sounds50.write(tmp_path / "esc50", per_fold=1)
    more = sounds50.write(tmp_path / "other" / "esc50", per_fold=2)
    out, first = str(tmp_path / "out"), source(str(here))
    assert not results.done(out, "zero-shot esc50", Config(), first)
    publish(out)
    assert not results.done(out, "zero-shot esc50", Config(), first), "it is not known what it read"
    publish(out, source_sha256=first)
    assert results.done(out, "zero-shot esc50", Config(), source(str(here)))
    assert results.done(out, "zero-shot esc50", Config(batch_size=64), first)
    assert not results.done(out, "zero-shot esc50", Config(task="x"), first)
    assert not results.done(out, "zero-shot esc50", Config(), source(str(more)))


def test_a_dataset_that_is_completed_or_changed_later_is_another_source(tmp_path: Path) -> None:
    folder = sounds50.write(tmp_path / "esc50", per_fold=1)
    clip, table = next((folder / "audio").iterdir()), folder / "meta" / "esc50.csv"
    data, whole = clip.read_bytes(), source(str(folder))
    clip.unlink()
    lacking = source(str(folder))
    clip.write_bytes(data[:-2])
    cut = source(str(folder))
    table.write_text(table.read_text().replace("low_hum", "high_hum"))
    assert len({whole, lacking, cut, source(str(folder))}) == 4


def test_in_a_bucket_it_is_told_which_clips_are_there(s3: str, tmp_path: Path) -> None:
    local, remote = sounds50.write(tmp_path / "esc50", per_fold=1), f"{s3}/esc50"
    files = [local / "meta" / "esc50.csv", *(local / "audio").iterdir()]
    for file in files[:-1]:
        storage.publish(f"{remote}/{file.relative_to(local)}", file.read_bytes())
    lacking = source(remote)
    storage.publish(f"{remote}/{files[-1].relative_to(local)}", files[-1].read_bytes())
    assert source(remote) == source(remote) != lacking


@pytest.mark.parametrize("name", ["results.json", "results/retrieval-x.json"])
@pytest.mark.parametrize(
    "held",
    [
        "{broken",
        "[]",
        '{"model": 3, "results": {}}',
        '{"model": {"name": "m", "revision": "r"}, "results": {}}',
        '{"model": {"name": "m", "revision": "r", "lineage": {}}, "results": {"retrieval x": 3}}',
        '{"round1": {"model": {}, "results": {}}}',
        "\udcff",
    ],
)
def test_results_that_cannot_be_read_are_named_with_the_remedy(tmp_path: Path, name: str, held: str) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / name).write_bytes(held.encode("utf-8", "surrogateescape"))
    attempts = {
        "--results": lambda: report.run(ReportConfig(results=(str(tmp_path),), out=str(tmp_path / "report"))),
        "--out": lambda: results.check(str(tmp_path), "r" * 64),
    }
    for flag, attempt in attempts.items():
        with pytest.raises(InputError, match=rf"{flag}.*{name}.*delete it"):
            attempt()
    publish(str(tmp_path))  # results that are at hand are not lost for it
    assert storage.read_json(str(tmp_path / "results" / "zero-shot-esc50.json"))["results"]


def test_a_place_that_cannot_be_written_to_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for check in (lambda out: results.check(out, "r"), lambda out: report.run(ReportConfig(results=("x",), out=out))):
        with pytest.raises(InputError, match=r"--out.*cannot be written"):
            check(str(tmp_path / "file" / "out"))
    results.check(str(tmp_path / "new"), "r")
    assert list((tmp_path / "new").iterdir()) == []


def test_results_in_a_closed_folder_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(uri: str) -> list[str]:
        raise PermissionError(13, "Permission denied", uri)

    monkeypatch.setattr(storage, "list_names", refused)
    with pytest.raises(InputError, match=r"--results.*Permission denied"):
        report.run(ReportConfig(results=("closed",), out=str(tmp_path / "report")))


def test_the_mean_over_folds_is_not_the_number_over_clips(tmp_path: Path) -> None:
    per_fold = {name: results.metric(value) for name, value in (("1", 0.5), ("2", 0.7), ("3", 0.9))}
    publish(str(tmp_path), per_fold=per_fold)
    entry = results.read(str(tmp_path))["results"]["zero-shot esc50"]
    assert entry["over_folds"] == {"value": 0.7, "sd": 0.2, "n": 3}
    assert results.over_folds({}) == results.over_folds({"test": results.metric(0.5)}) == {}

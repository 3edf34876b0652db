"""Captions of LLMs and captions that a dataset has, judged as those of a checkpoint are."""

import csv
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval import results
from eval.configs import CAPTIONING
from eval.metrics import captions
from eval.report import lineage
from eval.results.model_results import ModelResults
from eval.stages.captioning import CaptioningConfig, run
from eval.stages.report import ReportConfig
from eval.stages.report import run as run_report
from pipeline import sources, storage
from pipeline.configs import CAPTION, RECAPTION
from pipeline.errors import InputError, JobError
from pipeline.graph import prompts
from pipeline.graph.engine import ActorConfig
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.stages import audit, caption, choose, recaption
from pipeline.stages.audit import AuditConfig
from pipeline.stages.choose import ChooseConfig
from tests.support.chat_server import ChatServer
from train.models.captioner.decoding import Decoding

GREEDY = Decoding(method="greedy")
IN_PROCESS = ActorConfig(max=0)
NAME = "captioning synth"


@pytest.fixture(autouse=True)
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave METEOR out: its program starts anew for every kind of guidance."""
    monkeypatch.setattr(captions.shutil, "which", lambda _: None)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(fault_every=0) as running:
        yield running


@pytest.fixture
def config(corpus: str, server: ChatServer, tmp_path: Path) -> CaptioningConfig:
    """An LLM behind an endpoint, on the corpus' 24 evaluation clips."""
    return dataclasses.replace(
        CAPTIONING["demo"][1], task_dir=corpus, captioner="openai:acme/earwig", captioner_url=server.url,
        decoding=GREEDY, guidance=("tags", "none", "shuffled"), out=str(tmp_path / "out"),
    )  # fmt: skip


def entry_of(config: CaptioningConfig) -> dict[str, Any]:
    return results.read(config.out)["results"][NAME]


def test_an_llm_is_judged_by_the_same_metrics(
    config: CaptioningConfig, server: ChatServer, clap: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(dataclasses.replace(config, clap=clap))
    held, entry = results.read(config.out), entry_of(config)
    assert (held["model"]["name"], held["model"]["revision"]) == ("earwig", "openai:acme/earwig")
    assert entry["n"] == entry["num_tagged"] == 24 and entry["overlap"] == {"model": None}
    assert set(entry["guidance"]) == {"tags", "none", "shuffled"} and set(entry["difference"]) == {"none", "shuffled"}
    low, high = entry["guidance"]["tags"]["cider_d"]["interval95"]
    assert low <= entry["guidance"]["tags"]["cider_d"]["value"] <= high
    assert -1 <= entry["guidance"]["tags"]["clap"]["value"] <= 1
    assert entry["captioning"]["requests"] == server.requests == 72 and entry["captioning"]["cut_openings"] == 72
    asked = [body["messages"][0]["content"][1]["text"] for body in server.bodies]
    assert asked.count(prompts.TEMPLATES["unguided"]) == 24 and len(set(asked)) > 3
    with open(Path(config.out) / "captioning-synth.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    tags = {(row["key"], row["guidance"]): row["tags"] for row in rows}
    own = {clip.key: "|".join(clip.tags) for clip in sources.read_clips(f"{config.task_dir}/evaluation_segments.csv")}
    assert all(tags[key, "tags"] == own[key] and tags[key, "none"] == "" for key in own)
    assert all(row["caption"].startswith("a sound ") for row in rows)
    assert "requests 72" in capsys.readouterr().out
    run(dataclasses.replace(config, clap=clap, concurrency=2))
    assert server.requests == 72, "a complete evaluation asks nothing"


def test_a_budget_ends_it_and_kept_answers_are_not_paid_again(config: CaptioningConfig, server: ChatServer) -> None:
    bounded = dataclasses.replace(config, guidance=("tags",), rewrite="tags", max_requests=10)
    for sent in (10, 20):
        with pytest.raises(JobError, match="--max-requests 10: used up"):
            run(bounded)
        assert server.requests == sent
    run(bounded)
    assert server.requests == 24 and isinstance(server.bodies[0]["messages"][0]["content"], str)
    assert not list(Path(config.out).rglob("attempts/*"))


def test_all_kinds_of_guidance_share_one_budget(config: CaptioningConfig, server: ChatServer) -> None:
    with pytest.raises(JobError, match="--max-requests 30: used up"):
        run(dataclasses.replace(config, guidance=("tags", "none"), max_requests=30))
    assert server.requests == 30


def test_an_llm_that_refuses_everything_gets_no_result(config: CaptioningConfig, server: ChatServer) -> None:
    server.always = {"": 400}
    with pytest.raises(JobError, match=r"guidance tags: 24 of 24 clips got no caption \(refused; .*: answers 400"):
        run(config)
    server.always = {}
    run(config)
    assert "refused" not in entry_of(config)["captioning"]


@pytest.fixture(scope="module")
def written(corpus: str, captioner: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of the evaluation clips with the captions of a checkpoint, an LLM's overlay, and a choice."""
    out = str(tmp_path_factory.mktemp("written") / "data")
    source = storage.join(corpus, "evaluation_segments.csv")
    job = dataclasses.replace(CAPTION["tiny"][1], source=source, captioner=captioner, out=out, actors=IN_PROCESS)
    job = dataclasses.replace(job, firewall=DecontaminationConfig(allow=("audiocaps",)))
    caption.run(job)
    with ChatServer(fault_every=0) as server:
        config = RECAPTION["tiny"][1]
        endpoint = {"captioner": "openai:earwig", "captioner_url": server.url, "decoding": GREEDY}
        recaption.run(dataclasses.replace(config, data=out, name="llm", actors=IN_PROCESS, **endpoint))
    audit.run(AuditConfig(data=out, name="audit", in_process=True))
    choose.run(ChooseConfig(data=out, name="best", overlays=("shards", "llm"), by="agreement", in_process=True))
    return out


@pytest.fixture
def of_dataset(config: CaptioningConfig, written: str) -> CaptioningConfig:
    return dataclasses.replace(config, captioner="", captioner_url="", data=written)


def test_captions_of_a_dataset_score_as_those_of_the_checkpoint_that_wrote_them(
    of_dataset: CaptioningConfig, captioner: str, tmp_path: Path
) -> None:
    run(of_dataset)
    fresh = dataclasses.replace(
        of_dataset, data="", model=captioner, decoding=CAPTION["tiny"][1].decoding, guidance=("tags",),
        out=str(tmp_path / "fresh"),
    )  # fmt: skip
    run(fresh)
    entry = entry_of(of_dataset)
    assert entry["guidance"]["written"] == entry_of(fresh)["guidance"]["tags"]
    assert entry["n"] == 24 and entry["missing"] == {} and entry["overlap"] == {"captioner": 0}


def test_a_choice_is_judged_by_captioner_and_names_them_all(
    of_dataset: CaptioningConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = dataclasses.replace(of_dataset, captions="best")
    run(best)
    entry, held = entry_of(best), results.read(best.out)
    assert sum(one["captions"] for one in entry["captioners"].values()) == 24
    assert set(entry["captioners"]) <= {"shards", "llm"}
    mean = sum(one["captions"] * one["cider_d"]["value"] for one in entry["captioners"].values()) / 24
    assert mean == pytest.approx(entry["guidance"]["written"]["cider_d"]["value"], abs=1e-5)
    assert entry["overlap"] == {"captioner": 0, "captioner 2": None}
    assert [one["overlay"] for one in held["model"]["lineage"]["overlay"]["candidates"]] == ["shards", "llm"]
    with open(Path(best.out) / "captioning-synth.csv", newline="") as file:
        assert {row["captioner"] for row in csv.DictReader(file)} == set(entry["captioners"])
    llm = dataclasses.replace(of_dataset, captions="llm", out=str(tmp_path / "llm"))
    run(llm)
    assert set(entry_of(llm)["captioners"]) == {"earwig"}
    made_from = lineage.rows({name: ModelResults.from_json(results.read(c.out)) for name, c in {"a": best}.items()})
    column = made_from[0].index("captioner")
    assert "captioner" in made_from[1][column] and "openai:earwig" in made_from[1][column]
    capsys.readouterr()
    run_report(ReportConfig(results=(best.out, llm.out), out=str(tmp_path / "report")))
    assert "captioning synth: CIDEr-D, written" in capsys.readouterr().out


def test_clips_that_the_dataset_lacks_are_counted(of_dataset: CaptioningConfig, corpus: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(corpus, tmp_path / "task"))
    names = {"_segments.csv": slice(3, 4), "_segments_captions.csv": slice(1, 2)}  # below the heads
    for name, rows in names.items():
        table, other = folder / f"evaluation{name}", (folder / f"captioned{name}").read_text()
        table.write_text(table.read_text() + "".join(other.splitlines(keepends=True)[rows]))
    run(dataclasses.replace(of_dataset, task_dir=str(folder)))
    entry = entry_of(of_dataset)
    assert (entry["n"], entry["num_listed"]) == (24, 25) and list(entry["missing"].values()) == ["not in the dataset"]
    for name in names:
        table, heads = folder / f"evaluation{name}", {"_segments.csv": 3}.get(name, 1)
        lines = table.read_text().splitlines(keepends=True)
        table.write_text("".join([*lines[:heads], lines[-1]]))
    with pytest.raises(InputError, match="has none of the task's clips, by key"):
        run(dataclasses.replace(of_dataset, task_dir=str(folder), out=str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "build/x"}, "--captioner 'openai:acme/earwig': give this or --model, not both"),
        ({"captioner": "build/x"}, "--captioner 'build/x': a checkpoint goes to --model"),
        ({"captioner_url": ""}, "--captioner-url is missing"),
        ({"decoding": Decoding()}, "--decoding.method 'beam'"),
        ({"guidance": ("predicted",)}, "--tagger is missing"),
        ({"captioner": "", "captions": "best"}, "--captions 'best': names an overlay of a dataset"),
        ({"captioner": "", "data": "/nowhere"}, "--data '/nowhere': /nowhere has no sizes.json"),
    ],
)
def test_commands_that_cannot_be_are_refused(config: CaptioningConfig, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(dataclasses.replace(config, **fields))


@pytest.mark.parametrize(("name", "message"), [("audit", "holds no captions"), ("zzz", "no such overlay")])
def test_overlays_without_captions_are_refused(of_dataset: CaptioningConfig, name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"--captions '{name}': {message}"):
        run(dataclasses.replace(of_dataset, captions=name))

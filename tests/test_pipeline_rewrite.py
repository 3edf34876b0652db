"""A text LLM writes captions from tags, from titles of the source, and from captions that are there. No audio is sent."""

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import sources
from pipeline.configs import CAPTION
from pipeline.dataset import ledgers
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError
from pipeline.graph import prompts
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.engine import ActorConfig
from pipeline.planning.plan import read_plan
from pipeline.planning.tables import PlanRow
from pipeline.stages import caption, plan, recaption, retry
from pipeline.stages.plan import PlanConfig
from pipeline.stages.recaption import RecaptionConfig
from pipeline.stages.retry import RetryConfig
from tests.support.chat_server import ChatServer
from train.models.captioner.decoding import Decoding

GREEDY = Decoding(method="greedy")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "SECRET")
    with ChatServer(fault_every=0) as running:
        yield running


@pytest.fixture
def titled(corpus: str, tmp_path: Path) -> str:
    """Return a table of six clips with titles of their own, one of them without, one without audio."""
    clips = list(sources.list_clips(f"{corpus}/tagged_segments.csv"))[:6]
    with open(tmp_path / "titled.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "labels", "title"])
        for number, clip in enumerate(clips):
            uri = str(tmp_path / "late.flac") if number == 5 else clip.uri
            table.writerow([uri, "|".join(clip.tags), f"Field trip {number}" if number else ""])
    return str(tmp_path / "titled.csv")


@pytest.fixture
def job(titled: str, server: ChatServer, tmp_path: Path) -> CaptionConfig:
    return dataclasses.replace(
        CAPTION["tiny"][1], source=titled, columns="captions=title", actors=ActorConfig(max=0), rewrite="captions",
        captioner="openai:acme/text", captioner_url=server.url, decoding=GREEDY, out=str(tmp_path / "out"),
        max_bad_fraction=0.5,
    )  # fmt: skip


def asked(server: ChatServer) -> set[str]:
    return {body["messages"][0]["content"] for body in server.bodies}


def test_captions_are_written_from_tags_and_from_captions_that_are_there(
    corpus: str, job: CaptionConfig, server: ChatServer
) -> None:
    caption.run(dataclasses.replace(job, source=f"{corpus}/tagged_segments.csv", columns="", rewrite="tags"))
    index = ClipIndex(job.out)
    assert asked(server) == {prompts.TEMPLATES["from-tags"].replace("{tags}", ", ".join(tags)) for tags in index.tags()}
    server.bodies.clear()
    again = RecaptionConfig(
        captioner="openai:text", captioner_url=server.url, decoding=GREEDY, rewrite="captions", guidance=("none",),
        data=job.out, name="rewritten", actors=ActorConfig(max=0), prompt="Shorter: {captions}",
    )  # fmt: skip
    recaption.run(again)
    assert asked(server) == {f"Shorter: {texts[0]}" for texts in index.texts()}


def test_captions_of_new_clips_are_written_from_their_titles_and_tags(
    job: CaptionConfig, titled: str, server: ChatServer
) -> None:
    """A clip without a title is filtered with the reason, and a retry of a clip that failed still has its title."""
    caption.run(job)
    index, template = ClipIndex(job.out), prompts.TEMPLATES["from-captions-guided"]
    of_key = {clip.key: clip for clip in sources.list_clips(titled, column_names="captions=title")}
    wanted = {
        template.replace("{captions}", of_key[key].captions[0]).replace("{tags}", ", ".join(of_key[key].tags))
        for key in index.keys
    }
    assert asked(server) == wanted and len(wanted) == 4
    made = read_plan(job.out)
    assert made is not None and made.made_from.texts
    rows = [row for ledger in ledgers.read(job.out, made.shards) for row in ledger.to_pylist()]
    assert [row["reason"] for row in rows if row["status"] != "written"] == ["no_text", "missing"]
    server.bodies.clear()
    Path(titled).with_name("late.flac").write_bytes(Path(of_key[index.keys[0]].uri).read_bytes())
    retry.run(RetryConfig(data=job.out, reason=("missing",), actors=ActorConfig(max=0)))
    assert ["Field trip 5" in text for text in asked(server)] == [True]


def test_the_plan_holds_texts_only_where_they_are_asked_for(job: CaptionConfig, titled: str) -> None:
    """Other plans keep their hash and their plan.json, whatever captions a source has."""

    def planned(out: str, texts: bool, columns: str) -> tuple[str, list[PlanRow]]:
        plan.run(PlanConfig(source=titled, columns=columns, out=out, clips_per_shard=job.clips_per_shard, texts=texts))
        made = read_plan(out)
        assert made is not None
        return made.hash, [row for shard in made.shards for row in made.read_shard(out, shard)]

    plain, captioned = planned(f"{job.out}-a", False, ""), planned(f"{job.out}-b", False, "captions=title")
    assert plain[0] == captioned[0] and not any("texts" in row for row in captioned[1])
    assert "texts" not in json.loads(Path(f"{job.out}-b/plan.json").read_text())["made_from"]
    with_texts = planned(job.out, True, "captions=title")
    assert with_texts[0] != plain[0] and [row["texts"] for row in with_texts[1]][1] == ["Field trip 1"]
    caption.run(job)
    with pytest.raises(
        InputError, match=r"--out .*: is planned otherwise: columns was captions=title, now .*; texts was"
    ):
        caption.run(dataclasses.replace(job, rewrite="", columns=""))


def test_a_source_without_titles_is_refused_before_anything_is_written(job: CaptionConfig, server: ChatServer) -> None:
    with pytest.raises(InputError, match=r"--source .*titled\.csv.*: gives no clip a caption or title to rewrite"):
        caption.run(dataclasses.replace(job, columns=""))
    assert not Path(job.out).exists() and not server.bodies

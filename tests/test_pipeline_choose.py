"""The choice among the captions of several overlays, on overlays made by hand."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import storage
from pipeline.dataset import overlays, selection, shards
from pipeline.dataset.clip_index import ClipIndex
from pipeline.dataset.selection import SelectionConfig
from pipeline.errors import InputError
from pipeline.quality.agreement import Agreement
from pipeline.stages.choose import ChooseConfig, run
from tests.support.chat_server import captioned

SAME, NEAR, FAR = "a dog barks loudly", "a dog is barking", "heavy rain falls"


def test_agreement_is_one_for_equal_words_and_none_for_others() -> None:
    agreement = Agreement([SAME, NEAR, FAR, "a man speaks", "a bell rings"])
    assert agreement.similarity(SAME, SAME) == pytest.approx(1.0) and agreement.similarity(SAME, FAR) == 0.0
    assert 0.1 < agreement.similarity(SAME, NEAR) < 0.9
    assert agreement.similarity("a dog", "a man") < agreement.similarity("a dog", "the dog"), "rare words count more"
    assert agreement.consensus(SAME, [[FAR, NEAR], [SAME]]) == pytest.approx((agreement.similarity(SAME, NEAR) + 1) / 2)
    assert agreement.consensus(SAME, [[], []]) == 0.0 == agreement.similarity("", SAME)


@pytest.fixture(scope="module")
def made(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of 24 clips; tests add overlays of their own names."""
    return captioned(corpus, str(tmp_path_factory.mktemp("choose") / "data"))


def overlay(data: str, name: str, texts: list[str], scores: list[float | None], **info: Any) -> None:
    """Give every clip the same captions."""
    folder = overlays.folder(data, name)
    records = json.dumps([{"text": text, "model": f"model of {name}"} for text in texts])
    for shard in shards.sizes(data):
        rows = [
            {"key": c["key"], "text": texts, "score": scores, "captions": records}
            for c in overlays.read_clips(data, shard)
        ]
        table = pa.Table.from_pylist(rows, schema=overlays.CAPTIONS_SCHEMA)
        storage.publish_table(storage.join(folder, shards.ledger_name(shard)), table)
    storage.publish_json(storage.join(folder, overlays.MARK_FILE), {"stage": "pipeline score", "revision": "f", **info})


def audit(data: str, name: str, texts: list[str], foreign: list[list[str]], unmentioned: list[list[str]]) -> None:
    """Give the captions of every clip the same verdicts."""
    folder = overlays.folder(data, name)
    fixed = {"text": texts, "words": [3] * len(texts), "uses": [1] * len(texts), "copy": False}
    for shard in shards.sizes(data):
        rows = [
            {"key": c["key"], **fixed, "foreign": foreign, "unmentioned": unmentioned}
            for c in overlays.read_clips(data, shard)
        ]
        table = pa.Table.from_pylist(rows, schema=overlays.AUDIT_SCHEMA)
        storage.publish_table(storage.join(folder, shards.ledger_name(shard)), table)
    storage.publish_json(storage.join(folder, overlays.MARK_FILE), {"stage": "pipeline audit"})


@pytest.fixture(scope="module")
def data(made: str) -> str:
    overlay(made, "a", [SAME, FAR], [0.3, 0.1])
    overlay(made, "b", [NEAR], [0.5])
    overlay(made, "c", [FAR, SAME], [0.4, 0.6])
    audit(made, "a-audit", [SAME, FAR], [[], ["Rain"]], [["Bell"], []])
    audit(made, "b-audit", [NEAR], [["Dog"]], [[]])
    audit(made, "c-audit", [FAR, SAME], [[], []], [[], ["Bell", "Rain"]])
    return made


AUDITS = ("a-audit", "b-audit", "c-audit")


@pytest.mark.parametrize(
    ("by", "audits", "winner", "texts"),
    [
        ("score", (), "c", [SAME, NEAR, FAR]),
        ("score", AUDITS, "c", [SAME, FAR, NEAR]),
        ("agreement", (), "a", [SAME, FAR, NEAR]),
        ("audit", AUDITS, "c", [FAR, SAME, NEAR]),
    ],
)
def test_the_best_captions_come_first_and_runners_up_stay(
    data: str, by: Any, audits: tuple[str, ...], winner: str, texts: list[str]
) -> None:
    config = ChooseConfig(
        data=data, name=f"best-{by}-{len(audits)}", overlays=("a", "b", "c"), by=by, audits=audits, in_process=True
    )
    run(config)
    rows = overlays.read_captions(data, config.name)
    assert len(rows) == 24 and all(row["text"] == texts for row in rows.values())
    record = json.loads(next(iter(rows.values()))["captions"] or "")[0]
    assert (record["overlay"], record["model"]) == (winner, f"model of {winner}")
    info = overlays.read_info(data, config.name)
    assert [one["overlay"] for one in info["candidates"]] == ["a", "b", "c"] and info["revision"] == ""
    assert info["wins"] == {name: 24 if name == winner else 0 for name in "abc"}
    tags = ClipIndex(data).tags()
    assert {tag: found[winner] for tag, found in info["wins_by_tag"].items()} == {
        tag: sum(tag in of_clip for of_clip in tags) for tag in {tag for of_clip in tags for tag in of_clip}
    }
    text = (Path(overlays.folder(data, config.name)) / "disagreement.csv").read_text()
    listed = list(csv.DictReader(text.splitlines()))
    assert len(listed) == 24 and json.loads(listed[0]["captions"]).keys() <= set("abc")
    assert 0 < float(listed[0]["agreement"]) < 1
    best = selection.select(data, SelectionConfig(captions=config.name, best_only=True))
    assert {tuple(row) for table in best for row in table["text"].to_pylist()} == {(texts[0],)}
    before = {path: path.stat().st_mtime_ns for path in Path(overlays.folder(data, config.name)).iterdir()}
    run(config)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_clip_that_one_overlay_lacks_gets_the_captions_of_the_others(data: str) -> None:
    overlay(data, "none", [], [])
    run(ChooseConfig(data=data, name="with-shards", overlays=("none", "shards", "b"), by="agreement", in_process=True))
    own = dict(zip(ClipIndex(data).keys, ClipIndex(data).texts(), strict=True))
    rows = overlays.read_captions(data, "with-shards")
    assert all(set(rows[key]["text"]) == {NEAR, *texts} for key, texts in own.items())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"overlays": ("a",)}, "--overlays .*: name two or more"),
        ({"overlays": ("a", "a")}, "--overlays .*: name two or more"),
        ({"overlays": ("a", "zzz")}, "--overlays 'zzz': no such overlay"),
        ({"overlays": ("a", "shards")}, "--overlays 'shards': its scores are not comparable"),
        ({"overlays": ("a", "other")}, "--overlays .*: were scored by different models"),
        ({"by": "audit"}, "--audits is missing: --by audit needs them"),
        ({"audits": ("a-audit",)}, "--audits .*: give one for each of --overlays: a, b"),
        ({"name": "shards"}, "--name 'shards'"),
    ],
)
def test_commands_that_cannot_be_are_refused(data: str, fields: dict[str, Any], message: str) -> None:
    overlay(data, "other", [FAR], [0.1], revision="another")
    with pytest.raises(InputError, match=message):
        run(ChooseConfig(**{"data": data, "name": "refused", "overlays": ("a", "b"), "in_process": True} | fields))

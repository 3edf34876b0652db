"""Who wrote which captions: in records, overlay.json, dataset card and listening page; and which captions scores are of."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.configs import RECAPTION, SCORE
from pipeline.dataset import authorship, overlays, selection, shards
from pipeline.dataset.clip_index import ClipIndex
from pipeline.dataset.selection import FilterConfig, SelectionConfig
from pipeline.errors import InputError
from pipeline.graph.engine import ActorConfig
from pipeline.pages import dataset_card
from pipeline.stages import choose, listen, recaption, score
from pipeline.stages.choose import ChooseConfig
from pipeline.stages.listen import ListenConfig
from tests.support.chat_server import captioned

IN_PROCESS = ActorConfig(max=0)


@pytest.fixture(scope="module")
def made(corpus: str, captioner: str, clap: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset that one captioner wrote, an overlay of another, scores of both, and the choice among them."""
    data = captioned(corpus, str(tmp_path_factory.mktemp("authorship") / "data"))
    again(data, captioner)
    for captions in ("", "again"):
        scored(data, clap, captions, f"scored-{captions}")
    config = ChooseConfig(data=data, name="best", overlays=("scored-", "scored-again"), in_process=True)
    choose.run(config)
    return data


def again(data: str, captioner: str, seed: int = 0) -> None:
    config = RECAPTION["tiny"][1]
    decoding = dataclasses.replace(config.decoding, method="nucleus", seed=seed)
    recaption.run(
        dataclasses.replace(config, data=data, captioner=captioner, name="again", actors=IN_PROCESS, decoding=decoding)
    )


def scored(data: str, clap: str, captions: str, name: str) -> None:
    config = SCORE["tiny"][1]
    score.run(dataclasses.replace(config, data=data, model=clap, captions=captions, name=name, actors=IN_PROCESS))


@pytest.fixture
def data(made: str, tmp_path: Path) -> str:
    """A copy that a test may change."""
    return str(shutil.copytree(made, tmp_path / "data"))


def test_every_caption_of_a_choice_names_its_captioner(made: str) -> None:
    rows = overlays.read_captions(made, "best")
    records = [record for row in rows.values() for record in json.loads(row["captions"] or "")]
    models = {(record["overlay"], record["model"]) for record in records}
    assert models == {("scored-", "acme"), ("scored-again", "captioner")}
    assert all(record["revision"] for record in records)
    first, second = overlays.read_info(made, "best")["candidates"]
    assert (first["scored"]["overlay"], first["scored"]["model"]) == ("shards", "openai:acme")
    assert (second["scored"]["overlay"], second["scored"]["stage"]) == ("again", "pipeline recaption")
    info = overlays.read_info(made, "best")
    found = info["captioners"]
    assert set(found) == {"scored-: acme", "scored-again: captioner"}
    assert {name.split(":")[0]: one["first"] for name, one in found.items()} == info["wins"]
    assert sum(one["captions"] for one in found.values()) == len(records)


def test_the_card_counts_the_captions_of_each_captioner(data: str) -> None:
    uri = storage.join(data, dataset_card.CARD_FILE)
    card = storage.read_text(uri)
    own = sum(map(len, ClipIndex(data).texts()))
    assert f"| the shards' | openai:acme | 24 | {own} | 24 |" in card
    counts = overlays.read_info(data, "best")["captioners"]["scored-again: captioner"]
    wanted = f"| overlay `best` | scored-again: captioner | {counts['clips']} | {counts['captions']} |"
    assert f"{wanted} {counts['first']} | {counts['example']} |" in card
    assert "| overlay `again` | captioner | 24 |" in card and "overlay `scored" not in card
    begin, end = (card.index(mark) for mark in (dataset_card.CAPTIONERS_BEGIN, dataset_card.CAPTIONERS_END))
    old = card[:begin].removesuffix("## Captioners\n\n") + card[end:].removeprefix(f"{dataset_card.CAPTIONERS_END}\n\n")
    assert "Captioners" not in old
    for earlier in (card, old):
        storage.publish(uri, earlier.encode())
        dataset_card.name_captioners(data)
        assert storage.read_text(uri) == card


def test_the_listening_page_shows_clips_of_each_captioner(data: str) -> None:
    listen.run(ListenConfig(data=data, captions="best", clips=3))
    page = (Path(data) / listen.PAGE_FILE).read_text()
    wins = {name: one["first"] for name, one in overlays.read_info(data, "best")["captioners"].items()}
    for name, count in wins.items():
        assert (f"First caption by {name}" in page) == (count > 0)
        assert f">{name}<" in page
    listen.run(ListenConfig(data=data, captions="again", clips=3))
    assert "First caption by" not in (Path(data) / listen.PAGE_FILE).read_text()


BY_SCORE = (SelectionConfig(captions="scored-again", keep_fraction=0.5),
            SelectionConfig(captions="scored-again", filter=FilterConfig(min_score=-1.0)))  # fmt: skip


def test_scores_of_captions_that_were_replaced_are_refused(data: str, captioner: str, clap: str) -> None:
    for config in BY_SCORE:
        assert list(selection.select(data, config))
    shutil.rmtree(overlays.folder(data, "again"))
    assert list(selection.select(data, BY_SCORE[0])), "the scores hold a copy of what is gone"
    again(data, captioner, seed=1)
    message = "'scored-again': scores other captions than the overlay again has now; .*score --captions again`"
    for config in BY_SCORE:
        with pytest.raises(InputError, match=f"--captions {message}"):
            selection.select(data, config)
    assert list(selection.select(data, SelectionConfig(captions="scored-again"))), "its captions, not by their scores"
    better = ChooseConfig(data=data, name="better", overlays=("scored-", "scored-again"), in_process=True)
    with pytest.raises(InputError, match=f"--overlays {message}"):
        choose.run(better)
    scored(data, clap, "again", "scored-anew")
    choose.run(dataclasses.replace(better, overlays=("scored-", "scored-anew")))


def test_scores_of_another_dataset_are_refused_and_those_without_a_record_go_on(data: str, corpus: str) -> None:
    ledger = storage.join(data, shards.ledger_name(0))
    table = storage.read_table(ledger)
    texts = [[f"{text} again" for text in of_clip] for of_clip in table["text"].to_pylist()]
    column = table.schema.get_field_index("text")
    storage.publish_table(ledger, table.set_column(column, table.schema.field(column), [texts]))
    config = SelectionConfig(captions="scored-", keep_fraction=0.5)
    with pytest.raises(InputError, match="scores other captions than the shards have now"):
        selection.select(data, config)
    marker = storage.join(overlays.folder(data, "scored-"), overlays.MARK_FILE)
    info = storage.read_json(marker)
    for name in ("captions", authorship.DIGEST):
        del info[name]
    storage.publish_json(marker, info)
    assert list(selection.select(data, config))
    assert authorship.scored_captions(data, "scored-") == ""


def test_parts_from_before_there_was_a_record_make_scores_without_one(data: str, clap: str) -> None:
    folder = overlays.folder(data, "scored-again")
    part = storage.join(folder, shards.ledger_name(0))
    storage.publish_table(part, storage.read_table(part).replace_schema_metadata(None))
    storage.remove(storage.join(folder, overlays.MARK_FILE))
    storage.remove(storage.join(folder, shards.ledger_name(1)))
    scored(data, clap, "again", "scored-again")
    info = overlays.read_info(data, "scored-again")
    assert info["captions"] == "again" and authorship.DIGEST not in info

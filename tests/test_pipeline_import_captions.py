"""Published captions as overlays: names, starts, formats, and what finds no match."""

import json
from pathlib import Path

import pytest

from pipeline.dataset import overlays, selection
from pipeline.dataset.clip_index import ClipIndex
from pipeline.dataset.selection import SelectionConfig
from pipeline.errors import InputError
from pipeline.planning.plan import read_plan
from pipeline.sources.published_captions import parse_name
from pipeline.stages.import_captions import ImportCaptionsConfig, run
from tests.support.chat_server import captioned

ID = "YbcdefghijK"  # begins with the letter that AudioSet's names put before an id


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (ID, (ID, None)),
        (f"Y{ID}", (ID, None)),
        (f"Y{ID}.wav", (ID, None)),
        (f"audio/Y{ID}.flac", (ID, None)),
        (f"{ID}_30000_40000", (ID, 30.0)),
        (f"Y{ID}_30.000_40.000.wav", (ID, 30.0)),
        (f"{ID}_30_40", (ID, 30.0)),
        (f"{ID}_000030.mp4", (ID, 30.0)),
        (f"{ID}_0_10000", (ID, 0.0)),
        ("short", ("", None)),
        ("a name with blanks", ("", None)),
    ],
)
def test_names(name: str, wanted: tuple[str, float | None]) -> None:
    assert parse_name(name) == wanted


@pytest.fixture(scope="module")
def data(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of clips with YouTube ids; no test changes its shards."""
    return captioned(corpus, str(tmp_path_factory.mktemp("import") / "data"))


def places(data: str) -> dict[str, tuple[str, float]]:
    """Return YouTube id and start of every clip."""
    plan = read_plan(data)
    assert plan is not None
    rows = [row for shard in plan.shards for row in plan.read_shard(data, shard)]
    return {row["key"]: (row["origin"].removeprefix("youtube:"), row["start_s"]) for row in rows}


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_captions_are_matched_by_id_and_start_and_others_are_counted(data: str, form: str, tmp_path: Path) -> None:
    (first, one), (second, two), (third, three), *_ = places(data).items()
    assert len({one[0], two[0], three[0]}) == 3
    rows = [
        {"id": f"Y{one[0]}.wav", "caption": "a first caption, with a comma"},
        {"id": f"{one[0]}", "caption": "another of the same clip"},
        {"id": f"{two[0]}_{round(1000 * two[1])}_{round(1000 * two[1]) + 10_000}", "caption": "of the second clip"},
        {"id": f"{three[0]}_{round(1000 * three[1]) + 60_000}_{round(1000 * three[1]) + 70_000}", "caption": "later"},
        {"id": "AAAAAAAAAAA", "caption": "of another recording"},
        {"id": "", "caption": "of nothing"},
        {"id": f"{two[0]}", "caption": ""},
    ]
    source, name = tmp_path / f"published.{form}", f"published-{form}"
    lines = [json.dumps(row) for row in rows]
    quoted = [f'{row["id"]},"{row["caption"]}"' for row in rows]
    text = {"csv": "\n".join(["id,caption", *quoted]), "json": json.dumps({"data": rows}), "jsonl": "\n".join(lines)}
    source.write_text(text[form] + "\n")
    config = ImportCaptionsConfig(data=data, source=str(source), name=name)
    run(config)
    found = overlays.read_captions(data, name)
    assert found[first]["text"] == ["a first caption, with a comma", "another of the same clip"]
    assert found[second]["text"] == ["of the second clip"] and found[third]["text"] == []
    assert json.loads(found[second]["captions"] or "")[0]["model"] == source.name
    info = overlays.read_info(data, name)
    assert info["clips"] == {"matched": 2, "written": len(ClipIndex(data))} and info["score"] is None
    assert info["rows"] == {
        "matched": 3, "another part of the recording, or not written": 1, "recording not in the dataset": 1,
    }  # fmt: skip
    selected = [
        key for table in selection.select(data, SelectionConfig(captions=name)) for key in table["key"].to_pylist()
    ]
    assert sorted(selected) == sorted([first, second])
    marker = Path(overlays.folder(data, name)) / overlays.MARK_FILE
    before = marker.stat().st_mtime_ns
    run(config)
    assert marker.stat().st_mtime_ns == before
    source.write_text(text[form].replace("first", "1st") + "\n")
    with pytest.raises(InputError, match=r"--name .*source_sha256 was"):
        run(config)


@pytest.mark.parametrize(
    ("text", "message"), [("", "no row has"), ("id,caption\nx,y\n", "no row has"), (None, "--source")]
)
def test_a_file_without_captions_is_refused(data: str, text: str | None, message: str, tmp_path: Path) -> None:
    source = tmp_path / "published.csv"
    if text is not None:
        source.write_text(text)
    with pytest.raises(InputError, match=message):
        run(ImportCaptionsConfig(data=data, source=str(source), name="none"))

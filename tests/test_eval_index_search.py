"""`eval index-search`: the index holds what the datasets hold, whatever happened to it before."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import eval.__main__ as eval_room
from eval.search import Query, Searcher, index
from eval.stages import index_search
from eval.stages.index_search import IndexSearchConfig, run
from pipeline import cli, storage
from pipeline.errors import InputError, JobError
from tests.support import shard_set, sounds50

FIRST = {"hum": (100.0, ["a low hum"], ["Hum"]), "tone": (800.0, ["a tone", "a steady tone"], ["Tone", "Hum"])}
SECOND = {"beep": (1_500.0, ["a beep"], ["Beep"]), "whistle": (4_000.0, ["a high whistle"], ["Whistle"])}
THIRD = {"buzz": (300.0, ["a buzz"], ["Buzz"])}
REWORDED = {"hum": ["a transformer hums"], "tone": ["a flute"], "beep": ["an alarm"]}  # the whistle has none


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Two shards of two clips."""
    return shard_set.write(tmp_path / "data", FIRST, SECOND)


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ids of the clips that were embedded."""
    seen: list[str] = []
    stream = index_search.stream

    def counted(config: IndexSearchConfig, loaded: Any, places: pa.Table) -> Iterator[pa.Table]:
        seen.extend(places["id"].to_pylist())
        return stream(config, loaded, places)

    monkeypatch.setattr(index_search, "stream", counted)
    yield seen


def build(out: Path | str, clap: str, *data: str, **options: Any) -> str:
    run(IndexSearchConfig(out=str(out), model=clap, data=data, **options))
    return str(out)


def rows(out: str) -> dict[str, dict[str, Any]]:
    """Return the rows of an index by key, after a look at its ids."""
    table = index.open_table(out).to_arrow().to_pylist()
    assert len({row["id"] for row in table}) == len(table) == index.read_info(out).clips
    return {row["key"]: row for row in table}


def test_a_row_has_what_the_ledger_has_and_where_the_audio_lies(data: str, clap: str, tmp_path: Path) -> None:
    found = rows(build(tmp_path / "index", clap, data))
    assert sorted(found) == ["beep", "hum", "tone", "whistle"]
    tone = found["tone"]
    assert (tone["captions"], tone["tags"], tone["duration_s"]) == (["a tone", "a steady tone"], ["Tone", "Hum"], 0.25)
    assert tone["source_id"] == "source of tone" and tone["data"] == data and tone["uri"] == f"{data}/00000.tar"
    flac = storage.read(tone["uri"], tone["offset"], tone["size"])
    assert flac == shard_set.outcome("tone", *FIRST["tone"]).flac
    info = index.read_info(str(tmp_path / "index"))
    assert info.datasets[0].clips == 4 and info.datasets[0].uri == data and info.dim == 16


def test_nothing_is_embedded_twice(data: str, clap: str, tmp_path: Path, embedded: list[str]) -> None:
    out = build(tmp_path / "index", clap, data)
    before, hash_before = rows(out), index.read_info(out).datasets[0].hash
    assert len(embedded) == 4
    build(out, clap, data)
    assert len(embedded) == 4 and rows(out) == before
    shard_set.write(Path(data), THIRD, first=2)
    build(out, clap, data)
    assert len(embedded) == 5
    after = rows(out)
    assert sorted(after) == sorted([*before, "buzz"]) and {key: after[key] for key in before} == before
    assert index.read_info(out).datasets[0].hash != hash_before


def test_an_overlay_replaces_captions_and_no_vector(data: str, clap: str, tmp_path: Path, embedded: list[str]) -> None:
    out = build(tmp_path / "index", clap, data)
    before = rows(out)
    shard_set.write_overlay(data, "again", REWORDED)
    build(out, clap, data, captions="again")
    after = rows(out)
    assert {key: row["captions"] for key, row in after.items()} == REWORDED | {"whistle": []}
    assert len(embedded) == 4 and all(after[key]["vector"] == before[key]["vector"] for key in before)
    assert Searcher(out).search(Query(text="flute", mode="words"))[0].key == "tone", (
        "the words of the overlay are found"
    )
    assert not Searcher(out).search(Query(text="steady", mode="words")), "the words before it are not"
    shard_set.write_overlay(data, "again", REWORDED | {"hum": ["a fridge"]})
    build(out, clap, data, captions="again")
    assert len(embedded) == 4 and rows(out)["hum"]["captions"] == ["a fridge"]


def test_what_has_gone_is_removed(data: str, clap: str, tmp_path: Path) -> None:
    other = shard_set.write(tmp_path / "other", {"hum": FIRST["hum"]}, THIRD)
    out = build(tmp_path / "index", clap, data, other)
    table = index.open_table(out)
    assert table.count_rows() == 6, "a key of two datasets is two clips"
    storage.publish_json(f"{data}/sizes.json", {"00000.tar": 3})
    build(out, clap, data, other)
    assert sorted(row["key"] for row in index.open_table(out).to_arrow().to_pylist()) == ["buzz", "hum", "hum", "tone"]
    with pytest.raises(InputError, match=f"--data .*the index also holds {other}.*add --drop"):
        build(out, clap, data)
    assert index.open_table(out).count_rows() == 4
    build(out, clap, data, drop=True)
    assert sorted(rows(out)) == ["hum", "tone"]


def test_a_killed_run_goes_on_and_ends_with_the_same_index(data: str, clap: str, tmp_path: Path) -> None:
    whole, out = rows(build(tmp_path / "whole", clap, data)), tmp_path / "index"
    words = ["index-search", "laptop", "--data", data, "--model", clap, "--out", str(out)]
    codes = []
    for number in (3, 3, 4, 99):  # before the second shard, the index of tags, index.json; then to the end
        command = [sys.executable, "-m", "tests.support.killed", str(number), *words]
        codes.append(subprocess.run(command, env=os.environ, stderr=subprocess.PIPE, check=False).returncode)
        if codes[-1]:
            with pytest.raises(InputError, match="no finished index there"):
                Searcher(str(out))
    assert codes == [-signal.SIGKILL] * 3 + [0]
    assert rows(str(out)) == whole
    assert index.read_info(str(out)).datasets == index.read_info(str(tmp_path / "whole")).datasets


def test_ray_actors_make_the_same_index(ray_session: None, data: str, clap: str, tmp_path: Path) -> None:
    alone = rows(build(tmp_path / "alone", clap, data))
    actors = rows(build(tmp_path / "actors", clap, data, workers=2, batch_size=1))
    for key, row in actors.items():
        assert np.abs(np.array(row.pop("vector")) - alone[key].pop("vector")).max() < 1e-5
    assert actors == alone


def test_an_index_on_s3_is_the_one_on_disk(s3: str, data: str, clap: str, tmp_path: Path) -> None:
    local, remote = rows(build(tmp_path / "index", clap, data)), build(f"{s3}/a search/index", clap, data)
    assert rows(remote) == local
    shard_set.write(Path(data), THIRD, first=2)
    build(remote, clap, data)
    assert sorted(rows(remote)) == sorted([*local, "buzz"])
    searcher = Searcher(remote)
    hits = searcher.search(Query(text="a buzz", mode="hybrid", without_tags=("Beep",)))
    assert hits[0].key == "buzz" and len(hits) == 4
    assert searcher.audio(hits[0].id) == shard_set.outcome("buzz", *THIRD["buzz"]).flac


def test_a_table_of_files_is_indexed_too(clap: str, tmp_path: Path, embedded: list[str]) -> None:
    folder = sounds50.write(tmp_path / "sounds", per_fold=1, seconds=0.25)
    (folder / "audio" / "1-1000-A-0.wav").write_bytes(b"no sound")
    out = build(tmp_path / "index", clap, str(folder))
    found, info = rows(out), index.read_info(out)
    assert len(found) == 8 and (info.datasets[0].clips, info.datasets[0].missing) == (8, 1)
    assert found["2-2010-A-1"]["tags"] == ["middle tone"] and found["2-2010-A-1"]["duration_s"] == 0.25
    searcher = Searcher(out)
    hit = searcher.clip(found["2-2010-A-1"]["id"])
    content = (folder / "audio" / "2-2010-A-1.wav").read_bytes()
    assert (hit.uri, hit.offset, hit.size) == (str(folder / "audio" / "2-2010-A-1.wav"), 0, len(content))
    assert searcher.audio(hit.id) == content
    embedded.clear()
    build(out, clap, str(folder))
    assert len(embedded) == 1, "a clip that could not be read is tried again, and no other"
    shutil.copy(folder / "audio" / "2-2020-A-2.wav", folder / "audio" / "1-1000-A-0.wav")
    embedded.clear()
    build(out, clap, str(folder))
    assert len(rows(out)) == 9 and len(embedded) == 1, "a file that changed is read again, and no other"


def test_a_vector_index_comes_with_the_number_of_clips_and_goes(clap: str, tmp_path: Path) -> None:
    parts = [{f"{n}_{i}": (100.0 + 20 * (8 * n + i), [], ["Tone"]) for i in range(8)} for n in range(5)]
    out = build(tmp_path / "index", clap, shard_set.write(tmp_path / "data", *parts), vector_index_from=40)

    def vector_indexes() -> list[str]:
        return [found.index_type for found in index.open_table(out).list_indices() if found.columns == ["vector"]]

    assert len(vector_indexes()) == 1
    like = rows(out)["2_3"]["id"]
    assert len(Searcher(out).search(Query(like=like, k=39))) == 39, "all that is asked for comes back"
    build(out, clap, str(tmp_path / "data"), vector_index_from=41)
    assert not vector_indexes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ()}, "--data is missing: give one or more datasets"),
        ({"data": ("absent",)}, "--data 'absent': no such file"),
        ({"data": ("{data}", "{data}")}, "is given twice"),
        ({"captions": "absent"}, "--captions 'absent': no such overlay"),
        ({"model": "absent"}, "--model 'absent': no checkpoint there"),
        ({"out": ""}, "--out is missing"),
        ({"out": "hf://a/b"}, "--out 'hf://a/b': hf:// is read only"),
        ({"vector_index_from": 0}, "--vector-index-from 0: use 1 or more"),
        ({"batch_size": 0}, "--batch-size 0: use 1 or more"),
    ],
)
def test_wrong_commands(data: str, clap: str, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"data": ("{data}",), "model": clap, "out": str(tmp_path / "index")} | change
    options["data"] = tuple(each.format(data=data) for each in options["data"])
    with pytest.raises(InputError, match=message):
        run(IndexSearchConfig(**options))


def test_an_index_is_of_one_model(data: str, clap: str, tmp_path: Path) -> None:
    out = build(tmp_path / "index", clap, data)
    other = shutil.copytree(clap, tmp_path / "other")
    config = storage.read_json(str(other / "config.json"))
    storage.publish_json(str(other / "config.json"), config | {"revision": "0" * 64})
    with pytest.raises(InputError, match=r"--out .*holds the work of another config \(revision was"):
        build(out, str(other), data)


def test_clips_that_cannot_be_read_are_no_index(clap: str, tmp_path: Path) -> None:
    folder = sounds50.write(tmp_path / "sounds", per_fold=1, seconds=0.25)
    for file in (folder / "audio").iterdir():
        file.write_bytes(b"no sound")
    with pytest.raises(JobError, match="none of 9 clips could be read"):
        build(tmp_path / "index", clap, str(folder))


def test_without_lancedb_the_extra_is_named(
    data: str, clap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)  # as Python does where it is not installed
    words = ["index-search", "laptop", "--data", data, "--model", clap, "--out", str(tmp_path / "index")]
    assert cli.main("eval", "", eval_room.STAGES, words) == 2
    assert "pip install -e '.[search]'" in capsys.readouterr().err

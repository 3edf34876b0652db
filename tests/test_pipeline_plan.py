"""Plans: fixed by the listing alone, without evaluation clips, and drafted without holding the listing."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import sources, storage
from pipeline.audio import fingerprint_table
from pipeline.errors import InputError
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.planning.draft import CLIP_FIELDS, HASHED, PlanDraft, draft_plan
from pipeline.planning.plan import Plan, read_plan
from pipeline.planning.publish import extend_plan, publish_plan
from pipeline.planning.tables import SCHEMA, TableWriter
from pipeline.stages.plan import PlanConfig
from pipeline.stages.plan import run as run_plan

OPEN = DecontaminationConfig()


def listing(folder: Path, rows: Sequence[str], name: str = "clips.csv", root: str = "/a") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("file,label\n" + "".join(f"{root}/{row}\n" for row in rows))
    return str(folder / name)


ROWS = [f"{i}.wav,{'Rain' if i % 2 else ''}" for i in range(10)]


def draft(out: Path | str, source: str, size: int = 4, folds: tuple[str, ...] = ()) -> PlanDraft:
    return draft_plan(str(out), source, folds, size, OPEN)


def test_hash_depends_on_what_is_captioned_not_on_where_it_lies(tmp_path: Path) -> None:
    here = draft("", listing(tmp_path, ["x/" + r for r in ROWS])).plan.hash
    (tmp_path / "x").mkdir()
    assert here == draft("", listing(tmp_path / "copy", ["x/" + r for r in ROWS])).plan.hash
    other_tag = [ROWS[0].replace(",", ",Wind"), *ROWS[1:]]
    changed = [(ROWS, 5), (other_tag, 4), (ROWS[:-1], 4), (ROWS[::-1], 4)]
    hashes = {draft("", listing(tmp_path, ["x/" + r for r in rows]), size).plan.hash for rows, size in changed}
    assert len(hashes | {here}) == 5


def test_shards_are_row_groups(tmp_path: Path) -> None:
    data = str(tmp_path / "out")
    made = publish_plan(data, draft(data, listing(tmp_path, ROWS)))
    assert len(made.shards) == 3 and made.tags == {"Rain": 5} and made.num_without_tags == 5
    shards = [made.read_shard(data, shard) for shard in range(3)]
    assert [len(shard) for shard in shards] == [4, 4, 2]
    assert [sum(made.count_clips(data, [shard])) for shard in range(3)] == [4, 4, 2]
    assert [row["source_id"] for shard in shards for row in shard] == [f"/a/{i}.wav" for i in range(10)]


def test_another_plan_in_the_same_place_is_refused_and_moved_audio_renews_it(tmp_path: Path) -> None:
    data = str(tmp_path / "out")
    source = listing(tmp_path / "one", ROWS, root="audio")
    made = publish_plan(data, draft(data, source))
    again = draft(data, source)
    assert again.tables is None and again.plan == made, "an unchanged source is not listed again"
    moved = draft(data, listing(tmp_path / "two", ROWS, root="audio"))
    publish_plan(data, moved)
    assert made.read_shard(data, 0)[0]["uri"] == str(tmp_path / "two" / "audio" / "0.wav")
    before = made.read_shard(data, 0)
    with pytest.raises(InputError, match="lists other clips than the 10 of its plan"):
        draft(data, listing(tmp_path / "two", ROWS[:5], root="audio"))
    with pytest.raises(InputError, match=r"--out.*clips_per_shard was 4, now 5; choose another folder"):
        draft(data, listing(tmp_path / "two", ROWS, root="audio"), size=5)
    published = read_plan(data)
    assert published and published.read_shard(data, 0) == before


def test_keys_that_meet_are_an_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'/a/x 1.wav' and '/a/x_1.wav' give the same key '_a_x_1'.*1 more keys"):
        draft("", listing(tmp_path, ["x 1.wav,", "y.wav,", "x_1.wav,", "z.ogg,", "z.wav,"]), size=2)


@pytest.mark.parametrize(
    ("rows", "message"), [("", "lists no clip"), ("\n\n", "lists no clip"), ("\n ,Rain\n", "line 3: names no file")]
)
def test_a_source_without_clips_is_an_error(tmp_path: Path, rows: str, message: str) -> None:
    source = tmp_path / "clips.csv"
    source.write_text("file,label\n" + rows)
    with pytest.raises(InputError, match=message):
        draft("", str(source))


def test_a_dry_run_prints_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = listing(tmp_path, ROWS)
    run_plan(PlanConfig(source=source, out=str(tmp_path / "out"), clips_per_shard=4, dry_run=True))
    printed = capsys.readouterr().out
    assert "5  Rain" in printed and "10 clips, 10 after exclusions, 5 without tags" in printed and "3 shards" in printed
    assert "not checked: audioset-eval, audiocaps, clotho" in printed
    assert not (tmp_path / "out").exists()


def test_hours_and_size_of_audioset_rows_are_printed(corpus: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_plan(PlanConfig(source=storage.join(corpus, "tagged_segments.csv"), dry_run=True))
    assert "24 clips" in (printed := capsys.readouterr().out)
    assert "0.0 h as listed" in printed and "GB" in printed


def test_a_retry_adds_shards_and_leaves_the_others(tmp_path: Path) -> None:
    data = str(tmp_path / "out")
    made = publish_plan(data, draft(data, listing(tmp_path, ROWS)))
    again = made.read_shard(data, 1)[:3] + made.read_shard(data, 2)
    longer = extend_plan(data, made, again, {"missing": 5})
    assert read_plan(data) == longer and len(longer.shards) == 5
    assert longer.read_shard(data, 3) + longer.read_shard(data, 4) == again
    assert longer.read_shard(data, 2) == made.read_shard(data, 2)
    assert sum(longer.count_clips(data, range(5))) == 15
    assert len({longer.part_of(shard).hash for shard in range(5)}) == 2
    assert draft(data, str(tmp_path / "clips.csv")).plan == longer, "listing again keeps what was retried"


@pytest.mark.parametrize(("out", "message"), [("foo://x/y", "Unrecognized filesystem type"), ("hf://a/b", "read only")])
def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path, out: str, message: str) -> None:
    with pytest.raises(InputError, match=f"--out '{out}'.*{message}"):
        run_plan(PlanConfig(source=listing(tmp_path, ROWS), out=out))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"--out .*file/out.*cannot be written"):
        run_plan(PlanConfig(source=listing(tmp_path, ROWS), out=str(tmp_path / "file" / "out")))


def test_what_comes_beside_a_table_renews_the_plan(tmp_path: Path) -> None:
    """Audio and captions that arrive after the plan; the plan itself stays the same."""
    data, segments = str(tmp_path / "out"), tmp_path / "in" / "a_segments.csv"
    (tmp_path / "in" / "audio").mkdir(parents=True)
    segments.write_text('# S\n# n\n# YTID, s, e, l\naaaaaaaaaaa, 30.0, 40.0, "/m/0"\n')
    (tmp_path / "in" / "class_labels_indices.csv").write_text('index,mid,display_name\n0,/m/0,"Dog"\n')
    made = publish_plan(data, draft(data, str(segments)))
    assert draft(data, str(segments)).tables is None
    (tmp_path / "in" / "audio" / "aaaaaaaaaaa_30.wav").write_bytes(b"RIFF")
    again = publish_plan(data, draft(data, str(segments)))
    assert again.hash == made.hash
    assert again.read_shard(data, 0)[0]["uri"].endswith("audio/aaaaaaaaaaa_30.wav")
    (tmp_path / "in" / "class_labels_indices.csv").write_text('index,mid,display_name\n0,/m/0,"Hound"\n')
    with pytest.raises(InputError, match="lists other clips"):
        draft(data, str(segments))


def test_a_plan_with_fingerprints_is_another_plan(tmp_path: Path) -> None:
    data, source, table = str(tmp_path / "out"), listing(tmp_path, ROWS), str(tmp_path / "eval.parquet")
    storage.publish_table(
        table, pa.Table.from_pylist([{"name": "x", "words": b"0000"}], schema=fingerprint_table.SCHEMA)
    )
    publish_plan(data, draft_plan(data, source, (), 4, DecontaminationConfig(fingerprints=(table,))))
    with pytest.raises(InputError, match=r"fingerprints was .*, now"):
        draft(data, source)
    assert draft_plan(data, source, (), 4, DecontaminationConfig(fingerprints=(table,))).tables is None


def as_before(data: str, source: str) -> dict[str, Any]:
    """Publish a plan as datasets of before December 2026 have it: one table, and no bound but by clips."""
    made = draft(data, source)
    rows = [row for table in (made.tables or TableWriter()).tables() for row in rows_of(table)]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), f"{data}/plan.parquet", row_group_size=4)
    old = {name: value for name, value in made.plan.to_json().items() if name != "shards_per_table"}
    old["made_from"] = {name: value for name, value in old["made_from"].items() if name != "max_shard_mb"}
    storage.publish_json(f"{data}/plan.json", old)
    return old


def rows_of(table: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(table)).to_pylist()
    return rows


def test_a_plan_in_one_table_goes_on(tmp_path: Path) -> None:
    data = str(tmp_path / "out")
    (tmp_path / "out").mkdir()
    content = as_before(data, listing(tmp_path / "one", ROWS, root="audio"))
    old = Plan.from_json(content)
    assert draft(data, str(tmp_path / "one" / "clips.csv")).tables is None, "an unchanged source is not listed again"
    assert [len(old.read_shard(data, shard)) for shard in range(3)] == [4, 4, 2]
    assert sum(old.count_clips(data, [0, 2])) == 6
    (tmp_path / "out" / "plan-1.parquet").write_bytes((tmp_path / "out" / "plan.parquet").read_bytes())
    again = {"reasons": {"missing": 10}, "first_shard": 3, "num_shards": 3, "num_clips": 10, "hash": "e"}
    content["retries"] = [{**again, "table": "plan-1.parquet"}]
    storage.publish_json(f"{data}/plan.json", content)
    old = Plan.from_json(content)
    assert old.to_json() == content
    longer = extend_plan(data, old, old.read_shard(data, 5), {"missing": 2})
    assert [len(longer.read_shard(data, shard)) for shard in range(7)] == [4, 4, 2, 4, 4, 2, 2]
    renewed = publish_plan(data, draft(data, listing(tmp_path / "two", ROWS, root="audio")))
    assert renewed.hash == old.hash and renewed.retries == longer.retries
    assert [sum(renewed.count_clips(data, [shard])) for shard in range(7)] == [4, 4, 2, 4, 4, 2, 2]
    assert "two" in renewed.read_shard(data, 0)[0]["uri"]


def test_the_hash_is_that_of_datasets_of_before(tmp_path: Path) -> None:
    clips = sources.read_clips(source := listing(tmp_path, ROWS))
    digest = hashlib.sha256(b"[4, []]")
    for shard in (clips[:4], clips[4:8], clips[8:]):
        columns = [[getattr(clip, CLIP_FIELDS.get(name, name)) for clip in shard] for name in HASHED]
        digest.update(json.dumps([columns, [""] * len(shard)]).encode())
    assert draft("", source).plan.hash == digest.hexdigest()


def test_a_large_plan_has_tables_of_so_many_shards(tmp_path: Path) -> None:
    """Who reads one shard opens one table: what that takes does not grow with the plan."""
    data, rows = str(tmp_path / "out"), [f"{i}.wav," for i in range(150)]
    made = publish_plan(data, draft(data, listing(tmp_path, rows), size=1))
    longer = extend_plan(data, made, [made.read_shard(data, i)[0] for i in range(70)], {"missing": 70})
    assert len(longer.shards) == sum(longer.count_clips(data, range(220))) == 220
    read = [longer.read_shard(data, shard)[0]["source_id"] for shard in range(220)]
    assert read == [f"/a/{i}.wav" for i in [*range(150), *range(70)]]
    tables = sorted((tmp_path / "out" / "plan").glob("*/*.parquet"))
    footers = [pq.read_metadata(path) for path in tables]
    assert sorted(footer.num_row_groups for footer in footers) == [6, 22, 48, 48, 48, 48]
    assert max(footer.serialized_size for footer in footers) < 2**16, "more than Arrow reads at once"


def test_a_plan_that_was_not_finished_is_no_plan(tmp_path: Path) -> None:
    """Its maker died before plan.json; then the source changed."""
    data = str(tmp_path / "out")
    unfinished = draft(data, listing(tmp_path, ROWS))
    assert unfinished.tables is not None
    unfinished.tables.publish(data, unfinished.plan.hash)
    assert read_plan(data) is None
    made = publish_plan(data, draft(data, listing(tmp_path, ROWS[:3])))
    assert [len(made.read_shard(data, shard)) for shard in range(made.num_shards)] == [3]


def test_of_two_plans_at_once_one_is_published(tmp_path: Path) -> None:
    data = str(tmp_path / "out")
    ours = draft(data, listing(tmp_path / "one", ROWS))
    same = draft(data, listing(tmp_path / "one", ROWS, name="same.csv"))
    other = draft(data, listing(tmp_path / "two", ROWS[:5]))
    made = publish_plan(data, ours)
    longer = extend_plan(data, made, made.read_shard(data, 0), {"missing": 4})
    with pytest.raises(InputError, match="has just planned it otherwise; start again"):
        publish_plan(data, other)
    assert read_plan(data) == longer
    assert publish_plan(data, same).retries == longer.retries, "a retry since is kept"
    assert [len(longer.read_shard(data, shard)) for shard in range(4)] == [4, 4, 2, 4]
    assert len(storage.list_names(storage.join(data, "plan"))) == 2, "the plan's tables and the retry's"

"""Plans: fixed by the listing alone, without evaluation clips, and drawn without holding the listing."""

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
from pipeline.planning import draft, plan
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.planning.tables import TableWriter
from pipeline.stages.plan import PlanConfig
from pipeline.stages.plan import run as run_plan

OPEN = DecontaminationConfig()


def listing(folder: Path, rows: Sequence[str], name: str = "clips.csv", root: str = "/a") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("file,label\n" + "".join(f"{root}/{row}\n" for row in rows))
    return str(folder / name)


ROWS = [f"{i}.wav,{'Rain' if i % 2 else ''}" for i in range(10)]


def drawn(out: Path | str, source: str, size: int = 4, folds: tuple[str, ...] = ()) -> draft.PlanDraft:
    return plan.draft(str(out), source, folds, size, OPEN)


def test_hash_depends_on_what_is_captioned_not_on_where_it_lies(tmp_path: Path) -> None:
    here = drawn("", listing(tmp_path, ["x/" + r for r in ROWS])).plan["hash"]
    (tmp_path / "x").mkdir()
    assert here == drawn("", listing(tmp_path / "copy", ["x/" + r for r in ROWS])).plan["hash"]
    other_tag = [ROWS[0].replace(",", ",Wind"), *ROWS[1:]]
    changed = [(ROWS, 5), (other_tag, 4), (ROWS[:-1], 4), (ROWS[::-1], 4)]
    hashes = {drawn("", listing(tmp_path, ["x/" + r for r in rows]), size).plan["hash"] for rows, size in changed}
    assert len(hashes | {here}) == 5


def test_shards_are_row_groups(tmp_path: Path) -> None:
    data = str(tmp_path / "out")
    made = plan.publish(data, drawn(data, listing(tmp_path, ROWS)))
    assert plan.num_shards(made) == 3 and made["tags"] == {"Rain": 5} and made["num_without_tags"] == 5
    shards = [plan.read_shard(data, made, shard) for shard in range(3)]
    assert [len(shard) for shard in shards] == [4, 4, 2]
    assert [plan.clips_in(data, made, [shard]) for shard in range(3)] == [4, 4, 2]
    assert [row["source_id"] for shard in shards for row in shard] == [f"/a/{i}.wav" for i in range(10)]


def test_another_plan_in_the_same_place_is_refused_and_moved_audio_renews_it(tmp_path: Path) -> None:
    data = str(tmp_path / "out")
    source = listing(tmp_path / "one", ROWS, root="audio")
    made = plan.publish(data, drawn(data, source))
    again = drawn(data, source)
    assert again.tables is None and again.plan == made, "an unchanged source is not listed again"
    moved = drawn(data, listing(tmp_path / "two", ROWS, root="audio"))
    plan.publish(data, moved)
    assert plan.read_shard(data, made, 0)[0]["uri"] == str(tmp_path / "two" / "audio" / "0.wav")
    before = plan.read_shard(data, made, 0)
    with pytest.raises(InputError, match="lists other clips than the 10 of its plan"):
        drawn(data, listing(tmp_path / "two", ROWS[:5], root="audio"))
    with pytest.raises(InputError, match=r"--out.*clips_per_shard was 4, now 5; choose another folder"):
        drawn(data, listing(tmp_path / "two", ROWS, root="audio"), size=5)
    assert plan.read_shard(data, plan.read(data) or {}, 0) == before


def test_keys_that_meet_are_an_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'/a/x 1.wav' and '/a/x_1.wav' give the same key '_a_x_1'.*1 more keys"):
        drawn("", listing(tmp_path, ["x 1.wav,", "y.wav,", "x_1.wav,", "z.ogg,", "z.wav,"]), size=2)


@pytest.mark.parametrize(
    ("rows", "said"), [("", "lists no clip"), ("\n\n", "lists no clip"), ("\n ,Rain\n", "line 3: names no file")]
)
def test_a_source_without_clips_is_an_error(tmp_path: Path, rows: str, said: str) -> None:
    source = tmp_path / "clips.csv"
    source.write_text("file,label\n" + rows)
    with pytest.raises(InputError, match=said):
        drawn("", str(source))


def test_a_dry_run_tells_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = listing(tmp_path, ROWS)
    run_plan(PlanConfig(source=source, out=str(tmp_path / "out"), clips_per_shard=4, dry_run=True))
    told = capsys.readouterr().out
    assert "5  Rain" in told and "10 clips, 10 after exclusions, 5 without tags" in told and "3 shards" in told
    assert "not checked: audioset-eval, audiocaps, clotho" in told
    assert not (tmp_path / "out").exists()


def test_hours_and_size_of_audioset_rows_are_told(corpus: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_plan(PlanConfig(source=storage.join(corpus, "tagged_segments.csv"), dry_run=True))
    assert "24 clips" in (told := capsys.readouterr().out)
    assert "0.0 h as listed" in told and "GB" in told


def test_a_retry_adds_shards_and_leaves_the_others(tmp_path: Path) -> None:
    data = str(tmp_path / "out")
    made = plan.publish(data, drawn(data, listing(tmp_path, ROWS)))
    again = plan.read_shard(data, made, 1)[:3] + plan.read_shard(data, made, 2)
    longer = plan.extend(data, made, again, {"missing": 5})
    assert plan.read(data) == longer and plan.num_shards(longer) == 5
    assert plan.read_shard(data, longer, 3) + plan.read_shard(data, longer, 4) == again
    assert plan.read_shard(data, longer, 2) == plan.read_shard(data, made, 2)
    assert plan.clips_in(data, longer, range(5)) == 15
    assert len({plan.part_of(longer, shard)["hash"] for shard in range(5)}) == 2
    assert drawn(data, str(tmp_path / "clips.csv")).plan == longer, "listing again keeps what was retried"


@pytest.mark.parametrize(("out", "said"), [("foo://x/y", "Unrecognized filesystem type"), ("hf://a/b", "read only")])
def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path, out: str, said: str) -> None:
    with pytest.raises(InputError, match=f"--out '{out}'.*{said}"):
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
    made = plan.publish(data, drawn(data, str(segments)))
    assert drawn(data, str(segments)).tables is None
    (tmp_path / "in" / "audio" / "aaaaaaaaaaa_30.wav").write_bytes(b"RIFF")
    again = plan.publish(data, drawn(data, str(segments)))
    assert again["hash"] == made["hash"]
    assert plan.read_shard(data, again, 0)[0]["uri"].endswith("audio/aaaaaaaaaaa_30.wav")
    (tmp_path / "in" / "class_labels_indices.csv").write_text('index,mid,display_name\n0,/m/0,"Hound"\n')
    with pytest.raises(InputError, match="lists other clips"):
        drawn(data, str(segments))


def test_a_plan_with_fingerprints_is_another_plan(tmp_path: Path) -> None:
    data, source, table = str(tmp_path / "out"), listing(tmp_path, ROWS), str(tmp_path / "eval.parquet")
    storage.publish_table(
        table, pa.Table.from_pylist([{"name": "x", "words": b"0000"}], schema=fingerprint_table.SCHEMA)
    )
    plan.publish(data, plan.draft(data, source, (), 4, DecontaminationConfig(fingerprints=(table,))))
    with pytest.raises(InputError, match=r"fingerprints was .*, now"):
        drawn(data, source)
    assert plan.draft(data, source, (), 4, DecontaminationConfig(fingerprints=(table,))).tables is None


def as_before(data: str, source: str) -> dict[str, Any]:
    """Publish a plan as datasets of before December 2026 have it: one table, and no bound but by clips."""
    made = drawn(data, source)
    rows = [row for table in (made.tables or TableWriter(draft.SCHEMA)).tables() for row in rows_of(table)]
    pq.write_table(pa.Table.from_pylist(rows, schema=draft.SCHEMA), f"{data}/plan.parquet", row_group_size=4)
    old = {name: value for name, value in made.plan.items() if name != "shards_per_table"}
    old["made_from"] = {name: value for name, value in old["made_from"].items() if name != "max_shard_mb"}
    storage.publish_json(f"{data}/plan.json", old)
    return old


def rows_of(table: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(table)).to_pylist()
    return rows


def test_a_plan_in_one_table_goes_on(tmp_path: Path) -> None:
    data = str(tmp_path / "out")
    (tmp_path / "out").mkdir()
    old = as_before(data, listing(tmp_path / "one", ROWS, root="audio"))
    assert drawn(data, str(tmp_path / "one" / "clips.csv")).tables is None, "an unchanged source is not listed again"
    assert [len(plan.read_shard(data, old, shard)) for shard in range(3)] == [4, 4, 2]
    assert plan.clips_in(data, old, [0, 2]) == 6
    (tmp_path / "out" / "plan-1.parquet").write_bytes((tmp_path / "out" / "plan.parquet").read_bytes())
    again = {"reasons": {"missing": 10}, "first_shard": 3, "num_shards": 3, "num_clips": 10, "hash": "e"}
    old["retries"] = [{**again, "table": "plan-1.parquet"}]
    storage.publish_json(f"{data}/plan.json", old)
    longer = plan.extend(data, old, plan.read_shard(data, old, 5), {"missing": 2})
    assert [len(plan.read_shard(data, longer, shard)) for shard in range(7)] == [4, 4, 2, 4, 4, 2, 2]
    renewed = plan.publish(data, drawn(data, listing(tmp_path / "two", ROWS, root="audio")))
    assert renewed["hash"] == old["hash"] and renewed["retries"] == longer["retries"]
    assert [plan.clips_in(data, renewed, [shard]) for shard in range(7)] == [4, 4, 2, 4, 4, 2, 2]
    assert "two" in plan.read_shard(data, renewed, 0)[0]["uri"]


def test_the_hash_is_that_of_datasets_of_before(tmp_path: Path) -> None:
    clips = sources.read_clips(source := listing(tmp_path, ROWS))
    digest = hashlib.sha256(b"[4, []]")
    for shard in (clips[:4], clips[4:8], clips[8:]):
        columns = [[getattr(clip, name) for clip in shard] for name in draft.HASHED]
        digest.update(json.dumps([columns, [""] * len(shard)]).encode())
    assert drawn("", source).plan["hash"] == digest.hexdigest()


def test_a_large_plan_has_tables_of_so_many_shards(tmp_path: Path) -> None:
    """Who reads one shard opens one table: what that takes does not grow with the plan."""
    data, rows = str(tmp_path / "out"), [f"{i}.wav," for i in range(150)]
    made = plan.publish(data, drawn(data, listing(tmp_path, rows), size=1))
    longer = plan.extend(data, made, [plan.read_shard(data, made, i)[0] for i in range(70)], {"missing": 70})
    assert plan.num_shards(longer) == plan.clips_in(data, longer, range(220)) == 220
    read = [plan.read_shard(data, longer, shard)[0]["source_id"] for shard in range(220)]
    assert read == [f"/a/{i}.wav" for i in [*range(150), *range(70)]]
    tables = sorted((tmp_path / "out" / "plan").glob("*/*.parquet"))
    footers = [pq.read_metadata(path) for path in tables]
    assert sorted(footer.num_row_groups for footer in footers) == [6, 22, 48, 48, 48, 48]
    assert max(footer.serialized_size for footer in footers) < 2**16, "more than Arrow reads at once"


def test_a_plan_that_was_not_finished_is_no_plan(tmp_path: Path) -> None:
    """Its maker died before plan.json; then the source changed."""
    data = str(tmp_path / "out")
    unfinished = drawn(data, listing(tmp_path, ROWS))
    assert unfinished.tables is not None
    unfinished.tables.publish(data, unfinished.plan["hash"])
    assert plan.read(data) is None
    made = plan.publish(data, drawn(data, listing(tmp_path, ROWS[:3])))
    assert [len(plan.read_shard(data, made, shard)) for shard in range(made["num_shards"])] == [3]


def test_of_two_plans_at_once_one_is_published(tmp_path: Path) -> None:
    data = str(tmp_path / "out")
    ours = drawn(data, listing(tmp_path / "one", ROWS))
    same = drawn(data, listing(tmp_path / "one", ROWS, name="same.csv"))
    other = drawn(data, listing(tmp_path / "two", ROWS[:5]))
    made = plan.publish(data, ours)
    longer = plan.extend(data, made, plan.read_shard(data, made, 0), {"missing": 4})
    with pytest.raises(InputError, match="has just planned it otherwise; start again"):
        plan.publish(data, other)
    assert plan.read(data) == longer
    assert plan.publish(data, same)["retries"] == longer["retries"], "a retry since is kept"
    assert [len(plan.read_shard(data, longer, shard)) for shard in range(4)] == [4, 4, 2, 4]
    assert len(storage.list_names(storage.join(data, "plan"))) == 2, "the plan's tables and the retry's"

"""Plans: fixed by the listing alone, without evaluation clips, and drawn without holding the listing."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import fingerprints, plan, storage
from pipeline.cli import InputError
from pipeline.firewall import FirewallConfig
from pipeline.plan import PlanConfig

OPEN = FirewallConfig()


def listing(folder: Path, rows: Sequence[str], name: str = "clips.csv", root: str = "/a") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("file,label\n" + "".join(f"{root}/{row}\n" for row in rows))
    return str(folder / name)


ROWS = [f"{i}.wav,{'Rain' if i % 2 else ''}" for i in range(10)]


def drawn(out: Path | str, source: str, size: int = 4, folds: tuple[str, ...] = ()) -> plan.Draft:
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
    assert [plan.clips_in(made, [shard]) for shard in range(3)] == [4, 4, 2]
    assert [row["source_id"] for shard in shards for row in shard] == [f"/a/{i}.wav" for i in range(10)]


def test_another_plan_in_the_same_place_is_refused_and_moved_audio_renews_it(tmp_path: Path) -> None:
    data = str(tmp_path / "out")
    source = listing(tmp_path / "one", ROWS, root="audio")
    made = plan.publish(data, drawn(data, source))
    again = drawn(data, source)
    assert again.table == b"" and again.plan == made, "an unchanged source is not listed again"
    moved = drawn(data, listing(tmp_path / "two", ROWS, root="audio"))
    plan.publish(data, moved)
    assert plan.read_shard(data, made, 0)[0]["uri"] == str(tmp_path / "two" / "audio" / "0.wav")
    before = storage.read(storage.join(data, "plan.parquet"))
    with pytest.raises(InputError, match="lists other clips than the 10 of its plan"):
        drawn(data, listing(tmp_path / "two", ROWS[:5], root="audio"))
    with pytest.raises(InputError, match=r"--out.*clips_per_shard was 4, now 5; choose another folder"):
        drawn(data, listing(tmp_path / "two", ROWS, root="audio"), size=5)
    assert storage.read(storage.join(data, "plan.parquet")) == before


def test_keys_that_meet_are_an_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'/a/x 1.wav' and '/a/x_1.wav' give the same key '_a_x_1'.*1 more keys"):
        drawn("", listing(tmp_path, ["x 1.wav,", "y.wav,", "x_1.wav,", "z.ogg,", "z.wav,"]), size=2)


@pytest.mark.parametrize(
    ("rows", "said"), [("", "lists no clip"), ("\n\n", "lists no clip"), ("\n ,Rain\n", "line 3 names no file")]
)
def test_a_source_without_clips_is_an_error(tmp_path: Path, rows: str, said: str) -> None:
    source = tmp_path / "clips.csv"
    source.write_text("file,label\n" + rows)
    with pytest.raises(InputError, match=said):
        drawn("", str(source))


def test_a_dry_run_tells_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = listing(tmp_path, ROWS)
    plan.run(PlanConfig(source=source, out=str(tmp_path / "out"), clips_per_shard=4, dry_run=True))
    told = capsys.readouterr().out
    assert "5  Rain" in told and "10 clips, 10 after exclusions, 5 without tags" in told and "3 shards" in told
    assert "not checked: audioset-eval, audiocaps, clotho" in told
    assert not (tmp_path / "out").exists()


def test_hours_and_size_of_audioset_rows_are_told(corpus: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan.run(PlanConfig(source=storage.join(corpus, "tagged_segments.csv"), dry_run=True))
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
    assert plan.clips_in(longer, range(5)) == 15
    assert len({plan.part_of(longer, shard)["hash"] for shard in range(5)}) == 2
    assert drawn(data, str(tmp_path / "clips.csv")).plan == longer, "listing again keeps what was retried"


@pytest.mark.parametrize(("out", "said"), [("foo://x/y", "Unrecognized filesystem type"), ("hf://a/b", "read only")])
def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path, out: str, said: str) -> None:
    with pytest.raises(InputError, match=f"--out '{out}'.*{said}"):
        plan.run(PlanConfig(source=listing(tmp_path, ROWS), out=out))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"--out .*file/out.*cannot be written"):
        plan.run(PlanConfig(source=listing(tmp_path, ROWS), out=str(tmp_path / "file" / "out")))


def test_what_comes_beside_a_table_renews_the_plan(tmp_path: Path) -> None:
    """Audio and captions that arrive after the plan; the plan itself stays the same."""
    data, segments = str(tmp_path / "out"), tmp_path / "in" / "a_segments.csv"
    (tmp_path / "in" / "audio").mkdir(parents=True)
    segments.write_text('# S\n# n\n# YTID, s, e, l\naaaaaaaaaaa, 30.0, 40.0, "/m/0"\n')
    (tmp_path / "in" / "class_labels_indices.csv").write_text('index,mid,display_name\n0,/m/0,"Dog"\n')
    made = plan.publish(data, drawn(data, str(segments)))
    assert drawn(data, str(segments)).table == b""
    (tmp_path / "in" / "audio" / "aaaaaaaaaaa_30.wav").write_bytes(b"RIFF")
    again = plan.publish(data, drawn(data, str(segments)))
    assert again["hash"] == made["hash"]
    assert plan.read_shard(data, again, 0)[0]["uri"].endswith("audio/aaaaaaaaaaa_30.wav")
    (tmp_path / "in" / "class_labels_indices.csv").write_text('index,mid,display_name\n0,/m/0,"Hound"\n')
    with pytest.raises(InputError, match="lists other clips"):
        drawn(data, str(segments))


def test_a_plan_with_fingerprints_is_another_plan(tmp_path: Path) -> None:
    data, source, table = str(tmp_path / "out"), listing(tmp_path, ROWS), str(tmp_path / "eval.parquet")
    storage.publish_table(table, pa.Table.from_pylist([{"name": "x", "words": b"0000"}], schema=fingerprints.SCHEMA))
    plan.publish(data, plan.draft(data, source, (), 4, FirewallConfig(fingerprints=(table,))))
    with pytest.raises(InputError, match=r"fingerprints was .*, now"):
        drawn(data, source)
    assert plan.draft(data, source, (), 4, FirewallConfig(fingerprints=(table,))).table == b""

"""Where shards end: by clips and by bytes, from what the listing knows, and from nothing else."""

import io
import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import audio, sources, storage
from pipeline.errors import InputError
from pipeline.planning import cut
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.planning.draft import draft_plan
from pipeline.planning.plan import read_plan
from pipeline.planning.publish import extend_plan, publish_plan
from pipeline.sources.clip import Clip

OPEN = DecontaminationConfig()


def lasting(*seconds: float) -> list[Clip]:
    return [Clip(key=str(i), uri=f"/a/{i}.wav", source_id=str(i), end_s=s) for i, s in enumerate(seconds)]


def lengths(clips: list[Clip], max_clips: int, max_mb: float) -> list[int]:
    return [len(shard) for shard in cut.cut(clips, max_clips, max_mb)]


def table(folder: Path, sizes: list[int], row: str = "audio/{}.wav") -> str:
    """Write files of so many bytes and the table that lists them."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        (folder / "audio" / f"{number}.wav").write_bytes(bytes(size))
    (folder / "clips.csv").write_text("file\n" + "".join(row.format(number) + "\n" for number in range(len(sizes))))
    return str(folder / "clips.csv")


def planned(out: Path, source: str, max_shard_mb: float) -> list[int]:
    made = publish_plan(str(out), draft_plan(str(out), source, (), 100, OPEN, max_shard_mb))
    return made.count_clips(str(out), made.shards)


def test_by_default_512_clips_of_ten_seconds_are_a_shard() -> None:
    """As listed, and as WAV at 48 kHz in stereo."""
    assert lengths(lasting(*[10.0] * 1100), 512, cut.MAX_SHARD_MB) == [512, 512, 76]
    wav = [Clip(key=str(i), uri="/a.tar", source_id="", offset=0, size=4 * 48_000 * 10 + 44) for i in range(1100)]
    assert lengths(wav, 512, cut.MAX_SHARD_MB) == [512, 512, 76]


def test_clips_of_ten_minutes_make_small_shards() -> None:
    assert lengths(lasting(*[600.0] * 60), 512, 1000) == [26, 26, 8]  # of 38.4 MB each


def test_shards_are_as_large_as_they_may_be() -> None:
    draw = random.Random(0)
    for _ in range(50):
        clips = lasting(*(draw.choice([1.0, 10.0, 60.0, 5000.0]) for _ in range(draw.randrange(1, 60))))
        max_clips, max_mb = draw.randrange(1, 20), draw.choice([0.5, 5.0, 40.0])
        weights = [min(int(clip.end_s * 64_000), 600 * 64_000) for clip in clips]
        shards = list(cut.cut(clips, max_clips, max_mb))
        assert [clip for shard in shards for clip in shard] == clips
        first = 0
        for shard in shards:
            size = sum(weights[first : first + len(shard)])
            assert len(shard) == 1 or (len(shard) <= max_clips and size <= max_mb * 1e6)
            first += len(shard)
            assert first == len(clips) or len(shard) == max_clips or size + weights[first] > max_mb * 1e6


def test_no_bound_and_unknown_sizes_cut_by_clips_alone() -> None:
    assert lengths(lasting(*[5000.0] * 5), 4, 0) == [4, 1]
    assert lengths(lasting(*[0.0] * 5), 4, 0.001) == [4, 1]  # files that are not there
    broken = [Clip(key=str(i), uri="", source_id="", end_s=9.0, fault="truncated: x") for i in range(5)]
    assert lengths(broken, 4, 0.001) == [4, 1]


def test_files_count_their_bytes(tmp_path: Path) -> None:
    source = table(tmp_path, [400_000, 400_000, 300_000, 2_000_000, 10, 10])
    assert planned(tmp_path / "out", source, 1.0) == [2, 1, 1, 2]
    assert planned(tmp_path / "unbounded", source, 0) == [6]


def test_objects_count_their_bytes(s3: str, tmp_path: Path) -> None:
    for number, size in enumerate([400_000, 700_000, 300_000]):
        storage.publish(f"{s3}/cut/in/{number}.wav", bytes(size))
    assert dict(storage.file_sizes(f"{s3}/cut/in")) == {"0.wav": 400_000, "1.wav": 700_000, "2.wav": 300_000}
    assert planned(tmp_path, f"{s3}/cut/in", 1.0) == [1, 2]


def test_members_of_a_tar_count_their_bytes(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, size in enumerate([400_000, 700_000, 300_000]):
            member = tarfile.TarInfo(f"{number}.wav")
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(size)))
    assert planned(tmp_path / "out", str(tmp_path / "a.tar"), 1.0) == [1, 2]


def test_rows_of_a_parquet_file_do_not_count_the_file(tmp_path: Path) -> None:
    rows = [{"audio": {"bytes": bytes(400_000), "path": f"{i}.wav"}} for i in range(4)]
    storage.publish_table(str(tmp_path / "a.parquet"), pa.Table.from_pylist(rows))
    assert planned(tmp_path / "out", str(tmp_path / "a.parquet"), 0.5) == [4]


def test_no_clip_counts_for_more_than_what_is_read_of_it() -> None:
    long = [Clip(key=str(i), uri="/a.tar", source_id="", offset=0, size=500_000_000) for i in range(4)]
    assert cut.MAX_CLIP_BYTES == audio.MAX_DURATION_S * 64_000
    assert lengths(long, 512, 77) == [2, 2]


def test_only_so_many_folders_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "MAX_FOLDERS", 2)
    clips = []
    for number in range(4):
        path = tmp_path / str(number) / "a.wav"
        path.parent.mkdir()
        path.write_bytes(bytes(400_000))
        clips.append(Clip(key=str(number), uri=str(path), source_id=""))
    assert lengths(clips, 512, 0.5) == [1, 3]  # the last two count nothing


def test_files_that_come_or_change_later_move_no_clip(tmp_path: Path) -> None:
    """The plan was made while some files were missing and others are still to be converted."""
    source = table(tmp_path / "in", [400_000, 400_000, 400_000, 400_000])
    (tmp_path / "in" / "audio" / "1.wav").unlink()
    assert planned(tmp_path / "out", source, 1.0) == [3, 1]
    before = read_plan(str(tmp_path / "out"))
    assert before
    table(tmp_path / "in", [10, 900_000, 900_000, 900_000])
    assert sources.stamp(source) != before.made_from.stamp
    assert planned(tmp_path / "out", source, 1.0) == [3, 1]
    after = read_plan(str(tmp_path / "out"))
    assert after and after.hash == before.hash


def test_another_bound_is_another_plan_where_it_cuts_otherwise(tmp_path: Path) -> None:
    source = table(tmp_path, [400_000] * 4)
    assert planned(tmp_path / "out", source, 1.0) == [2, 2]
    assert planned(tmp_path / "out", source, 1.1) == [2, 2]
    with pytest.raises(InputError, match=r"--out.*max_shard_mb was 1\.1, now 0\.5; choose another folder"):
        planned(tmp_path / "out", source, 0.5)
    with pytest.raises(InputError, match=r"--max-shard-mb -1"):
        planned(tmp_path / "out", source, -1)


def test_a_retry_is_bounded_like_its_plan(tmp_path: Path) -> None:
    data = str(tmp_path / "out")
    planned(tmp_path / "out", table(tmp_path, [400_000] * 5), 1.0)
    made = read_plan(data)
    assert made is not None
    rows = [row for shard in range(3) for row in made.read_shard(data, shard)]
    longer = extend_plan(data, made, rows, {"missing": 5})
    assert [sum(longer.count_clips(data, [shard])) for shard in range(6)] == [2, 2, 1, 2, 2, 1]


def test_a_listing_that_is_cut_as_before_may_be_shorter_or_longer() -> None:
    assert list(cut.cut_as("abcdef", [2, 1, 3], 2)) == [["a", "b"], ["c"], ["d", "e", "f"]]
    assert list(cut.cut_as("abcd", [2, 1, 3], 2)) == [["a", "b"], ["c"], ["d"]]
    assert list(cut.cut_as("abcdef", [1], 2)) == [["a"], ["b", "c"], ["d", "e"], ["f"]]

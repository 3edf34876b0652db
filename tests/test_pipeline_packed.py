"""Tars and Parquet files as sources: the layouts people have, and what is wrong with some of them."""

import io
import json
import os
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import audio, sources, storage
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from tests.support.hub import Hub


def flac(tone: int) -> bytes:
    return audio.encode_flac((np.arange(3200 + tone) % (50 + tone) * 100).astype(np.int16))


def tar(path: Path, members: list[tuple[str, bytes]], cut: int | None = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    path.write_bytes(buffer.getvalue()[:cut])
    return str(path)


def js(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def audio_of(clip: Clip) -> bytes:
    return sources.read_bytes(clip.uri, clip.offset, clip.size, clip.fault)


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_laion_and_img2dataset_tars(tmp_path: Path, request: pytest.FixtureRequest, where: str) -> None:
    members = [
        ("000000001.flac", flac(1)),
        ("000000001.json", js(text=["a dog", "barking"], tag=["Dog", "Wind_noise"], mids=["/m/0bt9lr"], start_s=30.0)),
        ("000000002.mp3", b"mp3 bytes"),
        ("000000002.txt", b"rain falls"),
        ("000000002.json", js(caption="never read: txt is", key="000000002", url="https://freesound.org/s/sounds/42/")),
        ("sub.dir/3.ogg", flac(3)),
    ]
    uri = tar(tmp_path / "00000.tar", members)
    if where == "s3":
        remote = f"{request.getfixturevalue('s3')}/tars/00000.tar"
        storage.publish(remote, Path(uri).read_bytes())
        uri = remote
    one, two, three = sources.read_clips(uri)
    assert (one.key, one.captions, one.tags) == ("000000001", ("a dog", "barking"), ("Dog", "Wind noise"))
    assert (one.mids, one.start_s) == (("/m/0bt9lr",), 30.0)
    assert two.recording_id == "freesound:42" and two.captions == ("rain falls",)
    assert [audio_of(clip) for clip in (one, two, three)] == [flac(1), b"mp3 bytes", flac(3)]
    assert three.key == "sub_dir_3"


def test_our_own_shards_are_a_source(dataset: str) -> None:
    index = ClipIndex(dataset)
    clips = sources.read_clips(dataset)
    assert [clip.key for clip in clips] == index.keys
    assert [list(clip.captions) for clip in clips] == index.texts() and [list(c.tags) for c in clips] == index.tags()
    assert audio_of(clips[9]) == index.flac(9)


def test_interleaved_members_belong_together(tmp_path: Path) -> None:
    members = [("a.flac", flac(1)), ("b.flac", flac(2)), ("b.json", js(text="b")), ("a.json", js(text="a"))]
    a, b = sources.read_clips(tar(tmp_path / "x.tar", members))
    assert (a.captions, b.captions) == (("a",), ("b",)) and audio_of(b) == flac(2)


def test_a_member_that_climbs_out_is_only_a_name(tmp_path: Path) -> None:
    (clip,) = sources.read_clips(tar(tmp_path / "x.tar", [("../../etc/evil.flac", flac(1))]))
    assert clip.key == "_etc_evil" and audio_of(clip) == flac(1)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


@pytest.mark.parametrize(
    ("members", "cut", "faults"),
    [
        ([("a.json", js(text="no sound"))], None, {"a": "missing: the tar has no audio"}),
        ([("a.flac", flac(1)), ("a.json", b"{not json")], None, {"a": "unreadable: a.json"}),
        ([("a.flac", flac(1)), ("a.json", b"[1]")], None, {"a": "unreadable: a.json is no JSON object"}),
        ([("a.flac", flac(1)), ("b.flac", flac(2))], 6000, {"x_tar_end_of": "truncated"}),
        ([("a.flac", flac(1)), ("b.flac", flac(2))], 512 * 8, {"x_tar_end_of": "truncated"}),
    ],
    ids=["no audio", "broken json", "json list", "cut inside", "cut anywhere"],
)
def test_what_is_wrong_with_a_tar_is_a_row(
    tmp_path: Path, members: list[tuple[str, bytes]], cut: int | None, faults: dict[str, str]
) -> None:
    clips = {clip.key: clip for clip in sources.read_clips(tar(tmp_path / "x.tar", members, cut))}
    for key, fault in faults.items():
        assert clips[key].fault.startswith(fault), clips[key]
        with pytest.raises(audio.AudioError, match=fault.split(":")[0]):
            audio_of(clips[key])


def test_a_damaged_header_in_the_middle_is_told(tmp_path: Path) -> None:
    path = Path(tar(tmp_path / "x.tar", [(f"{i}.flac", flac(i)) for i in range(4)]))
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as file:
        data[(member := file.getmembers()[2]).offset + 100 : member.offset + 160] = b"\xff" * 60
    path.write_bytes(data)
    clips = sources.read_clips(str(path))
    assert [clip.key for clip in clips] == ["0", "1", "x_tar_end_of"] and clips[-1].fault.startswith("truncated")


def test_what_is_no_part_of_a_sample_is_passed_over(tmp_path: Path) -> None:
    members = [
        ("._a.flac", b"macOS"),
        (".hidden.json", b"{"),
        ("notes.md", b"#"),
        ("a.flac", flac(1)),
        ("cover.jpg", b""),
    ]
    assert [clip.key for clip in sources.read_clips(tar(tmp_path / "x.tar", members))] == ["a"]


def test_a_spelt_out_tar_that_is_absent_is_an_error(tmp_path: Path) -> None:
    for name in ("00000", "00002"):
        tar(tmp_path / f"{name}.tar", [(f"{name}.flac", flac(1))])
    with pytest.raises(InputError, match=r"no such file \(.*00001.tar\)"):
        sources.read_clips(str(tmp_path / "0000{0..2}.tar"))
    assert [clip.key for clip in sources.read_clips(str(tmp_path / "0000{0,2}.tar"))] == ["00000", "00002"]
    assert [clip.key for clip in sources.read_clips(str(tmp_path / "0000?.tar"))] == ["00000", "00002"]


def test_an_empty_tar_is_no_clip_and_no_tar_is_a_row(tmp_path: Path) -> None:
    empty = tar(tmp_path / "one" / "empty.tar", [])
    with pytest.raises(InputError, match="lists no clip"):
        sources.read_clips(empty)
    (tmp_path / "one" / "noise.tar").write_bytes(b"no tar at all" * 100)
    tar(tmp_path / "one" / "z.tar", [("a.flac", flac(1))])
    clips = sources.read_clips(str(tmp_path / "one"))
    assert [(clip.key, bool(clip.fault)) for clip in clips] == [("noise_tar_end_of", True), ("a", False)]


def test_names_with_marks_choose_files(tmp_path: Path) -> None:
    for i in range(4):
        tar(tmp_path / f"0000{i}.tar", [(f"c{i}.flac", flac(i))])
    assert [c.key for c in sources.read_clips(str(tmp_path / "0000{1..2}.tar"))] == ["c1", "c2"]
    assert [c.key for c in sources.read_clips(str(tmp_path / "*.tar"))] == ["c0", "c1", "c2", "c3"]
    with pytest.raises(InputError, match="no such file"):
        sources.read_clips(str(tmp_path / "9*.tar"))


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_hugging_face_audioset_parquet(tmp_path: Path, request: pytest.FixtureRequest, where: str) -> None:
    rows = [
        {
            "video_id": f"id-{i:08d}",
            "audio": None if i == 3 else {"bytes": None if i == 4 else flac(i), "path": f"id-{i}.flac"},
            "labels": ["/m/0bt9lr", "/t/dd00003"],
            "human_labels": ["Dog", "Male singing"],
        }
        for i in range(7)
    ]
    uri = str(tmp_path / "00.parquet")
    pq.write_table(pa.Table.from_pylist(rows), uri, row_group_size=3)
    if where == "s3":
        remote = f"{request.getfixturevalue('s3')}/parquet/00.parquet"
        storage.publish(remote, Path(uri).read_bytes())
        uri = remote
    clips = sources.read_clips(uri)
    assert [clip.key for clip in clips] == [f"Yid-{i:08d}" for i in range(7)]
    assert clips[0].tags == ("Dog", "Male singing") and clips[0].mids == ("/m/0bt9lr", "/t/dd00003")
    assert clips[0].recording_id == "youtube:id-00000000"
    assert [audio_of(clips[i]) for i in (0, 2, 5, 6)] == [flac(i) for i in (0, 2, 5, 6)]
    for i in (3, 4):
        with pytest.raises(audio.AudioError, match=f"missing: row {i} of"):
            audio_of(clips[i])


def test_other_parquet_layouts(tmp_path: Path) -> None:
    table = pa.table(
        {"flac": [flac(1), flac(2)], "label": [3, 4], "category": ["dog_bark", "rain"], "caption": ["x", "y"]}
    )
    pq.write_table(table, tmp_path / "train-0.parquet")
    one, two = sources.read_clips(str(tmp_path))
    assert (one.key, one.tags, one.captions) == ("train-0_0", ("dog bark",), ("x",)) and audio_of(two) == flac(2)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "wrong.parquet")
    with pytest.raises(InputError, match=r"no column of audio bytes: columns are \['text'\]"):
        sources.read_clips(str(tmp_path / "wrong.parquet"))
    (tmp_path / "noise.parquet").write_bytes(b"no Parquet")
    (broken,) = sources.read_clips(str(tmp_path / "noise.parquet"))
    with pytest.raises(audio.AudioError, match="unreadable"):
        audio_of(broken)


@pytest.mark.parametrize("where", ["disk", "s3"])
@pytest.mark.parametrize("column", ["labels", "audio"])
def test_a_damaged_row_group_costs_its_own_rows(
    tmp_path: Path, request: pytest.FixtureRequest, where: str, column: str
) -> None:
    """Row group 1 of three is overwritten where one of its columns lies."""
    rows = [{"video_id": f"id-{i:08d}", "labels": [f"tag {i}"], "audio": {"bytes": flac(i)}} for i in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=2, use_dictionary=False)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    group = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1)
    chunk = next(c for i in range(3) if (c := group.column(i)).path_in_schema.startswith(column))
    data[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size] = (
        b"\xff" * chunk.total_compressed_size
    )
    uri = str(tmp_path / "a.parquet")
    if where == "s3":
        uri = f"{request.getfixturevalue('s3')}/{column}/a.parquet"
    storage.publish(uri, bytes(data))
    clips = sources.read_clips(uri)
    if column == "labels":
        assert [clip.offset for clip in clips] == [0, 1, -1, 4, 5]
        assert clips[2].fault == "unreadable: the row group is damaged" and clips[2].key == "a_parquet_row_group_1_of"
    else:
        assert [clip.offset for clip in clips] == list(range(6))
    for clip in clips:
        if clip.offset in (2, 3, -1):
            with pytest.raises(audio.AudioError, match="unreadable"):
                audio_of(clip)
        else:
            assert audio_of(clip) == flac(clip.offset)


def test_threads_that_read_one_row_group_load_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"audio": {"bytes": flac(i)}} for i in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    clips = sources.read_clips(str(tmp_path / "a.parquet"))
    loads: list[int] = []
    whole = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda s, i, columns: (loads.append(i), whole(s, i, columns=columns))[1]
    )
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(audio_of, clips)) == [flac(i) for i in range(40)]
    assert loads == [0]


def test_a_row_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.Table.from_pylist([{"audio": {"bytes": flac(1)}}]), tmp_path / "a.parquet")
    (clip,) = sources.read_clips(str(tmp_path / "a.parquet"))
    monkeypatch.setattr("pipeline.audio.MAX_BYTES", len(flac(1)) - 1)
    with pytest.raises(audio.AudioError, match="too_large"):
        audio_of(clip)


def test_an_absent_parquet_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        sources.read_clips(str(tmp_path / "a.parquet"))


def test_listing_reads_no_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"audio": {"bytes": bytes(10_000), "path": f"{i}.flac"}, "label": "x"} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    asked: list[list[str]] = []
    whole = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda s, i, columns: (asked.append(columns), whole(s, i, columns=columns))[1]
    )
    assert len(list(sources.list_clips(str(tmp_path / "a.parquet")))) == 20
    assert asked == [["label", "audio.path"]]


def test_listing_a_tar_on_disk_passes_over_its_audio(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [(f"{i}.flac", bytes(4_000_000)) for i in range(4)])
    counters = Path("/proc/self/io")  # its first line counts the bytes that this process has read
    before = int(counters.read_text().split()[1])
    assert len(sources.read_clips(path)) == 4
    assert int(counters.read_text().split()[1]) - before < 4_000_000


def test_a_dataset_on_the_hub_is_a_source(tmp_path: Path) -> None:
    """In a process of its own: the hub's address is read when its library is imported."""
    rows = [{"video_id": f"id-{i:08d}", "audio": {"bytes": flac(i), "path": "x.flac"}} for i in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    program = """
from pipeline import audio, sources
clips = sources.read_clips("hf://team/model/*.parquet")
print(*(clip.key for clip in clips), len(audio.decode(sources.read_bytes(clips[2].uri, clips[2].offset))))
"""
    with Hub() as hub:
        hub.files["a.parquet"] = (tmp_path / "a.parquet").read_bytes()
        environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0"}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [*(f"Yid-{i:08d}" for i in range(3)), "3202"], done.stderr

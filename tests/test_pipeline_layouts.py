"""Every layout that people have is a source: tables, manifests, packed audio and folders."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import sources
from pipeline.cli import main
from pipeline.errors import InputError
from pipeline.sources import audioset
from pipeline.sources.clip import Clip
from pipeline.stages.plan import PlanConfig
from pipeline.stages.plan import run as run_plan

ROWS = "a.wav,Rain,it rains\nb.wav,Wind|Rain,wind blows\n"


def write(path: Path, text: str | bytes = "") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def tar(path: Path, members: list[tuple[str, bytes]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return str(path)


def parquet(path: Path, rows: list[dict[str, Any]], features: dict[str, Any] | None = None) -> str:
    table = pa.Table.from_pylist(rows)
    metadata = {"huggingface": json.dumps({"info": {"features": features or {}}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return str(path)


def read(source: str, **options: Any) -> list[Clip]:
    return sources.read_clips(source, **options)


# Tables


@pytest.mark.parametrize(
    "text",
    [
        f"file,labels,caption\n{ROWS}",
        f"\ufefffile, Labels , CAPTION\n{ROWS}",
        f"# my clips, exported\n# twice\nfile,labels,caption\n{ROWS}",
        f"file;labels;caption\n{ROWS.replace(',', ';')}",
        f"file\tlabels\tcaption\n{ROWS.replace(',', chr(9))}",
        f"file,labels,caption\n,,\n{ROWS}\n , \n",
        f"file,labels,caption\r\n{ROWS}".replace("\n", "\r\n").replace("\r\r", "\r"),
    ],
    ids=["plain", "odd header", "comments", "semicolons", "tabs", "blank rows", "windows"],
)
def test_one_table_in_many_dialects(tmp_path: Path, text: str) -> None:
    for name in ("t.csv", "t.txt"):
        clips = read(write(tmp_path / name, text))
        assert [(c.key, c.tags, c.captions) for c in clips] == [
            ("a", ("Rain",), ("it rains",)),
            ("b", ("Wind", "Rain"), ("wind blows",)),
        ]


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("latin.csv", b"file,text\na.wav,x\nb.wav,gro\xdf\n", r"latin.csv, line 3: column 10: byte 0xdf .*iconv"),
        ("wide.csv", "file,text\na.wav,x\n".encode("utf-16"), "is UTF-16; convert it: iconv"),
        ("t.csv", gzip.compress(b"file\na.wav\n", mtime=0), "is compressed by gzip; name it t.csv.gz"),
        ("t.csv.gz", gzip.compress(b"file\n" + b"a.wav\n" * 9999, mtime=0)[:40], "is no whole gzip file"),
        ("t.csv.gz", b"file\na.wav\n", "is no whole gzip file"),
        ("t.zip", b"PK\x03\x04", "t.zip is an archive: unzip it"),
        ("t.tar.gz", b"", "is an archive: gunzip it"),
        ("t.csv", b"PK\x03\x04....", "is a zip archive; unpack it"),
        ("t.docx", b"x", "t.docx is nothing that lists clips"),
        ("t.csv", b"file,text\na.wav,wind, and rain\n", "line 2: has 3 cells and the first row has 2; put cells"),
        ("t.csv", b'file,text\na.wav,x\nb.wav,"open\nc.wav,y\n', "line 3: the quote that opens here takes in line 4"),
        ("t.csv", b'file,text\na.wav,x\nb.wav,"open', "line 3: the quote that opens here is never closed"),
        ("t.csv", b"file,start,end\na.wav,abc,3\n", "t.csv, line 2: start is 'abc', and must be a number of seconds"),
        ("t.csv", b"file,start,end\na.wav,5,3\n", r"line 2: a clip from 5.0 s to 3.0 s cannot be"),
        ("t.csv", b"file,label,label\na.wav,x,y\n", "line 1: column 'label' stands twice"),
        ("t.csv", b"file,label,fold\na.wav,x,1\na.wav,y,2\n", "line 3: 'a.wav' is in fold '2' here and in '1' above"),
        ("m.jsonl", b'{"file": "a.wav"}\n{"file": \n', "m.jsonl, line 2: is no JSON"),
        ("m.jsonl", b'{"file": "a.wav"}\n[1]\n', "m.jsonl, line 2: want an object for each clip"),
        ("m.jsonl", b'{"file": "a.wav"}\n{"text": "x"}\n', "no file column"),
        ("m.json", b"{broken", "m.json: is no JSON"),
        ("m.json", b'{"a": 1,\n"b": 2}', "m.json: has no list of clips"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: bytes, problem: str
) -> None:
    from pipeline.__main__ import STAGES

    source = write(tmp_path / name, data)
    with pytest.raises(InputError, match=problem):
        read(source)
    assert main("pipeline", "", STAGES, ["plan", "tiny", "--source", source, "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert source in line


@pytest.mark.parametrize("pattern", ["d/{00000..00002}.tar", "d/z*.tar", "nowhere/{0..3}.tar", "nowhere.csv"])
def test_patterns_without_a_match_are_no_traceback(tmp_path: Path, pattern: str) -> None:
    for number in (0, 2):
        tar(tmp_path / "d" / f"0000{number}.tar", [("a.flac", b"x")])
    for function in (sources.read_clips, sources.stamp, lambda s: run_plan(PlanConfig(source=s, dry_run=True))):
        with pytest.raises(
            InputError, match=r"no such file \(.*(00001.tar|z\*.tar|/0.tar and 3 more of 4|nowhere.csv)"
        ):
            function(str(tmp_path / pattern))  # type: ignore[operator]


def test_columns_of_other_names_are_named_on_the_command_line(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", "wavefile,Tags_x,file,start\na.wav,Rain,zzz,5\n")
    (clip,) = read(source, column_names="file=wavefile,labels=tags_X,start=")
    assert (clip.key, clip.tags, clip.cut_start_s) == ("a", ("Rain",), 0.0)
    with pytest.raises(InputError, match=r"--columns .*'labls=x' is not <role>=<column>; roles are file, labels"):
        read(source, column_names="labls=x")
    with pytest.raises(InputError, match="no column 'gone', which --columns names; columns are"):
        read(source, column_names="file=gone")
    packed = tar(tmp_path / "x.tar", [("1.flac", b"x"), ("1.json", b'{"text": "no", "said": "yes"}')])
    assert read(packed, column_names="captions=said")[0].captions == ("yes",)


def test_rows_of_one_clip_are_its_captions_and_labels_wherever_they_stand(tmp_path: Path) -> None:
    source = write(
        tmp_path / "t.csv", "file,caption,label\na.wav,one,Rain\nb.wav,two,\na.wav,one,Bell\na.wav,three,Bell\n"
    )
    a, b = read(source)
    assert (a.captions, a.tags, b.captions) == (("one", "three"), ("Rain", "Bell"), ("two",))
    (stats,) = [sources.read_listing(source).stats]
    assert (stats.read["rows"], stats.clips, stats.merged) == (4, 2, 2)


def test_segments_as_pandas_writes_them(tmp_path: Path) -> None:
    write(tmp_path / audioset.LABELS_FILE, audioset.write_labels({"/m/06mb1": "Rain", "/m/0395lw": "Bell"}))
    rows = '-0BIyqJj9ZU,-1.0,9.0,"/m/06mb1,/m/0395lw"\n_CZzm6jUxbo,12.345,22.345,/m/nope\n'
    clips = read(write(tmp_path / "s.csv", "YTID,start_seconds,end_seconds,positive_labels\n" + rows))
    assert [clip.key for clip in clips] == ["Y-0BIyqJj9ZU_-1000_9000", "Y_CZzm6jUxbo_12345_22345"]
    assert [clip.tags for clip in clips] == [("Rain", "Bell"), ()] and clips[1].mids == ("/m/nope",)
    assert clips[0].recording_id == "youtube:-0BIyqJj9ZU" and clips[0].cut_end_s == 0.0


def test_strong_labels_are_the_tags_of_their_clip(tmp_path: Path) -> None:
    write(tmp_path / "mid_to_display_name.tsv", "/m/06mb1\tRain\n/m/0395lw\tBell\n")
    head = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    rows = (
        "b0RFKhbpFJA_30000\t0.0\t2.1\t/m/06mb1\nb0RFKhbpFJA_30000\t4\t5\t/m/0395lw\nb0RFKhbpFJA_30000\t7\t9\t/m/06mb1\n"
    )
    (clip,) = read(write(tmp_path / "strong.tsv", head + rows))
    assert (clip.key, clip.tags) == ("Yb0RFKhbpFJA_30000_40000", ("Rain", "Bell"))


def test_musiccaps_and_vggsound_are_sources(tmp_path: Path) -> None:
    head = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption\n"
    (clip,) = read(write(tmp_path / "musiccaps.csv", head + '-0Gj8-vB1q4,30,40,"/m/0140xf","[]","A low, slow song"\n'))
    assert (clip.key, clip.captions, clip.mids) == ("Y-0Gj8-vB1q4_30000_40000", ("A low, slow song",), ("/m/0140xf",))
    (clip,) = read(write(tmp_path / "v.csv", 'abcdefghijk,1,"people eating, chewing",train\n'))
    assert (clip.tags, clip.fold, clip.key) == (("people eating, chewing",), "train", "Yabcdefghijk_1000_11000")


# Manifests


def test_hugging_face_metadata_in_json_lines(tmp_path: Path) -> None:
    for name in ("0.wav", "data/1.wav", "unlisted.wav"):
        write(tmp_path / name)
    rows = [
        {"file_name": "./0.wav", "labels": ["Rain"], "text": "it rains"},
        {"file_name": "data/1.wav", "text": ["x", "y"]},
    ]
    write(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    one, two = read(str(tmp_path))
    assert (one.uri, one.tags, one.captions) == (str(tmp_path / "0.wav"), ("Rain",), ("it rains",))
    assert (two.uri, two.captions) == (str(tmp_path / "data" / "1.wav"), ("x", "y"))


def test_nemo_and_lhotse_cut_clips_out_of_recordings(tmp_path: Path) -> None:
    nemo = [{"audio_filepath": "flat/0.wav", "offset": 0.5 * i, "duration": 0.5, "text": f"t{i}"} for i in range(2)]
    clips = read(write(tmp_path / "nemo.json", "\n".join(map(json.dumps, nemo))))
    assert [(c.key, c.cut_start_s, c.cut_end_s) for c in clips] == [
        ("flat_0_0_500", 0.0, 0.5),
        ("flat_0_500_1000", 0.5, 1.0),
    ]
    recording = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "r.flac"}], "duration": 9.0}
    cut = {"id": "c", "start": 2.0, "duration": 1.5, "channel": 0, "recording": recording, "type": "MonoCut"}
    lines = [cut | {"supervisions": [{"text": "a dog barks"}]}, recording]
    packed = write(tmp_path / "cuts.jsonl.gz", gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    part, whole = read(packed)
    assert (part.key, part.cut_start_s, part.cut_end_s, part.captions) == ("r_2000_3500", 2.0, 3.5, ("a dog barks",))
    assert (whole.key, whole.cut_end_s) == ("r", 0.0)


def test_wavcaps_finds_audio_by_id(tmp_path: Path) -> None:
    write(tmp_path / "waveforms" / "FreeSound_flac" / "180256.flac")
    row = {"id": "180256", "caption": "Rain falls.", "duration": 9.5, "href": "/people/x/sounds/180256/", "author": "x",
           "description": "Recorded at night.",
           "download_link": "https://freesound.org/people/x/sounds/180256/download"}  # fmt: skip
    youtube = {"id": "Yb0RFKhbpFJA.wav", "caption": "Wind blows.", "duration": 10.0}
    document = json.dumps({"num_captions_per_audio": 1, "data": [row, youtube]})
    one, two = read(write(tmp_path / "json_files" / "FreeSound" / "fsd_final.json", document))
    assert one.uri == str(tmp_path / "waveforms" / "FreeSound_flac" / "180256.flac")
    assert (one.recording_id, one.captions, one.key) == ("freesound:180256", ("Rain falls.",), "180256")
    assert two.recording_id == "youtube:b0RFKhbpFJA"
    file = str(tmp_path / "json_files" / "FreeSound" / "fsd_final.json")
    raw = list(sources.list_clips(file, column_names="captions=description"))
    assert [clip.captions for clip in raw] == [("Recorded at night.",), ()]


# Packed audio


def test_titles_with_dots_and_suffixes_in_capitals(tmp_path: Path) -> None:
    titles = ("235342 Track 2.0 (Clean Version)", "plain_one", "dir.v1/two", "a.b")
    members = [(f"./{t}.mp3", t.encode()) for t in titles] + [(f"./{t}.json", b'{"text": "x"}') for t in titles]
    clips = read(tar(tmp_path / "dots.tar", members))
    assert [c.key for c in clips] == ["235342_Track_2_0_Clean_Version_", "plain_one", "dir_v1_two", "a_b"]
    assert [sources.read_bytes(c.uri, c.offset, c.size).decode() for c in clips] == list(titles)
    capitals = [("0.FLAC", b"x"), ("0.cls", b"3"), ("0.JSON", b'{"tag": ["Rain"], "text": "t"}')]
    clips, stats = sources.read_listing(tar(tmp_path / "cls.tar", capitals))
    assert clips[0].tags == ("Rain",) and stats.skipped == {".cls": 1}


def test_fields_after_a_dot_belong_to_the_sample_and_titles_do_not(tmp_path: Path) -> None:
    members = [("1.audio.flac", b"x"), ("1.meta.json", b'{"text": "one"}'), ("v1.2.flac", b"y"), ("v1.3.json", b"{}")]
    one, two, three = read(tar(tmp_path / "x.tar", members))
    assert (one.key, one.captions) == ("1", ("one",))
    assert (two.key, two.captions, two.fault) == ("v1_2", (), "") and three.fault.startswith("missing")


def test_of_a_member_that_stands_twice_the_last_is_used_and_the_ledger_has_a_note(tmp_path: Path) -> None:
    first = [("a.flac", b"old"), ("a.json", b'{"text": "old", "tag": ["Old"]}'), ("b.flac", b"b")]
    a, b = read(tar(tmp_path / "twice.tar", [*first, ("a.flac", b"new"), ("a.json", b'{"text": "new"}')]))
    assert (sources.read_bytes(a.uri, a.offset, a.size), a.captions, a.tags) == (b"new", ("new",), ())
    assert a.note.startswith("a.flac stands 2 times in the tar, the last is used") and b.note == ""


def test_tars_with_the_same_names_keep_their_clips_under_keys_that_name_the_tar(tmp_path: Path) -> None:
    for number in range(2):
        tar(tmp_path / f"0000{number}.tar", [(f"00000{i}.flac", f"{number} {i}".encode()) for i in range(2)])
    clips = read(str(tmp_path))
    assert [c.key for c in clips] == ["00000_000000", "00000_000001", "00001_000000", "00001_000001"]
    assert [sources.read_bytes(c.uri, c.offset, c.size) for c in clips] == [b"0 0", b"0 1", b"1 0", b"1 1"]
    tar(tmp_path / "00002.tar", [("a b.flac", b"x"), ("a_b.flac", b"y")])
    with pytest.raises(InputError, match=r"'a b' in .*00002.tar and 'a_b' in .*00002.tar give the same key"):
        read(str(tmp_path))


def test_parquet_with_class_labels_segments_and_a_row_for_each_caption(tmp_path: Path) -> None:
    sound = {"bytes": b"x", "path": None}
    features = {"label": {"names": ["Rain", "Church_bells"], "_type": "ClassLabel"},
                "more": {"feature": {"names": ["x", "y"], "_type": "ClassLabel"}, "_type": "Sequence"}}  # fmt: skip
    rows = [{"file": f"{i}.wav", "audio": sound, "label": i - 1, "more": [1]} for i in range(3)]
    assert [c.tags for c in read(parquet(tmp_path / "l.parquet", rows, features))] == [(), ("Rain",), ("Church bells",)]
    rows = [
        {"youtube_id": f"abcdefghij{i // 2}", "start_time": 30, "audio": sound, "caption": f"{i}"} for i in range(4)
    ]
    assert [c.captions for c in read(parquet(tmp_path / "c.parquet", rows))] == [("0", "1"), ("2", "3")]
    rows = [{"video_id": "abcdefghij0", "start": s, "end": s + 10, "audio": sound, "labels": ["Rain"]} for s in (0, 10)]
    clips = read(parquet(tmp_path / "s.parquet", rows))
    assert [(c.key, c.end_s) for c in clips] == [("Yabcdefghij0_0_10000", 10.0), ("Yabcdefghij0_10000_20000", 20.0)]
    for column in ("sentence", "caption", "captions", "text", "raw_text"):
        (clip,) = read(parquet(tmp_path / "t.parquet", [{"audio": sound, column: "it rains"}]))
        assert clip.captions == ("it rains",)
    (clip,) = read(parquet(tmp_path / "metadata.parquet", [{"File_Name": "a.wav", "text": "x"}]))
    assert clip.uri == str(tmp_path / "a.wav")


def test_rows_that_may_be_different_clips_are_not_merged(tmp_path: Path) -> None:
    """The same id without a start, and without a file name, may be two parts of a recording."""
    rows = [{"video_id": "abcdefghij0", "audio": {"bytes": each, "path": None}} for each in (b"x", b"y")]
    with pytest.raises(InputError, match="give the same key 'Yabcdefghij0'"):
        read(parquet(tmp_path / "x.parquet", rows))

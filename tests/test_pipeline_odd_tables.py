"""Tables and folders as other programs leave them: comments, NaN, huge cells, accents in two spellings, twins of a file."""

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import sources, storage
from pipeline.errors import InputError
from pipeline.sources import parts
from tests.support import zoo


def table(folder: Path, text: str, name: str = "clips.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_comments_are_skipped_wherever_they_stand(tmp_path: Path) -> None:
    text = (
        '# made by hand\nfile,caption\na.wav,one\n# b.wav,"an open quote\n\nc.wav,"two\n# of it\nlines"\n#d.wav,four\n'
    )
    listing = sources.read_listing(table(tmp_path, text))
    assert [clip.source_id for clip in listing.clips] == ["a.wav", "c.wav"]
    assert listing.clips[1].captions == ("two\n# of it\nlines",)
    assert listing.stats.skipped == {"comment": 2, "blank row": 1} and listing.stats.balanced
    with pytest.raises(InputError, match=r"clips\.csv, line 5: names no file"):
        sources.read_clips(table(tmp_path, "file,caption\n# one\na.wav,one\n# two\n,two\n"))


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e400", "Infinity"])
@pytest.mark.parametrize("column", ["start", "end"])
def test_an_infinite_time_is_an_error_of_its_line(cell: str, column: str, tmp_path: Path) -> None:
    row = {"start": "0", "end": "2"} | {column: cell}
    text = f"file,start,end\na.wav,0,1\nb.wav,{row['start']},{row['end']}\n"
    with pytest.raises(InputError, match=rf"line 3: {column} is '{cell}', and must be a number of seconds"):
        sources.read_clips(table(tmp_path, text))


def test_an_infinite_time_in_json_is_an_error_of_its_line(tmp_path: Path) -> None:
    huge = "1" + "0" * 400  # an integer that no float holds
    for cell in ("Infinity", "1e400", huge):
        text = f'{{"audio_filepath": "a.wav", "offset": {cell}, "duration": 1}}\n'
        with pytest.raises(InputError, match=r"line 1: start is .*, and must be a number of seconds"):
            sources.read_clips(table(tmp_path, text, "clips.jsonl"))


ROW = {"file": "a.wav", "labels": "Rain", "caption": "it rains", "start": float("nan"), "end": float("nan")}


def test_nan_is_an_empty_cell_in_json(tmp_path: Path) -> None:
    rows = [ROW, {**dict.fromkeys(ROW, float("nan")), "file": "b.wav"}]
    whole, empty = sources.read_clips(table(tmp_path, "\n".join(map(json.dumps, rows)), "clips.jsonl"))
    assert (whole.tags, whole.captions, whole.location.whole) == (("Rain",), ("it rains",), True)
    assert (empty.tags, empty.captions, empty.fold, empty.location.whole) == ((), (), "", True)
    with pytest.raises(InputError, match="names no file"):
        sources.read_clips(table(tmp_path, json.dumps({**ROW, "file": float("nan")}), "clips.jsonl"))


@pytest.mark.parametrize("packed", [False, True])
def test_nan_is_an_empty_cell_in_parquet(packed: bool, tmp_path: Path) -> None:
    row = {**ROW, "youtube_id": float("nan"), "fold": float("nan"), "key": "named"}
    if packed:
        row["audio"] = {"bytes": b"RIFF", "path": "a.wav"}
        del row["file"]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "clips.parquet")
    (clip,) = sources.read_clips(str(tmp_path / "clips.parquet"))
    assert (clip.key, clip.fold, clip.recording_id) == ("named" if packed else "a_0", "", "")
    assert (clip.start_s, clip.end_s, clip.tags) == (0.0, 0.0, ("Rain",))


def test_a_caption_may_be_long(tmp_path: Path) -> None:
    (clip,) = sources.read_clips(table(tmp_path, f'file,caption\na.wav,"{"rain " * 40_000}"\n'))
    assert len(clip.captions[0]) == 199_999


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_accents_may_be_spelt_otherwise_on_the_disk(on_disk: str, listed: str, tmp_path: Path) -> None:
    names = ["café.wav", "cafè.wav", "außen/Ä 1.wav"]
    for name in names:
        path = tmp_path / "audio" / unicodedata.normalize(on_disk, name)  # type: ignore[arg-type]
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(zoo.encoded(zoo.tone(1.0), kind="WAV"))
    rows = "\n".join(unicodedata.normalize(listed, name) for name in names)  # type: ignore[arg-type]
    clips = sources.read_clips(table(tmp_path, f"file\n{rows}\n"))
    assert [clip.key for clip in clips] == ["café", "cafè", "außen_Ä_1"]
    (by_stem,) = sources.read_clips(table(tmp_path, f"file\n{unicodedata.normalize(listed, 'café')}\n"))  # type: ignore[arg-type]
    assert [len(sources.read_samples(clip)) for clip in (*clips, by_stem)] == [32_000] * 4


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"{request.getfixturevalue('s3')}/odd/{tmp_path.name}"


def test_a_folder_is_found_without_a_question_for_each_file(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.wav", "dog/b.wav", *(f"{i}.npy" for i in range(50))):
        storage.publish(f"{root}/{name}", b"RIFF")
    asked = Counter[str]()
    is_folder = storage.is_folder
    monkeypatch.setattr(storage, "is_folder", lambda uri: asked.update([uri]) or is_folder(uri))
    (whole, inner) = parts.find_parts(root)
    assert (whole.folders, inner.name, inner.label) == (("dog",), "dog/", "dog")
    assert set(asked) <= {root, f"{root}/dog"}


SUFFIXES = [".wav", ".m4a", ".flac", ".MP3"]


@pytest.mark.parametrize("order", [SUFFIXES, SUFFIXES[::-1]], ids=["forth", "back"])
@pytest.mark.parametrize("segments", [False, True])
def test_of_files_of_one_name_the_order_of_the_folder_chooses_none(
    segments: bool, order: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "# YTID, start_seconds, end_seconds, positive_labels\n" if segments else "file\n"
    row = '{0}, 0.000, 10.000, "/m/1"\n' if segments else "Y{0}\n"
    (tmp_path / "class_labels_indices.csv").write_text('index,mid,display_name\n0,/m/1,"Rain"\n')
    text = head + "".join(row.format(name) for name in ("abcdefghijk", "bbcdefghijk"))

    def names(folder: str) -> Iterator[str]:  # as another disk gives them
        present = os.listdir(folder) if os.path.isdir(folder) else []
        yield from sorted(
            present, key=lambda name: order.index(Path(name).suffix) if Path(name).suffix in order else -1
        )

    (tmp_path / "audio").mkdir()
    for name in (*(f"Yabcdefghijk{suffix}" for suffix in order), "Ybbcdefghijk.m4a"):
        (tmp_path / "audio" / name).write_bytes(b"RIFF")
    monkeypatch.setattr(storage, "names", names)
    listing = sources.read_listing(table(tmp_path, text, "clips_segments.csv" if segments else "clips.csv"))
    assert [Path(clip.uri).name for clip in listing.clips] == ["Yabcdefghijk.flac", "Ybbcdefghijk.m4a"]
    assert listing.stats.skipped == {"another file of their clip is used": 3} and listing.stats.balanced

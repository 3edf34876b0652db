"""Listings: AudioSet files, tables, keys, and the messages on wrong ones."""

import gzip
from pathlib import Path

import pytest

from pipeline import sources
from pipeline.errors import InputError
from pipeline.sources import audioset
from pipeline.sources.clip import MAX_KEY


def write(folder: Path, name: str, text: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


def segments(folder: Path, rows: list[audioset.Segment]) -> str:
    write(
        folder,
        audioset.LABELS_FILE,
        audioset.write_labels({"/m/09x0r": "Speech", "/m/05zppz": "Male speech, man speaking"}),
    )
    return write(folder, "train.csv", audioset.write_segments(rows))


def test_segments_round_trip_with_odd_ids() -> None:
    rows = [
        audioset.Segment("-_A4yJmxFdM", 30.0, 40.0, ("/m/09x0r", "/m/05zppz")),
        audioset.Segment("--PJHxphWEs", 0.0, 9.5, ()),
    ]
    assert list(audioset.read_segments(audioset.write_segments(rows).splitlines())) == rows


def test_key_has_no_dot() -> None:
    assert audioset.key("-_A4yJmxFdM", 30.0, 40.5) == "Y-_A4yJmxFdM_30000_40500"


def test_usual_audio_namings_are_found(tmp_path: Path) -> None:
    source = segments(tmp_path, [audioset.Segment(name * 11, 0, 10, ("/m/05zppz",)) for name in "abc"])
    write(tmp_path / "audio", "Y" + "a" * 11 + ".wav", "")
    write(tmp_path / "audio", "b" * 11 + ".flac", "")
    clips = sources.read_clips(source)
    assert [Path(clip.uri).name for clip in clips[:2]] == ["Yaaaaaaaaaaa.wav", "bbbbbbbbbbb.flac"]
    assert not Path(clips[2].uri).exists()  # listed all the same: the ledger states that it is missing
    assert clips[0].tags == ("Male speech, man speaking",)


def test_table_columns_separators_and_folds(tmp_path: Path) -> None:
    source = write(tmp_path, "t.csv", "file,labels,caption,fold\na.ogg,church_bells|dog,one || two,1\nb.ogg,,,2\n")
    first, second = sources.read_clips(source)
    assert (first.key, first.tags, first.captions) == ("a", ("church bells", "dog"), ("one", "two"))
    assert second.tags == ()
    assert [clip.key for clip in sources.read_clips(source, folds=("2",))] == ["b"]


def test_official_esc50_layout(tmp_path: Path) -> None:
    header = "filename,fold,target,category,esc10,src_file,take\n"
    source = write(tmp_path / "meta", "esc50.csv", header + "1-100032-A-0.wav,1,0,dog,True,100032,A\n")
    write(tmp_path / "audio", "1-100032-A-0.wav", "")
    (clip,) = sources.read_clips(source)
    assert Path(clip.uri) == tmp_path / "audio" / "1-100032-A-0.wav"
    assert (clip.key, clip.tags, clip.fold) == ("1-100032-A-0", ("dog",), "1")


def test_a_folder_is_its_table_or_its_audio_files(tmp_path: Path) -> None:
    write(tmp_path, "a.wav", "")
    write(tmp_path, "notes.txt", "")
    assert [clip.key for clip in sources.read_clips(str(tmp_path))] == ["a"]
    write(tmp_path, "metadata.csv", "file,labels\ndog/1.wav,dog\ncat/1.wav,cat\n")
    assert [clip.key for clip in sources.read_clips(str(tmp_path))] == ["dog_1", "cat_1"]


def test_a_long_name_gives_a_key_that_fits_and_stays_its_own(tmp_path: Path) -> None:
    """Clotho has a file whose name is longer than a tar's header takes."""
    names = ["a" * 200, "a" * 199 + "b", "\u00e9" * 100]
    clips = sources.read_clips(write(tmp_path, "long.csv", "file\n" + "".join(f"{name}.wav\n" for name in names)))
    keys = [clip.key for clip in clips]
    assert len(set(keys)) == 3 and all(len(key.encode()) <= MAX_KEY for key in keys)
    assert keys[0].startswith("aaaa") and [clip.source_id for clip in clips] == [f"{name}.wav" for name in names]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,labels\na,b\n", "no file column"),
        ("file\na.b.wav\na b.wav\na_b.wav\n", "same key"),
        ("file\n", "lists no clip"),
        ("file,labels\n,dog\n", "names no file"),
        ("\xff\xfe".encode("latin-1").decode("latin-1"), "no file column"),
        ("# YTID, start_seconds\nabc, 1.0\n", "class_labels_indices.csv"),
    ],
)
def test_wrong_listing_names_flag_value_and_cause(tmp_path: Path, text: str, message: str) -> None:
    source = write(tmp_path, "wrong.csv", text)
    with pytest.raises(InputError) as caught:
        sources.read_clips(source)
    assert "--source" in str(caught.value)
    assert source in str(caught.value)
    assert message in str(caught.value)


def test_an_unknown_mid_is_counted_and_the_clip_keeps_its_other_tags(tmp_path: Path) -> None:
    source = segments(tmp_path, [audioset.Segment(name * 11, 0, 10, ("/m/nope", "/m/09x0r")) for name in "ab"])
    stats = sources.ListingStats()
    clips = list(sources.list_clips(source, stats=stats))
    assert [clip.tags for clip in clips] == [("Speech",)] * 2 and stats.unknown_labels == {"/m/nope": 2}
    assert "labels without a name: /m/nope 2" in stats.sentence()


def test_official_balanced_train_segments(blat_data: Path, tmp_path: Path) -> None:
    for name in ("audioset_balanced_train_segments", "audioset_class_labels_indices"):
        text = gzip.decompress((blat_data / "meta" / f"{name}.csv.gz").read_bytes()).decode()
        write(tmp_path, f"{name.removeprefix('audioset_')}.csv", text)
    clips = sources.read_clips(str(tmp_path / "balanced_train_segments.csv"))
    assert len(clips) == 22_160
    assert len(sources.tag_vocabulary(clips)) == 527


AUDIOCAPS = """audiocap_id,youtube_id,start_time,caption
1,-_A4yJmxFdM,30,A man speaks
2,--PJHxphWEs,0,"Rain falls, then thunder"
3,-_A4yJmxFdM,30,Someone talks nearby
"""


def test_audiocaps_as_published_with_labels_from_audioset(tmp_path: Path) -> None:
    source = write(tmp_path, "test.csv", AUDIOCAPS)
    (one, two) = sources.read_clips(source)
    assert (one.key, one.source_id, one.recording_id) == (
        "Y-_A4yJmxFdM_30000_40000",
        "-_A4yJmxFdM",
        "youtube:-_A4yJmxFdM",
    )
    assert one.captions == ("A man speaks", "Someone talks nearby") and two.captions == ("Rain falls, then thunder",)
    assert one.tags == two.tags == ()
    write(tmp_path, audioset.LABELS_FILE, audioset.write_labels({"/m/09x0r": "Speech", "/m/06mb1": "Rain"}))
    write(
        tmp_path,
        "balanced_train_segments.csv",
        audioset.write_segments([audioset.Segment("-_A4yJmxFdM", 30, 40, ("/m/09x0r",))]),
    )
    write(
        tmp_path,
        "eval_segments.csv",
        audioset.write_segments([audioset.Segment("--PJHxphWEs", 0, 10, ("/m/06mb1", "/m/0"))]),
    )
    write(tmp_path / "audio", "--PJHxphWEs_0.wav", "")
    (one, two) = sources.read_clips(source)
    assert (one.tags, two.tags) == (("Speech",), ("Rain",))
    assert two.uri.endswith("audio/--PJHxphWEs_0.wav") and one.uri.endswith("audio/Y-_A4yJmxFdM.flac")


def test_clotho_as_published(tmp_path: Path) -> None:
    header = "file_name," + ",".join(f"caption_{i}" for i in range(1, 6))
    source = write(
        tmp_path, "clotho_captions_development.csv", f'{header}\nSanta Motor.wav,"A machine, humming.",b,c,,e\n'
    )
    write(tmp_path / "development", "Santa Motor.wav", "")
    (clip,) = sources.read_clips(source)
    assert clip.captions == ("A machine, humming.", "b", "c", "e")
    assert (clip.key, clip.uri) == ("Santa_Motor", str(tmp_path / "development" / "Santa Motor.wav"))


def test_names_of_clotho_that_give_one_key_are_told_apart(tmp_path: Path) -> None:
    """The development split has `Car Keys.wav` beside `Car_Keys.wav`."""
    header = "file_name,caption_1"
    source = write(tmp_path, "dev.csv", f"{header}\nCar_Keys.wav,a\nCar Keys.wav,b\nOther one.wav,c\n")
    keys = [clip.key for clip in sources.read_clips(source)]
    assert keys[0] == "Car_Keys" and keys[1].startswith("Car_Keys_") and keys[2] == "Other_one"


def test_rows_without_a_caption_teach_nothing_and_a_file_column_is_used(tmp_path: Path) -> None:
    cut = write(
        tmp_path, "test.csv", "audiocap_id,youtube_id,start_time,caption\n1,-_A4yJmxFdM,30, \n2,-_A4yJmxFdM,30\n"
    )
    (clip,) = sources.read_clips(cut)
    assert clip.captions == ()
    named = write(tmp_path, "own.csv", "filename,youtube_id,start_time,caption\nmydog.wav,-_A4yJmxFdM,30,a dog\n")
    (clip,) = sources.read_clips(named)
    assert clip.uri.endswith("mydog.wav") and clip.recording_id == "youtube:-_A4yJmxFdM"


@pytest.mark.parametrize("text", ["files: [", "", "- a\n- b\n"])
def test_a_broken_macs_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"--source .*MACS.yaml.*no YAML with a list of files"):
        sources.read_clips(write(tmp_path, "MACS.yaml", text))


def test_macs_as_published(tmp_path: Path) -> None:
    text = """files:
- filename: airport-barcelona-0-0-a.wav
  annotations:
  - {annotator_id: 2, sentence: People talk in a hall., tags: [adults_talking, footsteps]}
  - {annotator_id: 7, sentence: A crowd is chatting., tags: [adults_talking]}
  - {annotator_id: 9, sentence: '', tags: [siren]}
"""
    source = write(tmp_path, "MACS.yaml", text)
    write(tmp_path / "audio", "airport-barcelona-0-0-a.wav", "")
    (clip,) = sources.read_clips(source)
    assert clip.captions == ("People talk in a hall.", "A crowd is chatting.") and clip.tags == ("adults talking",)
    assert clip.key == "airport-barcelona-0-0-a" and clip.uri == str(tmp_path / "audio" / "airport-barcelona-0-0-a.wav")


@pytest.mark.parametrize(
    ("name", "clips", "captions"),
    [("audiocaps_v1_test", 893, 4465), ("clotho_v2_val", 1036, 5180), ("clotho_v2_train", 3838, 19190)],
)
def test_real_caption_tables(tmp_path: Path, blat_data: Path, name: str, clips: int, captions: int) -> None:
    packed = blat_data / "meta" / f"{name}.csv.gz"
    if not packed.exists():
        pytest.skip(f"no {packed.name} in {blat_data}/meta")
    source = write(tmp_path, f"{name}.csv", gzip.decompress(packed.read_bytes()).decode("utf-8"))
    found = sources.read_clips(source)
    assert (len(found), sum(len(clip.captions) for clip in found)) == (clips, captions)

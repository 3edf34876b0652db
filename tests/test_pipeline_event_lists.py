"""Strong labels as they are distributed: AudioSet's and DESED's tables, the lists of URBAN-SED and MAESTRO Real."""

from pathlib import Path

import pytest

from pipeline import sources
from pipeline.errors import InputError
from pipeline.sources import audioset
from pipeline.sources.clip import Clip, Event

HEAD = "filename\tonset\toffset\tevent_label\n"
DESED = (
    f"{HEAD}Y00pbt6aJV8Y_350.000_360.000.wav\t0.000\t9.971\tVacuum_cleaner\n"
    "1Ro0FgMWTUE_120_130.wav\t2.618\t4.679\tSpeech\n"
    "Y00pbt6aJV8Y_350.000_360.000.wav\t1.5\t2\tDog\n"
    "YU0Cg_t_3TdI_30.000_40.000.wav\t\t\t\n"
)


def write(path: Path, text: str = "") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def by_key(source: str | Path) -> dict[str, Clip]:
    return {clip.key: clip for clip in sources.read_clips(str(source))}


@pytest.mark.parametrize("folder", ["validation/validation", "validation"])
def test_rows_of_desed_are_the_events_of_their_clip(tmp_path: Path, folder: str) -> None:
    """The audio of the year 2019 lies in audio/validation/, that of 2021 in audio/validation/validation/."""
    source = write(tmp_path / "metadata" / "validation" / "validation.tsv", DESED)
    audio = write(tmp_path / "audio" / folder / "1Ro0FgMWTUE_120_130.wav")
    clips = by_key(source)
    first, second, silent = clips.values()
    assert list(clips) == ["Y00pbt6aJV8Y_350000_360000", "Y1Ro0FgMWTUE_120000_130000", "YU0Cg_t_3TdI_30000_40000"]
    assert first.events == (Event("Vacuum cleaner", 0.0, 9.971), Event("Dog", 1.5, 2.0))
    assert first.tags == ("Vacuum cleaner", "Dog") and first.recording_id == "youtube:00pbt6aJV8Y"
    assert (first.start_s, first.end_s, first.cut_start_s, first.cut_end_s) == (350.0, 360.0, 0.0, 0.0)
    assert (second.uri, second.events) == (audio, (Event("Speech", 2.618, 4.679),))
    assert silent.events == silent.tags == ()
    assert list(by_key(tmp_path)) == list(clips), "the folder is a source, too"


def test_a_table_of_ones_own_has_other_names_and_separators(tmp_path: Path) -> None:
    source = write(tmp_path / "mine.csv", "label,offset,onset,file\nRain,2.5,1,soundscape 1.wav\n")
    (clip,) = by_key(source).values()
    assert (clip.key, clip.events) == ("soundscape_1", (Event("Rain", 1.0, 2.5),))
    manifest = write(tmp_path / "nemo.csv", "audio_filepath,offset,duration\na.wav,1,2\n")
    (part,) = by_key(manifest).values()
    assert (part.cut_start_s, part.cut_end_s) == (1.0, 3.0), "an offset without an onset is where a clip begins"


def test_real_tables_of_desed(blat_data: Path, tmp_path: Path) -> None:
    import gzip

    for name, clips, events in (("validation", 1168, 4224), ("eval_public", 692, 2765)):
        real = blat_data / "meta" / f"desed_{name}.tsv.gz"
        if not real.exists():
            pytest.skip(f"no {real}")
        found = by_key(write(tmp_path / f"{name}.tsv", gzip.decompress(real.read_bytes()).decode()))
        assert (len(found), sum(len(clip.events) for clip in found.values())) == (clips, events)
        assert len({tag for clip in found.values() for tag in clip.tags}) == 10
        assert all(clip.recording_id.startswith("youtube:") for clip in found.values())


def test_weak_labels_of_desed_are_tags(tmp_path: Path) -> None:
    source = write(tmp_path / "weak.tsv", "filename\tevent_labels\na.wav\tAlarm_bell_ringing,Speech\n")
    (clip,) = by_key(source).values()
    assert clip.tags == ("Alarm bell ringing", "Speech") and clip.events == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.wav\t1\t2\t", r"onset '1', offset '2' and label ''; an event needs one of each"),
        ("a.wav\t\t2\tDog", r"onset '', offset '2' and label 'Dog'"),
        ("a.wav\tone\t2\tDog", r"onset is 'one', and must be a number of seconds"),
        ("a.wav\t3\t2\tDog", r"an event from 3.0 s to 2.0 s cannot be; both are seconds"),
        ("a.wav\t-1\t2\tDog", r"an event from -1.0 s to 2.0 s cannot be"),
        ("a.wav\t1\tnan\tDog", r"has no offset; give the seconds"),
        ("a.wav\t1\tinf\tDog", r"offset is 'inf', and must be a number of seconds"),
        ("a.wav\t10.2\t11\tDog", r"onset is 10.2 s in a clip of 10.0 s .*; correct the row or the duration"),
        ("\t1\t2\tDog", "names no file"),
    ],
)
def test_a_bad_row_is_refused_with_file_line_value_and_remedy(tmp_path: Path, row: str, message: str) -> None:
    write(tmp_path / "labels_durations.tsv", "filename\tduration\na.wav\t10.0\n")
    source = write(tmp_path / "labels.tsv", f"{HEAD}a.wav\t9.99\t10.04\tDog\n{row}\n")
    with pytest.raises(InputError, match=f"labels.tsv, line 3: .*{message}"):
        by_key(source)


def test_damaged_durations_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "soundscapes.tsv", f"{HEAD}a.wav\t1\t2\tDog\n")
    for text, message in (
        ("filename\tseconds\na.wav\t10\n", r"durations.tsv, line 1: has no column duration; its columns are"),
        ("filename\tduration\na.wav\tten\n", r"durations.tsv, line 2: duration is 'ten'"),
    ):
        write(tmp_path / "durations.tsv", text)
        with pytest.raises(InputError, match=message):
            by_key(source)


def test_urban_sed_has_a_list_for_each_soundscape(tmp_path: Path) -> None:
    for split, name in (("train", "soundscape_train_bimodal0"), ("validate", "v0"), ("test", "t0"), ("test", "t1")):
        write(tmp_path / "annotations" / split / f"{name}.txt", "0.547\t1.22\tcar_horn\n1.0\t4\tdog_bark\n")
        write(tmp_path / "annotations" / split / f"{name}.jams", "{}")
        write(tmp_path / "audio" / split / f"{name}.wav")
    write(tmp_path / "annotations" / "test" / "t1.txt")
    clips = by_key(tmp_path)
    assert {key: clip.fold for key, clip in clips.items()} == {
        "test_t0": "test",
        "test_t1": "test",
        "train_soundscape_train_bimodal0": "train",
        "validate_v0": "validate",
    }
    assert clips["test_t0"].events == (Event("car horn", 0.547, 1.22), Event("dog bark", 1.0, 4.0))
    assert clips["test_t0"].uri == str(tmp_path / "audio" / "test" / "t0.wav")
    assert clips["test_t1"].events == ()
    before = sources.stamp(str(tmp_path), events=True)
    write(tmp_path / "annotations" / "test" / "t0.txt", "0.547\t1.23\tcar_horn\n")
    assert sources.stamp(str(tmp_path), events=True) != before


def test_maestro_real_counts_labels_that_half_of_the_annotators_gave(tmp_path: Path) -> None:
    rows = "0\t1\tbirds_singing\t0.83\n0\t1\tcar\t0.21\n1\t2\tbirds_singing\t0.5\n"
    write(tmp_path / "development_annotation" / "soft_labels_city_center" / "city_center_00.txt", rows)
    write(tmp_path / "development_audio" / "city_center" / "city_center_00.wav")
    ((key, clip),) = by_key(tmp_path).items()
    assert (key, clip.uri.rpartition("/")[2], clip.fold) == ("city_center_city_center_00", "city_center_00.wav", "")
    assert clip.events == (Event("birds singing", 0.0, 1.0), Event("birds singing", 1.0, 2.0))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0\t1", r"is \['0', '1'\]; want onset, offset and label"),
        ("0\t1\t ", r"is \['0', '1', ''\]; want onset, offset and label"),
        ("0\t1\tcar\t2", "the share of annotators is 2.0; want 0 to 1"),
        ("\t1\tcar", "has no onset; give the seconds"),
        ("2\t1\tcar", "an event from 2.0 s to 1.0 s cannot be"),
    ],
)
def test_a_bad_list_is_refused(tmp_path: Path, row: str, message: str) -> None:
    write(tmp_path / "annotations" / "test" / "t0.txt", f"{row}\n")
    (tmp_path / "audio").mkdir()
    with pytest.raises(InputError, match=f"t0.txt, line 1: {message}"):
        by_key(tmp_path)


def test_audiosets_strong_table_beside_its_segments_is_found_under_its_own_name(tmp_path: Path) -> None:
    """A label that the 527 classes lack has its name in the list of the strong ones."""
    write(tmp_path / audioset.LABELS_FILE, audioset.write_labels({"/m/06mb1": "Rain"}))
    write(tmp_path / "mid_to_display_name.tsv", "/m/06mb1\tRain\n/t/dd00138\tBrief tone\n")
    head = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    rows = "b0RFKhbpFJA_30000\t0.0\t2.1\t/m/06mb1\nb0RFKhbpFJA_30000\t4\t5\t/t/dd00138\n"
    strong = write(tmp_path / "audioset_eval_strong.tsv", head + rows)
    segments = [audioset.Segment("b0RFKhbpFJA", 30.0, 40.0, ("/m/06mb1",))]
    weak = write(tmp_path / "eval_segments.csv", audioset.write_segments(segments))
    ((weak_key, weak_clip),) = by_key(weak).items()
    ((strong_key, strong_clip),) = by_key(strong).items()
    assert weak_key == strong_key == "Yb0RFKhbpFJA_30000_40000"
    assert weak_clip.events == strong_clip.events == (Event("Rain", 0.0, 2.1), Event("Brief tone", 4.0, 5.0))
    assert (weak_clip.tags, strong_clip.tags) == (("Rain",), ("Rain", "Brief tone"))
    write(tmp_path / "audioset_eval_strong.tsv", head + rows.replace("30000\t4\t5", "30000\t\t5"))
    for source in (weak, strong):
        with pytest.raises(InputError, match=r"audioset_eval_strong.tsv, line 3: has no start_time_seconds; give"):
            by_key(source)

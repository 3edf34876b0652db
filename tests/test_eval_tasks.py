"""Downstream datasets in their official layouts, against their official tables where those are at hand."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from eval import tasks
from pipeline.errors import InputError


def official(blat_data: Path, name: str, target: Path) -> int:
    """Unpack a real table, or what there is of it, to where the dataset has it; return how many lines it has."""
    source = blat_data / "meta" / f"{name}.gz"
    if not source.exists():
        pytest.skip(f"no {source}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.decompress(source.read_bytes()))
    return len(target.read_text().splitlines())


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        write(folder / name, "")


def test_esc50_has_five_folds_of_all_classes(blat_data: Path, tmp_path: Path) -> None:
    lines = official(blat_data, "esc50.csv", tmp_path / "meta" / "esc50.csv")
    touch(tmp_path / "audio", "1-100032-A-0.wav")
    task, clips = tasks.read("esc50", str(tmp_path), ())
    assert (
        len(clips) == lines - 1
        and Counter(clip.fold for clip in clips).items() <= dict.fromkeys(task.folds, 400).items()
    )
    assert len(tasks.classes(task, str(tmp_path), clips)) == 50
    assert {*Counter((clip.fold, clip.tags) for clip in clips).values()} == {8}  # 2,000 clips over five folds
    assert clips[0].uri == str(tmp_path / "audio" / "1-100032-A-0.wav")
    assert clips[0].tags == ("dog",) and clips[0].recording_id == "freesound:100032"
    assert len(tasks.read("esc50", str(tmp_path), ("2", "3"))[1]) == 800


def test_urbansound8k_keeps_its_ten_folds_and_their_folders(blat_data: Path, tmp_path: Path) -> None:
    lines = official(blat_data, "UrbanSound8K.csv", tmp_path / "metadata" / "UrbanSound8K.csv")
    task, clips = tasks.read("urbansound8k", str(tmp_path), ())
    assert len(clips) == lines - 1 > 8_600 and {clip.fold for clip in clips} == set(task.folds)
    assert len(tasks.classes(task, str(tmp_path), clips)) == 10
    first = next(clip for clip in clips if clip.source_id == "100032-3-0-0.wav")
    assert first.uri == str(tmp_path / "audio" / "fold5" / "100032-3-0-0.wav")
    assert (first.tags, first.recording_id) == (("dog bark",), "freesound:100032")


def test_audioset_eval_and_its_527_described_classes(blat_data: Path, tmp_path: Path) -> None:
    official(blat_data, "audioset_eval_segments.csv", tmp_path / "eval_segments.csv")
    official(blat_data, "audioset_balanced_train_segments.csv", tmp_path / "balanced_train_segments.csv")
    official(blat_data, "audioset_class_labels_indices.csv", tmp_path / "class_labels_indices.csv")
    official(blat_data, "audioset_ontology.json", tmp_path / "ontology.json")
    touch(tmp_path / "audio", "Y--4gqARaEJE.wav")
    task, clips = tasks.read("audioset", str(tmp_path), ())
    assert len(clips) == 20_371 and {clip.fold for clip in clips} == {"test"}
    classes = tasks.classes(task, str(tmp_path), clips)
    assert len(classes) == 527 and classes[:2] == ["Speech", "Male speech, man speaking"]
    descriptions = tasks.descriptions(task, str(tmp_path))
    assert all(descriptions[name] for name in classes) and "human" in descriptions["Speech"].lower()
    assert clips[0].uri == str(tmp_path / "audio" / "Y--4gqARaEJE.wav")
    assert len(tasks.read("audioset", str(tmp_path), task.train)[1]) == 22_160
    head = "".join((tmp_path / "eval_segments.csv").read_text().splitlines(keepends=True)[:3])
    write(tmp_path / "unbalanced_train_segments.csv", head + '---1_cCGK4M, 0.000, 10.000, "/m/01g50p,/m/0284vy3"\n')
    assert len(tasks.read("audioset", str(tmp_path), task.train)[1]) == 22_160
    (clip,) = tasks.read("audioset", str(tmp_path), ("unbalanced",))[1]
    assert (clip.recording_id, clip.mids) == ("youtube:---1_cCGK4M", ("/m/01g50p", "/m/0284vy3"))


def test_vggsound_test_table_and_309_classes(blat_data: Path, tmp_path: Path) -> None:
    official(blat_data, "vggsound_test.csv", tmp_path / "vggsound_test.csv")
    touch(tmp_path / "video", "glLQrEijrKg_000300.mp4")
    task, clips = tasks.read("vggsound", str(tmp_path), ())
    assert len(clips) > 15_000 and len(tasks.classes(task, str(tmp_path), clips)) == 309
    assert clips[0].uri == str(tmp_path / "video" / "glLQrEijrKg_000300.mp4")
    assert (clips[0].key, clips[0].recording_id) == ("YglLQrEijrKg_300000_310000", "youtube:glLQrEijrKg")
    assert "bird chirping, tweeting" in tasks.classes(task, str(tmp_path), clips)


def test_vggsound_as_published_has_both_splits(tmp_path: Path) -> None:
    rows = 'abcdefghijk,1,"people eating, chewing",train\n-bcdefghijk,0,dog barking,test\n_bcdefghijk,30,dog barking,test\n'
    write(tmp_path / "vggsound.csv", rows)
    touch(tmp_path, "-bcdefghijk_000000.flac")
    task, clips = tasks.read("vggsound", str(tmp_path), ())
    assert [clip.source_id for clip in clips] == ["-bcdefghijk_000000", "_bcdefghijk_000030"]
    assert clips[0].uri == str(tmp_path / "-bcdefghijk_000000.flac")
    _, training = tasks.read("vggsound", str(tmp_path), task.train)
    assert [clip.tags for clip in training] == [("people eating, chewing",)]
    write(tmp_path / "vggsound.csv", "abcdefghijk,1,dog barking,train\n")
    with pytest.raises(InputError, match=r"--task-dir .* lists no clip of test; folds: train"):
        tasks.read("vggsound", str(tmp_path), ())
    write(tmp_path / "vggsound.csv", "abcdefghijk,1,dog barking,test\nabcdefghijk,1,dog\n")
    with pytest.raises(InputError, match=r"vggsound\.csv, line 2: want ytid,start,label,split"):
        tasks.read("vggsound", str(tmp_path), ())


def test_fsd50k_in_its_four_folders(tmp_path: Path) -> None:
    truth = tmp_path / "FSD50K.ground_truth"
    write(
        truth / "dev.csv",
        'fname,labels,mids,split\n64760,"Bark,Dog","/m/05tny_,/m/0bt9lr",train\n16399,Rain,/m/06mb1,val\n',
    )
    write(truth / "eval.csv", 'fname,labels,mids\n37199,"Thunderstorm,Rain","/m/0jb2l,/m/06mb1"\n')
    write(
        truth / "vocabulary.csv",
        "0,Bark,/m/05tny_\n1,Dog,/m/0bt9lr\n2,Rain,/m/06mb1\n3,Wind_chime,/m/026fgl\n4,Thunderstorm,/m/0jb2l\n",
    )
    task, clips = tasks.read("fsd50k", str(tmp_path), ())
    (clip,) = clips
    assert (clip.uri, clip.fold) == (str(tmp_path / "FSD50K.eval_audio" / "37199.wav"), "test")
    assert set(clip.tags) == {"Thunderstorm", "Rain"} and clip.recording_id == "freesound:37199"
    assert tasks.classes(task, str(tmp_path), clips) == ["Bark", "Dog", "Rain", "Wind chime", "Thunderstorm"]
    _, everything = tasks.read("fsd50k", str(tmp_path), (*task.train, *task.validation, *task.test))
    assert [clip.fold for clip in everything] == ["train", "val", "test"]
    assert everything[0].uri == str(tmp_path / "FSD50K.dev_audio" / "64760.wav")
    write(tmp_path / "ontology.json", json.dumps([{"id": "/m/06mb1", "description": "The sound of rain. "}]))
    assert tasks.descriptions(task, str(tmp_path)) == {"Rain": "The sound of rain."}


def test_fsd50k_has_200_described_classes(blat_data: Path, tmp_path: Path) -> None:
    official(blat_data, "audioset_ontology.json", tmp_path / "ontology.json")
    listed = tmp_path / "FSD50K.ground_truth" / "vocabulary.csv"
    official(blat_data, "fsd50k_class_labels_indices.csv", listed)
    rows = [line.split(",") for line in listed.read_text().splitlines()[1:]]
    write(listed, "".join(f"{index},{name},{mid}\n" for index, mid, name in rows))  # published so, without a header
    task = tasks.TASKS["fsd50k"]
    names = tasks.classes(task, str(tmp_path), [])
    assert len(names) == 200 and names[0] == "Accelerating and revving and vroom" and names[-1] == "Zipper (clothing)"
    assert set(tasks.descriptions(task, str(tmp_path))) == set(names)
    write(listed, "Accordion,/m/0mkg\n")
    with pytest.raises(InputError, match=r"--task-dir .*cannot be read"):
        tasks.classes(task, str(tmp_path), [])


def test_gtzan_with_and_without_the_fault_filtered_lists(tmp_path: Path) -> None:
    names = [f"{genre}.0000{n}.wav" for genre in ("blues", "hiphop") for n in range(3)]
    touch(tmp_path / "genres_original", *(f"{name.split('.')[0]}/{name}" for name in names))
    task, clips = tasks.read("gtzan", str(tmp_path), ())
    assert [clip.source_id.rpartition("/")[2] for clip in clips] == names and {clip.fold for clip in clips} == {""}
    assert task.label_text("hiphop") == "hip hop music"
    write(tmp_path / "train_filtered.txt", "blues/blues.00000.wav\nhiphop/hiphop.00000.wav\n")
    write(tmp_path / "valid_filtered.txt", "blues/blues.00001.wav\n")
    write(tmp_path / "test_filtered.txt", "hiphop/hiphop.00002.wav\nrock/rock.00001.wav\n")  # the second is gone
    _, tested = tasks.read("gtzan", str(tmp_path), ())
    assert [clip.source_id for clip in tested] == ["hiphop/hiphop.00002.wav", "rock/rock.00001.wav"]
    _, everything = tasks.read("gtzan", str(tmp_path), (*task.train, *task.validation, *task.test))
    assert Counter(clip.fold for clip in everything) == {"train": 2, "validation": 1, "test": 2}


def test_gtzan_as_first_published_has_au_files_and_a_table_among_the_genres(tmp_path: Path) -> None:
    touch(tmp_path / "genres", "bextract_single.mf", "disco/disco.00000.au", "disco/disco.00001.au")
    write(tmp_path / "test_filtered.txt", "disco/disco.00001.wav\r\n")
    (clip,) = tasks.read("gtzan", str(tmp_path), ())[1]
    assert (clip.uri, clip.tags) == (str(tmp_path / "genres" / "disco" / "disco.00001.au"), ("disco",))


def test_speech_commands_splits_by_its_lists(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "yes/a_nohash_0.wav",
        "yes/b_nohash_0.wav",
        "no/a_nohash_0.wav",
        "_background_noise_/hum.wav",
        "README.md",
    )
    write(tmp_path / "testing_list.txt", "yes/b_nohash_0.wav\nup/gone_nohash_1.wav\n")
    write(tmp_path / "validation_list.txt", "no/a_nohash_0.wav\n")
    task, clips = tasks.read("speech-commands", str(tmp_path), ())
    assert [(clip.tags, clip.key) for clip in clips] == [(("up",), "up_gone_nohash_1"), (("yes",), "yes_b_nohash_0")]
    _, everything = tasks.read("speech-commands", str(tmp_path), (*task.train, *task.validation, *task.test))
    assert Counter(clip.fold for clip in everything) == {"train": 1, "validation": 1, "test": 2}
    assert tasks.classes(task, str(tmp_path), everything) == ["no", "up", "yes"]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_audiocaps_has_five_captions_a_test_clip(blat_data: Path, tmp_path: Path, version: str) -> None:
    lines = official(blat_data, f"audiocaps_{version}_test.csv", tmp_path / "test.csv")
    official(blat_data, f"audiocaps_{version}_val.csv", tmp_path / "val.csv")
    task, clips = tasks.read("audiocaps", str(tmp_path), ())
    assert 5 * len(clips) == lines - 1 > 4_000 and {len(clip.captions) for clip in clips} == {5}
    assert {clip.fold for clip in clips} == {"test"} and all(clip.recording_id.startswith("youtube:") for clip in clips)
    assert {clip.fold for clip in tasks.read("audiocaps", str(tmp_path), task.validation)[1]} == {"val"}


def test_clotho_evaluation_is_1045_clips_with_five_captions(blat_data: Path, tmp_path: Path) -> None:
    official(blat_data, "clotho_v2_test.csv", tmp_path / "clotho_captions_evaluation.csv")
    lines = official(blat_data, "clotho_v2_train.csv", tmp_path / "clotho_captions_development.csv")
    touch(tmp_path / "evaluation", "Santa Motor.wav")
    task, clips = tasks.read("clotho", str(tmp_path), ())
    assert len(clips) == 1_045 and {len(clip.captions) for clip in clips} == {5}
    assert clips[0].uri == str(tmp_path / "evaluation" / "Santa Motor.wav")
    assert len(tasks.read("clotho", str(tmp_path), task.train)[1]) == lines - 1 > 3_800
    _, both = tasks.read("clotho", str(tmp_path), (*task.train, *task.test))
    twice = [clip for clip in both if clip.source_id == "FREEZER_DOOR_OPEN_CLOSE.wav"]  # in either split, not one clip
    assert len({clip.key for clip in both}) == len(both) == lines - 1 + 1_045
    assert [clip.fold for clip in twice] == ["development", "evaluation"] and twice[1] in clips
    lines = official(blat_data, "clotho_v1_captions_development.csv", tmp_path / "clotho_captions_development.csv")
    assert len(tasks.read("clotho", str(tmp_path), task.train)[1]) == lines - 1 > 2_800


def test_clotho_takes_freesound_ids_from_its_metadata(tmp_path: Path) -> None:
    captions = (
        "file_name,caption_1,caption_2\nSanta Motor.wav,A motor.,It whirs.\nRain.wav,Rain.,Wet.\nSea.wav,Sea.,Wet.\n"
    )
    write(tmp_path / "clotho_captions_evaluation.csv", captions)
    head = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
    rows = 'Santa Motor.wav,motor;toy,53273,https://freesound.org/x,"[1, 2]",Ren\u00e9,by\nRain.wav,rain,Not found,,,x,by\n'
    (tmp_path / "clotho_metadata_evaluation.csv").write_bytes((head + rows).encode("latin-1"))
    clips = tasks.read("clotho", str(tmp_path), ())[1]
    assert [clip.recording_id for clip in clips] == ["freesound:53273", "", ""]


def test_subsets_with_a_table_of_their_own_are_read(blat_data: Path) -> None:
    for name, folder in (("esc50", "esc50"), ("urbansound8k", "urbansound8k_subset")):
        task, clips = tasks.read(name, str(blat_data / folder), ())
        assert {clip.fold for clip in clips} <= set(task.folds) and all(len(clip.tags) == 1 for clip in clips)
        assert all(Path(clip.uri).exists() for clip in clips[::40])


def test_a_table_of_ones_own_without_splits_is_read_whole_and_says_so(tmp_path: Path) -> None:
    write(tmp_path / "metadata.csv", "file,captions\na.wav,Rain || Wet\nb.wav,Wind\n")
    task, clips = tasks.read("clotho", str(tmp_path), ())
    assert len(clips) == 2 and task.fold_rule == "all clips of metadata.csv"
    write(tmp_path / "metadata.csv", "file,captions,fold\na.wav,Rain || Wet,evaluation\nb.wav,Wind,development\n")
    task, clips = tasks.read("clotho", str(tmp_path), ())
    assert [clip.source_id for clip in clips] == ["a.wav"] and task == tasks.TASKS["clotho"]


def test_a_recording_in_two_splits_is_an_error(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.csv", "audiocap_id,youtube_id,start_time,caption\n1,7fmOlUlwoNg,20,Rattling\n")
    with pytest.raises(InputError, match="Y7fmOlUlwoNg_20000_30000"):
        tasks.read("audiocaps", str(tmp_path), ("train", "test"))


def test_what_is_there_is_found_under_its_names(tmp_path: Path) -> None:
    write(tmp_path / "ESC-50-master" / "meta" / "esc50.csv", "filename,fold,category\n")
    write(tmp_path / "UrbanSound8K" / "metadata" / "UrbanSound8K.csv", "slice_file_name\n")
    write(tmp_path / "audiocaps" / "metadata.csv", "file,captions\n")
    write(tmp_path / "clotho" / "notes.txt", "")
    write(tmp_path / "metadata.csv", "file\n")
    found, _ = tasks.present(str(tmp_path))
    assert found == {
        "esc50": str(tmp_path / "ESC-50-master"),
        "urbansound8k": str(tmp_path / "UrbanSound8K"),
        "audiocaps": str(tmp_path / "audiocaps"),
    }
    for name, task in (("UrbanSound8K", "urbansound8k"), ("audiocaps", "audiocaps")):
        assert tasks.present(str(tmp_path / name)) == ({task: str(tmp_path / name)}, {})


def test_names_that_anyone_gives_tell_no_dataset(tmp_path: Path) -> None:
    for folder in ("mine", "AudioCaps"):
        write(tmp_path / folder / "test.csv", "audiocap_id,youtube_id,start_time,caption\n")
    assert tasks.present(str(tmp_path / "mine")) == ({}, {})
    assert tasks.present(str(tmp_path / "AudioCaps")) == ({"audiocaps": str(tmp_path / "AudioCaps")}, {})
    assert tasks.present(str(tmp_path)) == ({"audiocaps": str(tmp_path / "AudioCaps")}, {})


def test_a_bucket_of_datasets_is_found_and_read(s3: str) -> None:
    import boto3

    table = b"filename,fold,category\na.wav,1,dog\nb.wav,2,cat\n"
    boto3.client("s3").put_object(Bucket="corpus", Key="sets/esc50/meta/esc50.csv", Body=table)
    boto3.client("s3").put_object(Bucket="corpus", Key="sets/esc50/audio/a.wav", Body=b"x")
    assert tasks.present(f"{s3}/sets") == ({"esc50": f"{s3}/sets/esc50"}, {})
    _, clips = tasks.read("esc50", f"{s3}/sets/esc50", ())
    assert clips[0].uri == f"{s3}/sets/esc50/audio/a.wav"


@pytest.mark.parametrize(
    ("name", "table", "folds", "message"),
    [
        ("esc51", "", (), "--task 'esc51': did you mean esc50"),
        ("esc50", "", (), "holds no meta/esc50.csv and no metadata.csv"),
        ("esc50", "filename,fold,category\na.wav,1,dog\n", ("1", "7"), r"--folds \('7',\): .*folds: 1"),
        ("esc50", "fold,category\n1,dog\n", (), "cannot be read|no file column"),
        ("esc50", "filename,fold,category\na.wav,1,dog\na.flac,2,dog\n", (), "same key"),
    ],
)
def test_a_wrong_listing_is_refused(
    tmp_path: Path, name: str, table: str, folds: tuple[str, ...], message: str
) -> None:
    if table:
        write(tmp_path / "meta" / "esc50.csv", table)
    with pytest.raises(InputError, match=message):
        tasks.read(name, str(tmp_path), folds)

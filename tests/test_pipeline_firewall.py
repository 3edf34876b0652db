"""Decontamination: evaluation clips are found by the official metadata files, hand-made ones and the real ones."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import audio
from pipeline.dataset import shards
from pipeline.errors import InputError
from pipeline.planning.decontamination import SETS, Decontamination, DecontaminationConfig
from pipeline.planning.draft import draft_plan
from pipeline.sources import audioset
from pipeline.sources.clip import Clip, stem

METADATA = {  # file name -> (evaluation set, contents in its official layout, id that it must exclude)
    "eval_segments.csv": (
        "audioset-eval",
        '# Segments csv\n# num_ytids=1\n# YTID, start_seconds, end_seconds, labels\n-aaaaaaaaaa, 0.0, 10.0, "/m/0"\n',
        "youtube:-aaaaaaaaaa",
    ),
    "test.csv": (
        "audiocaps",
        "audiocap_id,youtube_id,start_time,caption\n1,bbbbbbbbbbb,30,a dog\n",
        "youtube:bbbbbbbbbbb",
    ),
    "clotho_captions_evaluation.csv": ("clotho", "file_name,caption_1\nSanta Motor.wav,x\n", "file:santa motor"),
    "clotho_metadata_evaluation.csv": (
        "clotho",
        "file_name,keywords,sound_id\nSanta Motor.wav,x,4711\n",
        "freesound:4711",
    ),
    "vggsound.csv": ("vggsound", "ccccccccccc,1,dog,test\nddddddddddd,1,dog,train\n", "youtube:ccccccccccc"),
    "eval.csv": ("fsd50k", "fname,labels,mids\n37199,Bark,/m/0\n", "freesound:37199"),
    "esc50.csv": (
        "esc50",
        "filename,fold,target,category,esc10,src_file,take\n5-9032-A-0.wav,5,0,dog,True,9032,A\n",
        "freesound:9032",
    ),
    "UrbanSound8K.csv": (
        "urbansound8k",
        "slice_file_name,fsID,start,end,salience,fold,classID,class_name\n7061-6-0-0.wav,7061,0,1,1,5,6,gun_shot\n",
        "freesound:7061",
    ),
}
IGNORED = {  # files that lie beside those and are no evaluation lists
    "train.csv": "audiocap_id,youtube_id,start_time,caption\n1,eeeeeeeeeee,30,a cat\n",
    "balanced_train_segments.csv": '# S\n# n\n# YTID, s, e, l\neeeeeeeeeee, 0.0, 10.0, "/m/0"\n',
    "clotho_captions_development.csv": "file_name,caption_1\nEngine.wav,x\n",
    "vggsound_class_labels_indices.csv": "index,mid,display_name\n0,vgg_0,dog\n",
    "class_labels_indices.csv": "index,mid,display_name\n0,/m/0,Dog\n",
}


def matcher(tmp_path: Path, **config: object) -> Decontamination:
    return Decontamination(DecontaminationConfig(**config), str(tmp_path / "source" / "clips.csv"))  # type: ignore[arg-type]


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    for name, (_, text, _) in METADATA.items():
        (folder / name).write_text(text)
    for name, text in IGNORED.items():
        (folder / name).write_text(text)
    return folder


def clip(origin: str = "", source_id: str = "x.wav") -> Clip:
    return Clip(key="k", uri="/u", source_id=source_id, recording_id=origin)


@pytest.mark.parametrize("name", METADATA)
def test_an_official_file_is_recognised_and_its_clips_are_excluded(lists: Path, tmp_path: Path, name: str) -> None:
    which, _, identity = METADATA[name]
    found = matcher(tmp_path, lists=(str(lists / name),))
    assert [entry.set for entry in found.lists] == [which] and which not in found.unchecked
    assert found.sets[identity] == which
    by_name = identity.startswith("file:")
    assert found.match(clip(source_id="audio/Santa Motor.wav") if by_name else clip(identity)) == which
    assert found.match(clip("youtube:eeeeeeeeeee", "Engine.wav")) == ""


@pytest.mark.parametrize(
    "source_id",
    ["Y-aaaaaaaaaa.wav", "-aaaaaaaaaa.flac", "audio/-aaaaaaaaaa_30.000_40.000.m4a", "-aaaaaaaaaa_000030.wav",
     "Y-aaaaaaaaaa_30000_40000"],
)  # fmt: skip
def test_a_clip_named_by_its_youtube_id_is_recognised(lists: Path, tmp_path: Path, source_id: str) -> None:
    found = matcher(tmp_path, lists=(str(lists / "eval_segments.csv"),))
    assert found.match(clip(source_id=source_id)) == "audioset-eval"
    assert found.match(Clip(key=stem(source_id).rpartition("/")[2], uri="/u", source_id="7")) == "audioset-eval"
    assert found.match(clip(source_id=source_id.replace("-a", "-b"))) == ""
    assert found.match(clip(source_id=source_id.replace("-a", "my -a"))) == ""


def test_our_own_shards_as_a_source_keep_where_their_clips_come_from(tmp_path: Path) -> None:
    meta = {"text": ["a dog"], "tag": ["Dog"], "mids": [], "source_id": "bark.wav", "origin": "freesound:9032"}
    samples = [("bark", audio.encode_flac(np.ones(3200, np.int16)), meta)]
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "00000.tar").write_bytes(b"".join(shards.pack(samples).tar.parts))
    (tmp_path / "source" / "esc50.csv").write_text(METADATA["esc50.csv"][1])
    draft = draft_plan("", str(tmp_path / "source"), (), 8, DecontaminationConfig()).plan
    assert draft.matched_sets.excluded == {"esc50": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("eval_segments.csv", "# S\n# n\n# YTID, s\n-aaaaaaaaaa, 0.0\n", "line 4: want YTID, start_seconds"),
        ("esc50.csv", "filename,src_file,esc10\n\n", "is no id"),
    ],
)
def test_a_broken_list_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"--firewall.lists.*{name}.*{message}"):
        matcher(tmp_path, lists=(f"esc50={tmp_path / name}" if name == "esc50.csv" else str(tmp_path / name),))


def test_a_blank_line_in_a_list_is_no_clip(tmp_path: Path) -> None:
    (tmp_path / "vggsound.csv").write_text("\n" + METADATA["vggsound.csv"][1] + "\n\n")
    found = matcher(tmp_path, lists=(str(tmp_path / "vggsound.csv"),))
    assert set(found.sets) == {"youtube:ccccccccccc"}


def test_a_folder_of_lists_takes_every_set_and_no_training_split(lists: Path, tmp_path: Path) -> None:
    found = matcher(tmp_path, lists=(str(lists),))
    assert {entry.set for entry in found.lists} == set(SETS) and found.unchecked == []
    assert set(found.sets) >= {identity for _, _, identity in METADATA.values()}
    assert not {"youtube:eeeeeeeeeee", "youtube:ddddddddddd", "file:engine"} & set(found.sets)


def test_lists_beside_the_source_are_found_without_a_flag(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "eval_segments.csv").write_text(METADATA["eval_segments.csv"][1])
    assert matcher(tmp_path).match(clip("youtube:-aaaaaaaaaa")) == "audioset-eval"
    own = Decontamination(DecontaminationConfig(), str(tmp_path / "source" / "eval_segments.csv"))
    assert own.lists == [], "who captions the evaluation set itself has asked for it"


def test_an_allowed_set_is_listed_and_not_excluded(lists: Path, tmp_path: Path) -> None:
    found = matcher(tmp_path, lists=(str(lists),), allow=("esc50",))
    assert found.match(clip("freesound:9032")) == "" and found.match(clip("freesound:7061")) == "urbansound8k"
    assert [entry.allowed for entry in found.lists if entry.set == "esc50"] == [True]


def test_any_list_can_be_named(tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("fffffffffff\nfreesound:12\nhttps://www.youtube.com/watch?v=ggggggggggg\n\n")
    found = matcher(tmp_path, lists=(f"mine={ids}",))
    assert set(found.sets) == {"youtube:fffffffffff", "freesound:12", "youtube:ggggggggggg"}
    assert found.match(clip("freesound:12")) == "mine"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lists": ("absent.csv",)}, "absent.csv.*no such file"),
        ({"lists": ("{lists}/train.csv",)}, "train.csv.*no known metadata file"),
        ({"allow": ("esc-50",)}, "--firewall.allow 'esc-50'.*esc50"),
        ({"required": ("audiocaps", "clotho"), "lists": ("{lists}/test.csv",)}, r"--firewall.required \['clotho'\]"),
        ({"lists": ("mine={lists}/empty.txt",)}, "lists no id"),
    ],
)
def test_what_cannot_be_is_an_error(
    lists: Path, tmp_path: Path, config: dict[str, tuple[str, ...]], message: str
) -> None:
    (lists / "empty.txt").write_text("\n")
    given = {key: tuple(value.format(lists=lists) for value in values) for key, values in config.items()}
    with pytest.raises(InputError, match=message):
        matcher(tmp_path, **given)


@pytest.fixture(scope="module")
def official(blat_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real metadata files, under their official names."""
    folder = tmp_path_factory.mktemp("official")
    for name, own in (
        ("audioset_balanced_train_segments", "balanced_train_segments"),
        ("audioset_class_labels_indices", "class_labels_indices"),
    ):
        with gzip.open(blat_data / "meta" / f"{name}.csv.gz") as packed:
            (folder / f"{own}.csv").write_bytes(packed.read())
    return folder


def test_the_real_lists_against_the_real_training_table(official: Path, blat_data: Path) -> None:
    """AudioCaps draws from the unbalanced set: none of its test clips is in the balanced one; 18 of VGGSound's are."""
    draft = draft_plan(
        "",
        str(official / "balanced_train_segments.csv"),
        (),
        512,
        DecontaminationConfig(lists=(str(blat_data / "meta"),)),
    )
    found = draft.plan.matched_sets
    assert draft.plan.num_clips == 22_160
    assert found.excluded == {"vggsound": 18}
    ids = {entry.list.rpartition("/")[2]: entry.ids for entry in found.lists}
    assert ids["audiocaps_v1_test.csv.gz"] == 893 and ids["audioset_eval_segments.csv.gz"] == 20_371
    assert ids["vggsound_test.csv.gz"] == 14_851
    assert found.unchecked == ["fsd50k"]
    assert "balanced_train" not in " ".join(ids) and "audiocaps_v1_train.csv.gz" not in ids


def test_esc50_shares_recordings_with_urbansound8k(blat_data: Path) -> None:
    lists = (str(blat_data / "meta" / "UrbanSound8K.csv.gz"),)
    found = draft_plan("", str(blat_data / "esc50"), (), 512, DecontaminationConfig(lists=lists)).plan.matched_sets
    assert found.excluded["urbansound8k"] > 50
    esc50 = (str(blat_data / "meta" / "esc50.csv.gz"),)
    every = draft_plan("", str(blat_data / "esc50"), (), 512, DecontaminationConfig(lists=esc50)).plan
    assert every.matched_sets.excluded == {"esc50": 1600}


def test_a_table_of_segments_keeps_its_odd_ids(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    segments = [audioset.Segment("-F9Zr37h-RQ", 30.0, 40.0, ())]
    (tmp_path / "train.csv").write_text(audioset.write_segments(segments))
    shutil.copy(__file__, tmp_path / "audio" / "Y-F9Zr37h-RQ.wav")
    (tmp_path / "class_labels_indices.csv").write_text("index,mid,display_name\n")
    (tmp_path / "eval_segments.csv").write_text(audioset.write_segments(segments))
    draft = draft_plan("", str(tmp_path / "train.csv"), (), 4, DecontaminationConfig())
    assert draft.plan.matched_sets.excluded == {"audioset-eval": 1}

"""Clips in an Arrow file: the same values as lists have, one file for all processes of a machine, few bytes a clip."""

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import storage
from pipeline.dataset.selection import SelectionConfig
from pipeline.errors import InputError, JobError
from pipeline.sources.clip import Clip
from tests.bench import clip_list
from train.data import clip_file, clip_sets, datasets
from train.data.clip_sets import TARS, ClipSubset, ListedClips, Mixture, TableClips
from train.data.datasets import MEMBERS
from train.data.order import BLOCK

BYTES_A_CLIP = 60  # beyond captions and tags
SCHEMA = MEMBERS.with_metadata({TARS: '["a.tar", "b.tar"]'})


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another temporary folder, as on another machine; child processes use it, too."""
    folder = tmp_path / "machine"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def rows(count: int, seed: int = 0) -> pa.Table:
    """Return clips in two tars, with none to three captions and tags each, in all alphabets."""
    draw = np.random.default_rng(seed)
    words = ["rain", "жук", "犬", "", "a dog, and a cat"]
    texts = [[words[i] for i in draw.integers(0, 5, n)] for n in draw.integers(0, 4, count)]
    tags = [[words[i] for i in draw.integers(0, 5, n)] for n in draw.integers(0, 4, count)]
    places = {"tar": np.sort(draw.integers(0, 2, count)), "offset": np.arange(count) * 100, "size": np.full(count, 90)}
    return pa.table({"key": [f"k{i}" for i in range(count)], "text": texts, "tags": tags, **places}, SCHEMA)


def split(table: pa.Table, seed: int) -> list[pa.Table]:
    """Return a table in pieces of random lengths, empty ones too."""
    ends = np.sort(np.random.default_rng(seed).integers(0, len(table) + 1, 9)).tolist()
    return [table.slice(first, last - first) for first, last in zip([0, *ends], [*ends, len(table)], strict=True)]


@pytest.mark.parametrize("count", [0, 1, clip_file.ROWS + 5])
def test_a_file_has_one_name_however_its_rows_come_and_every_value(count: int) -> None:
    table = rows(count)
    name = clip_file.write(SCHEMA, [table])
    assert {clip_file.write(SCHEMA, split(table, seed)) for seed in range(2)} == {name}
    assert (clip_file.write(SCHEMA, [rows(count, seed=1)]) == name) == (count == 0)
    clips = TableClips(clip_file.share(name, pytest.fail), name)
    assert all(batch.num_rows == clip_file.ROWS for batch in clips.table.to_batches()[:-1])
    for column, values in (("key", clips.keys), ("text", clips.texts), ("tags", clips.tags)):
        expected = table[column].to_pylist()
        assert list(values) == expected and len(values) == count
        some = range(0, count, 9973)
        assert [values[i] for i in some] == [expected[i] for i in some]
        assert values[-3:] == expected[-3:]
        with pytest.raises(IndexError):
            values[count]


def test_places_across_batches_are_those_of_neighbours_in_a_block() -> None:
    """At the edge of a batch, of a block and of a tar; by hand, from the whole columns."""
    count = clip_file.ROWS + 40
    table = rows(count)
    clips = TableClips(clip_file.share(clip_file.write(SCHEMA, [table]), pytest.fail))
    tar, offset = table["tar"].to_numpy(), table["offset"].to_numpy()
    edge = int(np.argmax(tar))
    for row in (0, 15, 16, edge - 1, edge, clip_file.ROWS - 1, clip_file.ROWS, count - 1):
        block = [i for i in range(row - row % BLOCK, min(row - row % BLOCK + BLOCK, count)) if tar[i] == tar[row]]
        location = clips.location(row)
        assert location == (("a.tar", "b.tar")[tar[row]], offset[row], 90, "", offset[block[0]], offset[block[-1]] + 90)


def test_mixtures_and_choices_have_the_values_of_their_parts() -> None:
    first, second = (TableClips(clip_file.batched(rows(count, seed))) for count, seed in ((30, 1), (50, 2)))
    listed = ListedClips([Clip(key="x", uri="/x.wav", source_id="x", captions=("hm",), fold="3", size=7)], ())
    picked = [7, 3, 3, 49]
    whole = Mixture([first, ClipSubset(second, picked), listed])
    assert list(whole.keys) == [*first.keys, *(second.keys[i] for i in picked), "x"] == whole.keys[:]
    assert [whole.texts[i] for i in (29, 30, 34)] == [first.texts[29], second.texts[7], ["hm"]]
    assert list(whole.tags) == [whole.tags[i] for i in range(35)]
    assert whole.location(33) == second.location(49)
    assert whole.location(34) == Clip(key="x", uri="/x.wav", source_id="x", fold="3", size=7)


def test_what_is_trained_on_has_the_hash_that_it_had_as_lists() -> None:
    """Runs that were begun before know it, and the clips that are held out."""
    clips = Mixture([TableClips(clip_file.batched(rows(40, 3))), TableClips(clip_file.batched(rows(60, 4)))])
    lists = zip(list(clips.keys), list(clips.texts), list(clips.tags), strict=True)
    expected = hashlib.sha256("".join(json.dumps(row) for row in lists).encode()).hexdigest()
    assert clip_sets.fingerprint(clips) == expected
    for count, seed in ((1, 0), (7, 1), (60, 2), (99, 3)):
        keys = sorted(set(clips.keys), key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
        assert clip_sets.hold_out(clips, count, seed) == set(keys[:count]), (
            "clips of two datasets share their keys here"
        )


RANK = """
import os, sys, time
from pathlib import Path
import pyarrow as pa
from train.data import clip_file

folder, name = Path(sys.argv[1]), sys.argv[2]

def build():
    (folder / f"built-{os.getpid()}").touch()
    table = pa.ipc.open_file(str(folder / "dataset.arrow")).read_all()
    return clip_file.write(table.schema, [table])

(folder / f"ready-{os.getpid()}").touch()
while len(list(folder.glob("ready-*"))) < 4:
    time.sleep(0.01)
print(clip_file.share(name, build)["key"].to_pylist() == [f"k{i}" for i in range(1000)])
"""


def test_ranks_of_another_machine_read_the_dataset_once(tmp_path: Path) -> None:
    name = clip_file.write(SCHEMA, [rows(1000)])
    clip_file.path(name).rename(tmp_path / "dataset.arrow")
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(tmp_path), name], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [rank.communicate(timeout=120)[0].strip() for rank in ranks] == ["True"] * 4
    assert len(list(tmp_path.glob("built-*"))) == 1
    assert len(list((tmp_path / "machine").rglob("*.arrow"))) == 1


def test_another_dataset_than_the_command_found_ends_the_run() -> None:
    name = clip_file.write(SCHEMA, [rows(10)])
    clip_file.path(name).unlink()
    with pytest.raises(JobError, match="the dataset has changed since; run the command again"):
        clip_file.share(name, lambda: clip_file.write(SCHEMA, [rows(11)]))


def test_files_that_nobody_opened_for_a_day_go_and_who_maps_one_keeps_it() -> None:
    name = clip_file.write(SCHEMA, [rows(1000)])
    held = clip_file.share(name, pytest.fail)
    opened = clip_file.write(SCHEMA, [rows(1001)])
    for each in (name, opened):
        os.utime(clip_file.path(each), (0, 0))
    clip_file.share(opened, pytest.fail)
    clip_file.write(SCHEMA, [rows(1002)])
    assert not clip_file.path(name).exists() and clip_file.path(opened).exists()
    assert held["key"].to_pylist() == [f"k{i}" for i in range(1000)]


def test_a_disk_that_takes_no_more_is_an_error_with_a_remedy(machine: Path) -> None:
    table, limits = rows(1000), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(JobError, match=r"the list of clips cannot be written to .*TMPDIR chooses another folder"):
            clip_file.write(SCHEMA, [table])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [path for path in machine.rglob("*") if path.is_file()]


def test_a_dataset_that_lacks_a_ledger_is_named(tmp_path: Path) -> None:
    clip_list.prepare(tmp_path, 5000)
    (tmp_path / "00001.parquet").unlink()
    with pytest.raises(InputError, match=r"--data .*00001.parquet.*python -m pipeline verify"):
        datasets.open_data([str(tmp_path)], SelectionConfig())
    storage.remove(str(tmp_path / "sizes.json"))


def test_a_clip_takes_few_bytes_beyond_its_captions_and_tags(tmp_path: Path) -> None:
    count = 20_000
    of_text = clip_list.prepare(tmp_path, count)
    (clips,) = datasets.open_data([str(tmp_path)], SelectionConfig())
    assert (clip_file.path(clips.name).stat().st_size - of_text) / count <= BYTES_A_CLIP
    assert clips.keys[4096] == "Y00000004096_00496" and len(clips.keys) == count
    location = clips.location(4096)
    assert location[:3] == (f"{tmp_path}/00001.tar", 512, 400_000)
    assert location[3] == hashlib.sha256(b"4096").hexdigest()[:32]

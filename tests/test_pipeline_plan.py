"""Plans: fixed by the listing alone."""

import dataclasses

import pytest

from pipeline import plan, storage
from pipeline.cli import InputError
from pipeline.sources import Clip

CLIPS = [Clip(key=f"Y{i}_0_1", uri=f"/a/{i}.wav", source_id=str(i), tags=("Rain",) if i % 2 else ()) for i in range(10)]


def test_hash_depends_on_what_is_captioned_not_on_where_it_lies() -> None:
    moved = [dataclasses.replace(clip, uri="s3://b" + clip.uri) for clip in CLIPS]
    assert plan.describe(CLIPS, 4)["hash"] == plan.describe(moved, 4)["hash"]
    retagged = [dataclasses.replace(CLIPS[0], tags=("Wind",)), *CLIPS[1:]]
    assert len({plan.describe(c, n)["hash"] for c, n in ((CLIPS, 4), (CLIPS, 5), (retagged, 4), (CLIPS[:-1], 4))}) == 4


def test_shards_are_row_groups(tmp_path) -> None:
    data = str(tmp_path)
    assert plan.write(data, CLIPS, 4)["num_shards"] == 3
    rows = [plan.read_shard(data, shard) for shard in range(3)]
    assert [len(shard) for shard in rows] == [4, 4, 2]
    assert [row["key"] for shard in rows for row in shard] == [clip.key for clip in CLIPS]


def test_another_plan_in_the_same_place_is_refused(tmp_path) -> None:
    data = str(tmp_path)
    plan.write(data, CLIPS, 4)
    before = storage.read(storage.join(data, "plan.parquet"))
    moved = [dataclasses.replace(clip, uri="s3://b" + clip.uri) for clip in CLIPS]
    plan.write(data, moved, 4)
    assert plan.read_shard(data, 0)[0]["uri"] == "s3://b/a/0.wav"
    plan.write(data, CLIPS, 4)
    with pytest.raises(InputError, match="10 other clips"):
        plan.write(data, CLIPS[:5], 4)
    assert storage.read(storage.join(data, "plan.parquet")) == before

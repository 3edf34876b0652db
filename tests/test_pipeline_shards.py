"""The shard format: reproducible bytes, readable by others, random access by the ledger, commit mark last."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import webdataset

from pipeline import audio, storage
from pipeline.dataset import shards
from pipeline.dataset.clip_index import ClipIndex


def outcomes(count: int = 3) -> list[shards.Outcome]:
    rng = np.random.default_rng(0)
    written = [
        shards.Outcome(
            key=f"Yclip{i}_0_1000",
            status="written",
            stage="write",
            duration_s=0.1,
            flac=audio.encode_flac(rng.integers(-999, 999, 3200).astype(np.int16)),
            meta={"text": [f"caption {i}", "other"], "tag": ["Rain", "Wind"]},
        )
        for i in range(count)
    ]
    bad = shards.Outcome(key="Ybad_0_1", status="failed", stage="read", reason="empty", detail="0 bytes")
    return [written[0], bad, *written[1:]]


def publish(folder: str) -> None:
    shards.write(folder, 0, outcomes(), "hash")
    storage.publish_json(storage.join(folder, "sizes.json"), {"00000.tar": 3})


def test_counts_add_up_and_reasons_are_stated(tmp_path) -> None:
    stats = shards.write(str(tmp_path), 0, outcomes(), "hash")
    assert stats.num_clips == stats.written + stats.filtered + stats.failed == 4
    assert stats.reasons == {"empty": 1}
    assert shards.committed(str(tmp_path)) == [0] and shards.read_stats(str(tmp_path), 0) == stats


def test_same_outcomes_same_bytes(tmp_path) -> None:
    for name in ("a", "b"):
        shards.write(str(tmp_path / name), 0, outcomes(), "hash")
    assert (tmp_path / "a" / "00000.tar").read_bytes() == (tmp_path / "b" / "00000.tar").read_bytes()


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_a_tar_has_the_bytes_that_webdataset_writes(count: int) -> None:
    """Of contents of all lengths around a block, under short names and the longest."""
    rng = np.random.default_rng(count)
    samples = [(f"{i}{'k' * 85 * (i % 2)}", rng.bytes(509 + i), {"text": ["x" * i, "é"]}) for i in range(count)]
    packed = shards.pack(samples)  # type: ignore[arg-type]
    theirs = io.BytesIO()
    with webdataset.TarWriter(theirs, user="blat", group="blat", mtime=0) as writer:
        for key, flac, meta in samples:
            text = json.dumps(meta, ensure_ascii=False, sort_keys=True).encode()
            writer.write({"__key__": key, "flac": flac, "json": text})
    ours = b"".join(packed.tar.parts)
    assert ours == theirs.getvalue() and packed.tar.size == len(ours)
    assert packed.tar.sha256() == hashlib.sha256(ours).hexdigest()
    for position, (_, flac, meta) in zip(packed.positions, samples, strict=True):
        assert ours[position.flac_offset :][: position.flac_size] == flac
        assert json.loads(ours[position.json_offset :][: position.json_size]) == meta


def test_plain_webdataset_reads_our_tar(tmp_path) -> None:
    publish(str(tmp_path))
    samples = list(webdataset.WebDataset(str(tmp_path / "00000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["Yclip0_0_1000", "Yclip1_0_1000", "Yclip2_0_1000"]
    assert json.loads(samples[0]["json"])["text"] == ["caption 0", "other"]
    assert len(audio.decode(samples[0]["flac"])) == 3200


def test_members_of_a_sample_are_adjacent_and_fixed_in_time(tmp_path) -> None:
    publish(str(tmp_path))
    with tarfile.open(tmp_path / "00000.tar") as tar:
        members = tar.getmembers()
    assert [member.name.split(".")[1] for member in members] == ["flac", "json"] * 3
    assert {member.mtime for member in members} == {0}
    assert b"ustar\x00" in (tmp_path / "00000.tar").read_bytes()[:512]


def test_index_reads_members_by_offset(tmp_path) -> None:
    publish(str(tmp_path))
    index = ClipIndex(str(tmp_path))
    assert len(index) == 3
    assert index.flac(1) == outcomes()[2].flac
    assert index.meta(2)["tag"] == ["Rain", "Wind"]
    assert index.texts()[0] == ["caption 0", "other"]
    assert index.ledger.num_rows == 4


def test_unfinished_dataset_is_no_dataset(tmp_path) -> None:
    shards.write(str(tmp_path), 0, outcomes(), "hash")
    with pytest.raises(FileNotFoundError, match=r"sizes\.json"):
        ClipIndex(str(tmp_path))


def test_a_shard_without_written_clips_is_a_valid_tar(tmp_path) -> None:
    stats = shards.write(str(tmp_path), 0, outcomes()[1:2], "hash")
    assert stats.written == 0
    with tarfile.open(tmp_path / "00000.tar") as tar:
        assert tar.getmembers() == []

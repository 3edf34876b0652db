"""What is done with a dataset of shards once it is there: verify, retry, audit, recaption, export, listen."""

import dataclasses
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import soundfile
import webdataset

from pipeline import audio, sources, storage
from pipeline.configs import RECAPTION
from pipeline.dataset import overlays
from pipeline.dataset.clip_index import ClipIndex
from pipeline.dataset.selection import FilterConfig
from pipeline.dataset.shard_stats import ShardStats
from pipeline.errors import InputError, JobError
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.engine import ActorConfig
from pipeline.graph.job_stats import ProgressReporter, ShardReport
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.planning.plan import read_plan
from pipeline.stages import audit, caption, export, fingerprint, listen, recaption, retry, verify
from pipeline.stages.audit import AuditConfig
from pipeline.stages.export import ExportConfig
from pipeline.stages.fingerprint import FingerprintConfig
from pipeline.stages.listen import ListenConfig
from pipeline.stages.recaption import RecaptionConfig
from pipeline.stages.retry import RetryConfig
from pipeline.stages.verify import VerifyConfig

IN_PROCESS = ActorConfig(max=0)


@pytest.fixture
def copy(dataset: str, tmp_path: Path) -> str:
    """A copy of the dataset, to be damaged."""
    return str(shutil.copytree(dataset, tmp_path / "copy"))


def test_a_whole_dataset_verifies(dataset: str) -> None:
    verify.run(VerifyConfig(data=dataset, in_process=True))


def test_verify_names_what_is_wrong(copy: str) -> None:
    tar = Path(copy, "00000.tar").read_bytes()
    Path(copy, "00000.tar").write_bytes(tar[:5000] + bytes([tar[5000] ^ 1]) + tar[5001:])
    Path(copy, "00001_stats.json").unlink()
    shutil.copy(Path(copy, "00002.tar"), Path(copy, "00009.tar"))
    stats = storage.read_json(storage.join(copy, "00002_stats.json"))
    storage.publish_json(storage.join(copy, "00002_stats.json"), {**stats, "written": 7, "failed": 1})
    with pytest.raises(JobError) as caught:
        verify.run(VerifyConfig(data=copy, in_process=True))
    message = str(caught.value)
    assert "5 things are wrong" in message, message
    for part in ("not committed: shards 1;", "tars that no plan names: ['00009.tar']", "shard 00000: its tar has"):
        assert part in message
    assert "shard 00002: its counts do not add up" in message


def test_verify_goes_on_past_what_cannot_be_read(copy: str) -> None:
    Path(copy, "00001_stats.json").write_text("{")
    Path(copy, "00002.tar").unlink()
    with pytest.raises(JobError) as caught:
        verify.run(VerifyConfig(data=copy, in_process=True))
    message = str(caught.value)
    for part in ("shard 00001: JSONDecodeError", "shard 00002: FileNotFoundError", "sizes.json does not agree"):
        assert part in message
    assert "shard 00000" not in message


def test_verify_names_the_shards_whose_plan_is_gone(copy: str) -> None:
    shutil.rmtree(Path(copy, "plan"))
    with pytest.raises(JobError) as caught:
        verify.run(VerifyConfig(data=copy, in_process=True))
    assert all(f"shard {shard:05d}: FileNotFoundError" in str(caught.value) for shard in range(3))


def test_verify_looks_inside_a_tar_whose_hash_was_made_to_fit(copy: str) -> None:
    ledger = storage.read_table(storage.join(copy, "00001.parquet"))
    row = ledger.to_pylist()[3]
    path = Path(copy, "00001.tar")
    tar = bytearray(path.read_bytes())
    middle = row["flac_offset"] + row["flac_size"] // 2
    tar[middle : middle + 64] = bytes(64)
    path.write_bytes(tar)
    import hashlib

    stats = storage.read_json(storage.join(copy, "00001_stats.json"))
    storage.publish_json(
        storage.join(copy, "00001_stats.json"), {**stats, "tar_sha256": hashlib.sha256(tar).hexdigest()}
    )
    with pytest.raises(JobError, match=f"shard 00001: {row['key']}: the audio is not what was written"):
        verify.run(VerifyConfig(data=copy, in_process=True))


@pytest.fixture(scope="module")
def mended(caption_config: CaptionConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes]]:
    """A dataset of twelve clips, one missing and one broken; the missing one has come since, and was tried again.

    Its shards are bounded by bytes, so that they are of 3, 6 and 3 clips.
    """
    folder = tmp_path_factory.mktemp("mended")
    clips = sources.read_clips(caption_config.source)[:12]
    (folder / "audio").mkdir()
    lines = []
    for i, clip in enumerate(clips):
        data = storage.read(clip.uri)
        if i != 4:
            (folder / "audio" / f"{i}.flac").write_bytes(data[: len(data) // 2] if i == 7 else data)
        lines.append(f'{i}.flac,"{"|".join(clip.tags)}"')
    (folder / "metadata.csv").write_text("file,labels\n" + "\n".join(lines) + "\n")
    out = str(folder / "out")
    config = dataclasses.replace(caption_config, source=str(folder), out=out, max_bad_fraction=0.5, max_shard_mb=0.25)
    caption.run(config)
    before = {path.name: path.read_bytes() for path in sorted(Path(out).glob("0000*"))}
    (folder / "audio" / "4.flac").write_bytes(storage.read(clips[4].uri))
    retry.run(RetryConfig(actors=IN_PROCESS, data=out, reason=("missing", "unreadable"), max_bad_fraction=0.5))
    caption.run(config)  # the first command finds it complete
    return out, before


def test_a_retry_writes_new_shards_and_leaves_old_ones_alone(mended: tuple[str, dict[str, bytes]]) -> None:
    out, before = mended
    assert {name: Path(out, name).read_bytes() for name in before} == before
    index = ClipIndex(out)
    assert len(index) == 11 and index.keys[-1] == "4" and index.written["shard"][-1].as_py() == 3
    sizes = {"00000.tar": 3, "00001.tar": 4, "00002.tar": 3, "00003.tar": 1}
    assert storage.read_json(storage.join(out, "sizes.json")) == sizes
    card = storage.read_text(storage.join(out, "README.md"))
    assert "12 clips planned = 11 written + 0 filtered + 1 failed" in card and "1 missing" in card
    verify.run(VerifyConfig(data=out, in_process=True))


def test_a_shard_that_came_out_far_larger_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """Shards 1 and 2 do, by the twofold and more; it is whole all the same."""
    counts = {"num_clips": 8, "written": 8, "filtered": 0, "failed": 0, "reasons": {}, "duration_s": 9.0}
    hashes = {"plan_hash": "", "tar_sha256": ""}
    reporter = ProgressReporter(24, IN_PROCESS, 0.5)
    for shard, tar_size in enumerate((999_000, 1_001_000, 9_000_000)):
        stats = ShardStats(**counts, **hashes, shard=shard, tar_size=tar_size)
        reporter.add(ShardReport(stats=stats, actor="a", busy_s=1.0))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "shard 00001 has 1 MB, --max-shard-mb is 0.5" in warning and "use a lower --clips-per-shard" in warning


def test_a_retry_without_such_failures_says_which_there_are(mended: tuple[str, dict[str, bytes]]) -> None:
    with pytest.raises(InputError, match=r"--reason.*no clip failed so; the failed ones: truncated 1"):
        retry.run(RetryConfig(actors=IN_PROCESS, data=mended[0], reason=("missing",)))
    plan = read_plan(mended[0])
    assert plan and len(plan.shards) == 4


def test_a_retry_finishes_the_plan_and_finds_a_source_that_moved(caption_config: CaptionConfig, tmp_path: Path) -> None:
    """The last shard was never written, one clip came late, and all of it lies elsewhere by now."""
    clips = sources.read_clips(caption_config.source)[:12]
    (tmp_path / "old" / "audio").mkdir(parents=True)
    lines = [f'{i}.flac,"{"|".join(clip.tags)}"' for i, clip in enumerate(clips)]
    (tmp_path / "old" / "metadata.csv").write_text("file,labels\n" + "\n".join(lines) + "\n")
    for i, clip in enumerate(clips):
        if i != 2:
            (tmp_path / "old" / "audio" / f"{i}.flac").write_bytes(storage.read(clip.uri))
    out = str(tmp_path / "out")
    caption.run(dataclasses.replace(caption_config, source=str(tmp_path / "old"), out=out, max_bad_fraction=0.5))
    for name in ("00001.tar", "00001.parquet", "00001_stats.json", "sizes.json"):
        Path(out, name).unlink()
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "new" / "audio" / "2.flac").write_bytes(storage.read(clips[2].uri))
    again = RetryConfig(
        actors=IN_PROCESS, data=out, reason=("missing",), source=str(tmp_path / "new"), max_bad_fraction=1.0
    )
    with pytest.raises(InputError, match=r"--max-bad-fraction 7\.0"):
        retry.run(dataclasses.replace(again, max_bad_fraction=7.0))
    retry.run(again)
    ledger = {row["key"]: row["status"] for row in ClipIndex(out).ledger.to_pylist()}
    assert ledger["2"] == "written", "the clip that came late"
    plan = read_plan(out)
    assert plan is not None and [part.reasons for part in plan.retries] == [{"missing": 5}]
    assert set(ledger.values()) == {"written"}, "those of the last shard too, planned where nothing is any more"


def test_a_clip_that_failed_twice_is_planned_once_more(mended: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    out = str(shutil.copytree(mended[0], tmp_path / "out"))
    for tries in (1, 2):
        retry.run(RetryConfig(actors=IN_PROCESS, data=out, reason=("truncated",), max_bad_fraction=0.5))
        plan = read_plan(out)
        assert plan is not None and plan.retries[tries].num_clips == 1
    verify.run(VerifyConfig(data=out, in_process=True))


@pytest.fixture(scope="module")
def audited(dataset: str) -> str:
    audit.run(AuditConfig(data=dataset, name="audit", in_process=True))
    return "audit"


def test_an_audit_stores_verdicts_on_every_caption(dataset: str, audited: str) -> None:
    audit_rows, info = overlays.read_audit(dataset, audited), overlays.read_info(dataset, audited)
    index = ClipIndex(dataset)
    assert list(audit_rows) == index.keys
    for key, texts in zip(index.keys, index.texts(), strict=True):
        row = audit_rows[key]
        assert row["text"] == texts and row["words"] == [len(text.split()) for text in texts]
        assert len(row["foreign"]) == len(row["unmentioned"]) == len(row["uses"]) == len(texts)
    uses = {text: sum(text in texts for texts in index.texts()) for texts in index.texts() for text in texts}
    assert {t: n for row in audit_rows.values() for t, n in zip(row["text"], row["uses"], strict=True)} == uses
    assert info["num_captions"] == sum(map(len, index.texts())) and info["copies"] == 0
    audit.run(AuditConfig(data=dataset, name=audited, in_process=True))  # complete: nothing to do


def test_recaptions_are_an_overlay_with_their_own_provenance(dataset: str, caption_config: CaptionConfig) -> None:
    tiny: RecaptionConfig = RECAPTION["tiny"][1]
    before = {path.name: path.stat().st_mtime_ns for path in Path(dataset).glob("*.tar")}
    config = dataclasses.replace(
        tiny,
        actors=IN_PROCESS,
        data=dataset,
        name="v2",
        captioner=caption_config.captioner,
        guidance=("tags", "none"),
        samples=2,
    )
    recaption.run(config)
    captions, info = overlays.read_captions(dataset, "v2"), overlays.read_info(dataset, "v2")
    index = ClipIndex(dataset)
    assert list(captions) == index.keys and info["guidance"] == ["tags", "none"]
    made = [json.loads(row["captions"]) for row in captions.values()]
    kinds = {(c["decoding"].split()[0], c["tags_given"]) for clip in made for c in clip}
    assert kinds >= {("beam", True), ("nucleus", True), ("nucleus", False)}
    assert all(len({c["text"] for c in clip}) == len(clip) for clip in made)
    guided = [[c["text"] for c in clip if c["tags_given"] and c["decoding"].startswith("beam")] for clip in made]
    assert guided == index.texts(), "the same captioner writes the same"
    assert {path.name: path.stat().st_mtime_ns for path in Path(dataset).glob("*.tar")} == before


def test_export_writes_what_is_chosen_as_plain_tars(dataset: str, audited: str, tmp_path: Path) -> None:
    index = ClipIndex(dataset)
    audit_rows = overlays.read_audit(dataset, audited)
    limit = sorted(words for row in audit_rows.values() for words in row["words"])[len(audit_rows) // 2]
    out = str(tmp_path)
    config = ExportConfig(
        in_process=True,
        data=dataset,
        out=out,
        clips_per_shard=10,
        filter=FilterConfig(audit=audited, min_words=limit + 1),
    )
    export.run(config)
    kept = {k: [t for t in texts if len(t.split()) > limit] for k, texts in zip(index.keys, index.texts(), strict=True)}
    kept = {key: texts for key, texts in kept.items() if texts}
    assert 0 < len(kept) < len(index) or any(kept[k] != t for k, t in zip(index.keys, index.texts(), strict=True))
    names = sorted(str(path) for path in tmp_path.glob("*.tar"))
    samples = list(webdataset.WebDataset(names, shardshuffle=False))
    assert {s["__key__"]: json.loads(s["json"])["text"] for s in samples} == kept
    metas = [json.loads(sample["json"]) for sample in samples]
    assert all([caption["text"] for caption in meta["captions"]] == meta["text"] for meta in metas)
    assert samples[0]["flac"] == index.flac(index.keys.index(samples[0]["__key__"]))
    sizes = storage.read_json(storage.join(out, "sizes.json"))
    assert sum(sizes.values()) == len(kept) and list(sizes) == [Path(name).name for name in names]
    with pytest.raises(InputError, match="selection was"):  # the same words, other captions behind them
        redone = storage.join(overlays.folder(dataset, audited), "00000.parquet")
        before = storage.read_table(redone)
        rows = [{**row, "words": [0] * len(row["words"])} for row in before.to_pylist()]
        try:
            storage.publish_table(redone, pa.Table.from_pylist(rows, schema=overlays.AUDIT_SCHEMA))
            export.run(config)
        finally:
            storage.publish_table(redone, before)
    untouched = Path(names[0]).stat().st_mtime_ns
    Path(names[-1]).unlink()
    export.run(config)
    assert Path(names[-1]).exists() and (len(names) == 1 or Path(names[0]).stat().st_mtime_ns == untouched)


def test_the_page_to_listen_to_shows_clips_and_flags(dataset: str, audited: str) -> None:
    listen.run(ListenConfig(data=dataset, audit=audited, clips=4))
    page = storage.read_text(storage.join(dataset, "listen.html"))
    assert page.count("data:audio/flac;base64,") >= 8 and "Worst-scored clips" in page
    index = ClipIndex(dataset)
    assert sum(key in page for key in index.keys) >= 4


def test_clips_that_sound_like_evaluation_audio_are_left_out(caption_config: CaptionConfig, tmp_path: Path) -> None:
    clips = sources.read_clips(caption_config.source)
    folder = tmp_path / "evaluation"
    folder.mkdir()
    for clip in clips[2:4]:
        samples = audio.decode(storage.read(clip.uri), 22_050)
        soundfile.write(folder / f"{clip.source_id}.ogg", samples // 2, 22_050)
    table = str(tmp_path / "evaluation.parquet")
    fingerprint.run(FingerprintConfig(source=str(folder), name="ours", out=table))
    out = str(tmp_path / "out")
    caption.run(dataclasses.replace(caption_config, out=out, firewall=DecontaminationConfig(fingerprints=(table,))))
    ledger = {row["key"]: row for row in ClipIndex(out).ledger.to_pylist()}
    left_out = {key: row["detail"] for key, row in ledger.items() if row["reason"] == "evaluation_audio"}
    assert {clip.key for clip in clips[2:4]} <= set(left_out)
    assert f"sounds like ours {clips[2].source_id}.ogg" in left_out[clips[2].key]
    assert len(left_out) <= 4, left_out

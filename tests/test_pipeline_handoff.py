"""What travels between the steps of the caption graph: samples to the actor, audio round it, captions to the writer."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from pipeline import audio, storage
from pipeline.configs import CAPTION
from pipeline.dataset import commit, shards, staging
from pipeline.dataset.clip_index import ClipIndex
from pipeline.graph import caption_graph
from pipeline.graph.caption_actor import CaptionActor
from pipeline.graph.caption_config import CaptionActorConfig, CaptionConfig
from pipeline.graph.captioner import CaptionedBatch, ClipBatch
from pipeline.graph.reader import Reader
from pipeline.graph.shard_batch import ClipRow, ShardBatch, Waveforms
from pipeline.graph.write_shard import write_shard
from pipeline.planning.decontamination import DecontaminationConfig
from pipeline.planning.draft import draft_plan
from pipeline.planning.plan import Plan
from pipeline.planning.publish import publish_plan
from pipeline.quality import audio_filter

RNG = np.random.default_rng(0)
SIZE = 1000  # samples that the captioner of these tests takes


class Recording:
    """A captioner that keeps what it is given, and captions a clip by the sum of its samples."""

    clip_samples = SIZE

    def __init__(self, config: CaptionActorConfig) -> None:
        self.batches: list[ClipBatch] = []

    def reject(self, tags: list[str], texts: list[str]) -> tuple[str, str] | None:
        return ("unknown_tags", "by this test") if "no" in tags else None

    def caption(self, clips: ClipBatch) -> CaptionedBatch:
        self.batches.append(clips)
        texts = [str(int(row.astype(int).sum())) for row in clips.waveform]
        made = {"score": 0.0, "guidance": "none", "decoding": "beam 3", "tags": None}
        return CaptionedBatch([[{"text": text, **made}] for text in texts], 0.5)  # type: ignore[typeddict-item]


def noise(length: int) -> np.ndarray:
    return RNG.integers(-999, 999, length).astype(np.int16)


@pytest.mark.parametrize("seed", range(20))
def test_waveforms_follow_one_another_cut_to_the_captioners_length(seed: int) -> None:
    """Of clips of any length, put in any order, some of them left out."""
    rng = np.random.default_rng(seed)
    clips = [noise(int(n)) for n in rng.choice([1, 7, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE], size=9)]
    kept = [i for i in range(9) if rng.random() < 0.8]
    waveforms = Waveforms(9, SIZE)
    for i in rng.permutation(kept).tolist():
        waveforms.put(i, clips[i])
    wanted = [clips[i][:SIZE] for i in kept]
    assert np.array_equal(waveforms.joined(), np.concatenate([np.zeros(0, np.int16), *wanted]))


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_a_batch_survives_arrow_without_a_copy_of_its_samples(size: int) -> None:
    samples = noise(size)
    rows: list[ClipRow] = [{"key": "a", "status": "ready", "num_samples": size, "tags": ["Rain"]}]  # type: ignore[typeddict-item]
    table = ShardBatch(shard=3, clips=rows, audio="somewhere", waveforms=samples, actor="me", busy_s=1.5).to_table()
    found = ShardBatch.from_table(table)
    assert (found.shard, found.audio, found.actor, found.busy_s) == (3, "somewhere", "me", 1.5)
    assert found.clips[0]["key"] == "a" and np.array_equal(found.waveforms, samples)
    assert not size or np.shares_memory(found.waveforms, samples)


@pytest.mark.parametrize("seed", range(10))
def test_every_clip_is_captioned_by_its_own_samples(seed: int) -> None:
    """Whatever the lengths of the clips, and whichever are left out before the actor or in it."""
    rng = np.random.default_rng(seed)
    status = rng.choice(["ready", "ready", "ready", "failed"], size=13).tolist()
    tags = [["no"] if rng.random() < 0.3 else ["Rain"] for _ in status]
    clips = [noise(int(n)) for n in rng.choice([SIZE // 2, SIZE, 2 * SIZE], p=[0.3, 0.4, 0.3], size=13)]
    rows = [
        {"key": str(i), "status": status[i], "num_samples": len(clips[i]), "tags": tags[i]} for i in range(len(clips))
    ]
    read = [clip[:SIZE] for clip, state in zip(clips, status, strict=True) if state == "ready"]
    waveforms = np.concatenate([np.zeros(0, np.int16), *read])
    batch = ShardBatch(shard=0, clips=rows, audio="uri", waveforms=waveforms)  # type: ignore[arg-type]
    actor = CaptionActor(CaptionActorConfig(batch_size=4), Recording)
    captioned = ShardBatch.from_table(actor(batch.to_table()))
    assert captioned.audio == "uri" and not len(captioned.waveforms), "samples came back from the actor"
    for i, row in enumerate(captioned.clips):
        if status[i] == "ready" and tags[i] == ["Rain"]:
            assert row["captions"] and row["captions"][0]["text"] == str(int(clips[i][:SIZE].astype(int).sum()))
        else:
            assert not row["captions"] and row["status"] == ("failed" if status[i] == "failed" else "filtered")
    recording = actor.captioner
    assert isinstance(recording, Recording)
    assert all(b.waveform.shape == (len(b.keys), SIZE) for b in recording.batches)
    assert captioned.busy_s == 0.5 * len(recording.batches)


def test_full_clips_reach_the_captioner_without_a_copy() -> None:
    samples = noise(6 * SIZE)
    rows = [{"key": str(i), "status": "ready", "num_samples": SIZE, "tags": []} for i in range(6)]
    actor = CaptionActor(CaptionActorConfig(batch_size=4), Recording)
    actor(ShardBatch(shard=0, clips=rows, waveforms=samples).to_table())  # type: ignore[arg-type]
    recording = actor.captioner
    assert isinstance(recording, Recording) and [len(b.keys) for b in recording.batches] == [4, 2]
    assert all(np.shares_memory(b.waveform, samples) for b in recording.batches)


@pytest.fixture
def job(corpus: str, tmp_path: Path) -> tuple[CaptionConfig, str, Plan]:
    """A planned dataset of the procedural corpus, of which every second clip is a WAV."""
    source = tmp_path / "source"
    (source / "audio").mkdir(parents=True)
    lines = ["file,labels"]
    for i, path in enumerate(sorted((Path(corpus) / "audio").iterdir())[:16]):
        data = path.read_bytes()
        if i % 2:
            soundfile.write(str(source / "audio" / f"{i:02d}.wav"), audio.decode(data), 32_000, subtype="PCM_16")
        else:
            (source / "audio" / f"{i:02d}.flac").write_bytes(data)
        lines.append(f"{i:02d}.{'wav' if i % 2 else 'flac'},Rain")
    (source / "metadata.csv").write_text("\n".join(lines) + "\n")
    out = str(tmp_path / "out")
    config = dataclasses.replace(CAPTION["tiny"][1], source=str(source), out=out, guidance=("none",))
    plan = publish_plan(out, draft_plan(out, str(source), (), 8, DecontaminationConfig()))
    run_config = {**dataclasses.asdict(config), "captioner_revision": "", "arithmetic": ""}
    storage.publish_json(f"{out}/run.json", storage.plain(run_config))
    return config, out, plan


def read_and_caption(config: CaptionConfig, out: str, plan: Plan, decode: str = "reader") -> pa.Table:
    decoded = SIZE if decode == "reader" else 0
    table = Reader(out, plan, (), decoded, audio_filter.OFF)(pa.table({"shard": [0]}))
    return CaptionActor(config, Recording)(table)


@pytest.mark.parametrize("decode", ["reader", "actor"])
def test_canonical_files_are_in_the_shard_byte_for_byte_and_others_encoded(
    job: tuple[CaptionConfig, str, Plan], decode: str
) -> None:
    config, out, plan = job
    write_shard(read_and_caption(config, out, plan, decode), out, plan)
    storage.publish_json(f"{out}/sizes.json", {"00000.tar": 8})
    index = ClipIndex(out)
    assert len(index) == 8
    for row, key in enumerate(index.keys):
        number = int(key.removeprefix("0"))
        original = (Path(config.source) / "audio" / f"{key}.{'wav' if number % 2 else 'flac'}").read_bytes()
        samples = audio.decode(original)
        assert index.flac(row) == (audio.encode_flac(samples) if number % 2 else original)
        assert index.texts()[row] == [str(int(samples[:SIZE].astype(int).sum()))]


def test_staged_audio_is_gone_once_the_shard_is_committed(job: tuple[CaptionConfig, str, Plan]) -> None:
    config, out, plan = job
    captioned = read_and_caption(config, out, plan)
    uri = ShardBatch.from_table(captioned).audio
    assert storage.exists(uri) and len(staging.read(uri)) > 0
    write_shard(captioned, out, plan)
    assert not storage.exists(uri) and storage.list_names(f"{out}/attempts") == []


def test_a_writing_task_that_runs_again_reports_what_was_committed(job: tuple[CaptionConfig, str, Plan]) -> None:
    """As when its worker dies after the commit: the staged audio is gone, and nothing is written again."""
    config, out, plan = job
    captioned = read_and_caption(config, out, plan)
    first = write_shard(captioned, out, plan)
    before = Path(out, shards.tar_name(0)).stat().st_mtime_ns
    assert write_shard(captioned, out, plan) == first
    assert Path(out, shards.tar_name(0)).stat().st_mtime_ns == before


def test_two_attempts_at_reading_do_not_meet(job: tuple[CaptionConfig, str, Plan]) -> None:
    config, out, plan = job
    one, other = (read_and_caption(config, out, plan) for _ in range(2))
    write_shard(one, out, plan)
    tar = Path(out, shards.tar_name(0)).read_bytes()
    write_shard(other, out, plan)
    assert Path(out, shards.tar_name(0)).read_bytes() == tar and storage.list_names(f"{out}/attempts") == []


def test_a_shard_of_which_nothing_can_be_read_is_committed(tmp_path: Path) -> None:
    source, out = tmp_path / "source", str(tmp_path / "out")
    source.mkdir()
    (source / "metadata.csv").write_text("file,labels\nabsent.flac,Rain\n")
    config = dataclasses.replace(CAPTION["tiny"][1], source=str(source), out=out, guidance=("none",))
    plan = publish_plan(out, draft_plan(out, str(source), (), 8, DecontaminationConfig()))
    run_config = {**dataclasses.asdict(config), "captioner_revision": "", "arithmetic": ""}
    storage.publish_json(f"{out}/run.json", storage.plain(run_config))
    captioned = read_and_caption(config, out, plan)
    write_shard(captioned, out, plan)
    assert shards.read_stats(out, 0).failed == 1 and storage.list_names(f"{out}/attempts") == []


def test_the_reader_decodes_for_the_actor_by_default(job: tuple[CaptionConfig, str, Plan]) -> None:
    config, out, plan = job
    lengths = {
        decode: caption_graph.make_reader(dataclasses.replace(config, decode=decode), out, plan, 2.0).decoded_samples  # type: ignore[arg-type]
        for decode in ("reader", "actor")
    }
    assert lengths == {"reader": 64_000, "actor": 0} and CaptionConfig().decode == "reader"


@pytest.mark.parametrize("decode", ["reader", "actor"])
@pytest.mark.parametrize("cleaned", ["before the actor", "before the writer"])
def test_audio_that_another_driver_cleaned_up_after_its_commit_is_no_fault(
    job: tuple[CaptionConfig, str, Plan], decode: str, cleaned: str
) -> None:
    """Two drivers write one shard. One commits, ends the dataset and removes attempts/; the other one is still at work."""
    config, out, plan = job
    reader = Reader(out, plan, (), SIZE if decode == "reader" else 0, audio_filter.OFF)
    mine, other = (reader(pa.table({"shard": [0]})) for _ in range(2))
    if cleaned == "before the writer":
        mine = CaptionActor(config, Recording)(mine)
    report = write_shard(CaptionActor(config, Recording)(other), out, plan)
    tar = Path(out, shards.tar_name(0)).read_bytes()
    commit.clean_up(out)
    if cleaned == "before the actor":
        mine = CaptionActor(config, Recording)(mine)
    assert write_shard(mine, out, plan)["tar_sha256"] == report["tar_sha256"]
    assert Path(out, shards.tar_name(0)).read_bytes() == tar


def test_a_commit_between_the_look_and_the_read_is_no_fault(
    job: tuple[CaptionConfig, str, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out, plan = job
    mine, other = (read_and_caption(config, out, plan) for _ in range(2))
    looks = iter([False])

    def is_committed(data: str, shard: int) -> bool:
        if next(looks, True):
            return True
        write_shard_of_another(other, out, plan)
        return False

    def write_shard_of_another(*arguments: Any) -> None:
        with monkeypatch.context() as context:
            context.setattr(shards, "is_committed", lambda *_: False)
            write_shard(*arguments)
        commit.clean_up(out)

    monkeypatch.setattr(shards, "is_committed", is_committed)
    write_shard(mine, out, plan)
    assert shards.committed(out) == [0]


def test_audio_that_is_lost_before_the_commit_is_an_error(job: tuple[CaptionConfig, str, Plan]) -> None:
    config, out, plan = job
    captioned = read_and_caption(config, out, plan)
    commit.clean_up(out)
    with pytest.raises(FileNotFoundError):
        write_shard(captioned, out, plan)
    assert shards.committed(out) == []


def test_what_dead_tasks_left_of_committed_shards_is_removed(job: tuple[CaptionConfig, str, Plan]) -> None:
    config, out, plan = job
    captioned, left = read_and_caption(config, out, plan), read_and_caption(config, out, plan)
    write_shard(captioned, out, plan)
    unfinished = staging.write(out, 1, [b"of a shard that is not committed"])
    staging.clean_up(out, {0})
    assert not storage.exists(ShardBatch.from_table(left).audio) and storage.exists(unfinished)

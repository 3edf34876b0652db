"""Captions with times: strong labels from the source to the shards, a tagger where there are none, and what is refused."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import audio, sources, storage
from pipeline.configs import CAPTION, IN_PROCESS, SYNTH
from pipeline.dataset import ledgers, phrases, shards
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError, JobError
from pipeline.graph.caption_config import CaptionConfig
from pipeline.graph.frame_tagger import FrameTagger, segments
from pipeline.graph.frame_tagger_config import FrameTaggerConfig
from pipeline.planning.plan import read_plan
from pipeline.sources import audioset
from pipeline.sources.clip import Event
from pipeline.stages import caption, export, listen, retry, synth, verify
from pipeline.stages.export import ExportConfig
from pipeline.stages.listen import ListenConfig
from pipeline.stages.retry import RetryConfig
from pipeline.stages.verify import VerifyConfig


@pytest.fixture(scope="module")
def timed(caption_config: CaptionConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The dataset with times."""
    out = str(tmp_path_factory.mktemp("timed") / "dataset")
    caption.run(dataclasses.replace(caption_config, out=out, timed=True))
    return out


def test_events_are_cut_to_the_clip_sorted_and_joined_where_they_overlap() -> None:
    events = [
        Event("Rain", 3.0, 9.0),
        Event("Smoke detector, smoke alarm", 1.0, 2.0),
        Event("Rain", -1.0, 0.5),
        Event("Rain", 0.5, 1.25),
        Event("Bell", 5.0, 6.0),
    ]
    assert phrases.of_events(events, 5.0) == [
        {"phrase": "rain", "segments": [[0.0, 1.25], [3.0, 5.0]]},
        {"phrase": "smoke detector", "segments": [[1.0, 2.0]]},
    ]


def test_the_corpus_states_when_each_event_sounds(corpus: str) -> None:
    """Outside of its events a clip is its noise floor, a thousandth of the loudest sample or so."""
    clips = sources.read_clips(storage.join(corpus, "evaluation_segments.csv"))
    assert all({event.label for event in clip.events} == set(clip.tags) for clip in clips)
    quiet = 0
    for clip in clips:
        samples = audio.decode(storage.read(clip.uri)).astype(float) / 32768
        sounding = np.zeros(len(samples), bool)
        for event in clip.events:
            first, last = (round(time * audio.SAMPLE_RATE_HZ) for time in event[1:])
            sounding[max(0, first - 40) : last + 40] = True
            assert np.abs(samples[first:last]).max() > 0.005, "an event is silent"
        quiet += int((~sounding).sum())
        assert np.abs(samples[~sounding]).max(initial=0) < 0.005, "something sounds beside the events"
    assert quiet > 0


def test_a_corpus_of_an_earlier_version_gets_its_times_and_keeps_its_files(corpus: str, tmp_path: Path) -> None:
    old = Path(shutil.copytree(corpus, tmp_path / "old"))
    for path in old.glob("*_strong.tsv"):
        path.unlink()
    before = {path.name: path.stat().st_mtime_ns for path in old.iterdir() if path.is_file()}
    synth.run(dataclasses.replace(SYNTH["tiny"][1], out=str(old)))
    for split in synth.SPLITS:
        name = f"{split}_segments_strong.tsv"
        assert (old / name).read_bytes() == Path(corpus, name).read_bytes()
    assert {path.name: path.stat().st_mtime_ns for path in old.iterdir() if path.name in before} == before


def test_times_reach_the_samples_and_the_ledger(timed: str, dataset: str, caption_config: CaptionConfig) -> None:
    index, listed = ClipIndex(timed), sources.read_clips(caption_config.source)
    ledger = {
        row["key"]: row for _, rows in ledgers.written(timed, list(shards.sizes(timed))) for row in rows.to_pylist()
    }
    for row, clip in enumerate(listed):
        meta = index.meta(row)
        assert meta["phrases"] == ledger[clip.key]["phrases"] == phrases.of_events(clip.events, 2.0)
        assert meta["phrases_from"] == "labels" and meta["phrases"]
        del meta["phrases"], meta["phrases_from"]
        assert meta == ClipIndex(dataset).meta(row), "all else is as without times"
    plan = read_plan(timed)
    assert plan is not None and plan.num_timed == len(listed)


def test_the_card_counts_phrases_and_names_where_they_are_from(timed: str) -> None:
    card, index = storage.read_text(storage.join(timed, "README.md")), ClipIndex(timed)
    found = [phrase for row in range(len(index)) for phrase in index.meta(row)["phrases"]]
    segments = sum(len(phrase["segments"]) for phrase in found)
    assert "| clips whose phrases and times are known | 24 of 24 |" in card
    assert f"| phrases in them | {len(found)}, with {segments} segments |" in card and segments >= len(found) > 24
    assert "| known by | strong labels of the source, which 24 of the planned clips have |" in card
    assert "for the other clips by" not in card


def test_without_the_flag_nothing_is_there_of_it(dataset: str) -> None:
    assert "## Times" not in storage.read_text(storage.join(dataset, "README.md"))
    plan = storage.read_json(storage.join(dataset, "plan.json"))
    assert "num_timed" not in plan and "timed" not in plan["made_from"]
    assert "phrases" not in ClipIndex(dataset).written.column_names
    assert not any(name.startswith("phrases") for name in ClipIndex(dataset).meta(0))


def test_a_timed_dataset_goes_on_verifies_exports_and_is_listened_to(
    timed: str, caption_config: CaptionConfig, tmp_path: Path
) -> None:
    out = str(shutil.copytree(timed, tmp_path / "copy"))
    os.remove(Path(out, "00001_stats.json"))
    caption.run(dataclasses.replace(caption_config, out=out, timed=True))
    for name in ("00001.tar", "00001.parquet"):
        assert Path(out, name).read_bytes() == Path(timed, name).read_bytes()
    verify.run(VerifyConfig(data=out, in_process=True))
    export.run(ExportConfig(data=out, out=str(tmp_path / "plain"), in_process=True))
    exported = sources.read_clips(str(tmp_path / "plain"))
    assert len(exported) == 24 and b'"phrases": [{' in (tmp_path / "plain" / "00000.tar").read_bytes()
    listen.run(ListenConfig(data=out, clips=2))
    assert "segments" in Path(out, "listen.html").read_text()


def test_another_setting_is_another_job(timed: str, dataset: str, caption_config: CaptionConfig) -> None:
    with pytest.raises(InputError, match="timed was False, now True"):
        caption.run(dataclasses.replace(caption_config, out=dataset, timed=True))
    with pytest.raises(InputError, match="timed was True"):
        caption.run(dataclasses.replace(caption_config, out=timed))


def test_a_clip_that_is_tried_again_keeps_its_times(caption_config: CaptionConfig, tmp_path: Path) -> None:
    folder = shutil.copytree(Path(caption_config.source).parent, tmp_path / "corpus")
    source = str(folder / "tagged_segments.csv")
    clip = sources.read_clips(source)[3]
    held_back = shutil.move(clip.uri, tmp_path / "held_back")
    config = dataclasses.replace(caption_config, source=source, out=str(tmp_path / "out"), timed=True)
    caption.run(config)
    shutil.move(held_back, clip.uri)
    retry.run(RetryConfig(data=config.out, reason=("missing",), actors=IN_PROCESS))
    index = ClipIndex(config.out)
    assert index.meta(index.keys.index(clip.key))["phrases"] == phrases.of_events(clip.events, 2.0)
    verify.run(VerifyConfig(data=config.out, in_process=True))


def test_segments_close_short_gaps_first_and_then_leave_out_short_ones() -> None:
    edges = np.arange(9) * 0.25
    active = np.array([1, 0, 1, 0, 0, 0, 0, 1], bool)
    found = segments(active, edges, FrameTaggerConfig(max_gap_s=0.25, min_s=0.5))
    assert found == [(0.0, 0.75)]
    assert segments(active, edges, FrameTaggerConfig(max_gap_s=0.0, min_s=0.0)) == [
        (0.0, 0.25),
        (0.5, 0.75),
        (1.75, 2.0),
    ]


def test_a_tagger_finds_times_where_the_source_has_none(caption_config: CaptionConfig, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(Path(caption_config.source).parent, tmp_path / "corpus"))
    config = dataclasses.replace(
        caption_config, source=str(folder / "tagged_segments.csv"), out=str(tmp_path / "out"), timed=True
    )
    (folder / "tagged_segments_strong.tsv").unlink()
    with pytest.raises(InputError, match=r"--timed\.tagger.*no strong labels"):
        caption.run(config)
    assert not Path(config.out).exists()
    by = FrameTaggerConfig(tagger=os.path.relpath(config.captioner), threshold=0.01, min_s=0.0)
    caption.run(dataclasses.replace(config, timed_by=by))
    held = storage.read_json(storage.join(config.out, "run.json"))["timed_by"]["tagger"]
    assert held == storage.resolve(config.captioner), "a name that holds on every node"
    index, listed = ClipIndex(config.out), sources.read_clips(config.source)
    revision = storage.read_json(storage.join(config.captioner, "config.json"))["revision"]
    words = {label: audioset.label_text(label) for clip in listed for label in clip.tags}
    card = storage.read_text(storage.join(config.out, "README.md"))
    assert "which 0 of the planned clips have" in card
    assert (
        f"| for the other clips by | frames of `captioner`, revision `{revision}`, from probability 0.01 on |" in card
    )
    found = [index.meta(row) for row in range(len(index))]
    assert {meta["phrases_from"] for meta in found} == {revision} and any(meta["phrases"] for meta in found)
    for meta in found:
        assert {phrase["phrase"] for phrase in meta["phrases"]} <= {words[tag] for tag in meta["tag"]}
        for phrase in meta["phrases"]:
            flat = [time for segment in phrase["segments"] for time in segment]
            assert flat == sorted(flat) and flat[0] >= 0 and flat[-1] <= 2.0
    verify.run(VerifyConfig(data=config.out, in_process=True))


def test_a_short_memory_halves_the_batch_of_the_tagger(captioner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's error, which no CPU raises, is raised for batches of more than two."""
    tagger = FrameTagger(FrameTaggerConfig(tagger=captioner, threshold=0.01, min_s=0.0), IN_PROCESS, batch_size=4)
    clips = np.random.default_rng(0).integers(-9_000, 9_000, (4, 2 * audio.SAMPLE_RATE_HZ)).astype(np.int16)
    given = clips, [len(clip) - 999 * row for row, clip in enumerate(clips)], audio.SAMPLE_RATE_HZ, [[]] * 4
    wanted = tagger.tag(*given)
    tag_frames, sizes = tagger.model.tag_frames, []

    def short(waveform: torch.Tensor, *rest: Any) -> Any:
        sizes.append(len(waveform))
        if len(waveform) > 2:
            raise torch.OutOfMemoryError
        return tag_frames(waveform, *rest)

    monkeypatch.setattr(tagger.model, "tag_frames", short)
    assert tagger.tag(*given) == wanted and all(wanted)
    assert sizes == [4, 2, 2] and tagger.batch_size.size == 2


def test_a_clip_longer_than_the_captioner_takes_gets_no_times_from_a_tagger(
    caption_config: CaptionConfig, tmp_path: Path
) -> None:
    """Times of its beginning alone would say that nothing sounds in the rest."""
    folder = Path(shutil.copytree(Path(caption_config.source).parent, tmp_path / "corpus"))
    (folder / "tagged_segments_strong.tsv").unlink()
    source = str(folder / "tagged_segments.csv")
    long = sources.read_clips(source)[0]
    samples = audio.decode(Path(long.uri).read_bytes())
    Path(long.uri).write_bytes(audio.encode_flac(np.concatenate([samples, samples])))
    by = FrameTaggerConfig(tagger=caption_config.captioner, threshold=0.01)
    run = dataclasses.replace(caption_config, source=source, out=str(tmp_path / "out"), timed=True, timed_by=by)
    caption.run(run)
    index = ClipIndex(run.out)
    assert [key for row, key in enumerate(index.keys) if "phrases" not in index.meta(row)] == [long.key]


def test_a_retry_wants_the_tagger_that_the_dataset_was_made_with(caption_config: CaptionConfig, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(Path(caption_config.source).parent, tmp_path / "corpus"))
    (folder / "tagged_segments_strong.tsv").unlink()
    source = str(folder / "tagged_segments.csv")
    clip = sources.read_clips(source)[3]
    held_back = shutil.move(clip.uri, tmp_path / "held_back")
    tagger = str(shutil.copytree(caption_config.captioner, tmp_path / "tagger"))
    by = FrameTaggerConfig(tagger=tagger, threshold=0.01)
    run = dataclasses.replace(caption_config, source=source, out=str(tmp_path / "out"), timed=True, timed_by=by)
    caption.run(run)
    shutil.move(held_back, clip.uri)
    moved = str(shutil.move(tagger, tmp_path / "moved"))
    again = RetryConfig(data=run.out, reason=("missing",), actors=IN_PROCESS, timed_tagger=moved)
    config_file = Path(moved, "config.json")
    as_made = config_file.read_text()
    config_file.write_text(as_made.replace('"revision": "', '"revision": "0'))
    with pytest.raises(InputError, match=r"--timed-tagger .*: the dataset was made with revision"):
        retry.run(again)
    config_file.write_text(as_made)
    retry.run(again)
    index = ClipIndex(run.out)
    assert "phrases" in index.meta(index.keys.index(clip.key))


def test_flags_of_the_tagger_need_the_flag_itself(caption_config: CaptionConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(caption_config, out=str(tmp_path), timed_by=FrameTaggerConfig(threshold=0.2))
    with pytest.raises(InputError, match=r"--timed False.*add --timed"):
        caption.run(config)
    for name, value in (("threshold", 0.0), ("max_gap_s", -1.0), ("min_s", -1.0)):
        with pytest.raises(InputError, match=f"--timed.{name.replace('_', '-')}"):
            FrameTaggerConfig(**{name: value}).check()


def test_verify_finds_times_that_the_ledger_does_not_state(timed: str, tmp_path: Path) -> None:
    out = str(shutil.copytree(timed, tmp_path / "copy"))
    uri = storage.join(out, "00000.parquet")
    ledger = storage.read_table(uri)
    other = [[{"phrase": "other", "segments": [[0.0, 1.0]]}]] * len(ledger)
    column = ledger.schema.get_field_index("phrases")
    storage.publish_table(uri, ledger.set_column(column, ledger.schema.field("phrases"), [other]))
    with pytest.raises(JobError, match="its JSON does not agree with its audio or the ledger"):
        verify.run(VerifyConfig(data=out, in_process=True))


def test_the_flags_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline import __main__ as room
    from pipeline import cli

    arguments = ["demo", "--timed", "--timed.tagger", "x", "--timed.min-s", "0.3"]
    parsed = cli.parse("pipeline", "caption", room.STAGES["caption"], arguments)
    assert parsed.timed and parsed.timed_by == FrameTaggerConfig(tagger="x", min_s=0.3)
    assert CAPTION["demo"][1].timed is False and json.dumps(dataclasses.asdict(parsed))

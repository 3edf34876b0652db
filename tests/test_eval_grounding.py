"""When does what is named sound: the rules by hand, frames of long clips, and the stage on the tiny corpus."""

import dataclasses
import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from eval import results, tasks
from eval.configs import GROUNDING
from eval.metrics import grounding as rules
from eval.metrics.psds import Track
from eval.stages import grounding, report
from eval.stages.grounding import GroundingConfig
from eval.stages.report import ReportConfig
from pipeline import sources, storage
from pipeline.errors import InputError
from tests.support.html_page import Page
from train import checkpoint

EDGES = np.arange(6) * 0.5


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def segments(*spans: tuple[float, float]) -> np.ndarray:
    return np.array(spans)


def test_a_frame_is_active_where_its_middle_is_in_a_segment() -> None:
    found = rules.active_truth(EDGES, segments((0.2, 0.3), (0.9, 1.8)))
    assert found.tolist() == [True, False, True, True, False]


def test_the_best_segment_has_the_largest_sum_above_half_height() -> None:
    """Half of the range is 0.5. The single high frame has an excess of 0.5, the two later ones 0.3 each."""
    scores = np.array([0.0, 1.0, 0.2, 0.8, 0.8])
    assert rules.excess(scores).tolist() == pytest.approx([0.0, 0.5, 0.0, 0.3, 0.3])
    assert rules.best_onset(scores, EDGES) == 1.5
    assert rules.onset_error(scores, EDGES, segments((0.25, 0.5), (1.75, 2.0))) == 0.25
    assert rules.centre(scores, EDGES) == pytest.approx((0.5 * 0.75 + 0.3 * 1.75 + 0.3 * 2.25) / 1.1)
    assert rules.centre(np.ones(5), EDGES) == 1.25, "without any mass it is the middle"


def test_order_and_areas_and_their_ties() -> None:
    early, late = np.array([1.0, 1, 0, 0, 0]), np.array([0.0, 0, 0, 1, 1])
    assert [rules.in_order(*pair, EDGES) for pair in ((early, late), (late, early), (early, early))] == [1.0, 0.0, 0.5]
    assert rules.area_under_roc(early, early > 0) == 1.0 and rules.area_under_roc(late, early > 0) == 1 / 6
    assert rules.area_under_roc(np.ones(5), early > 0) == 0.5
    assert np.isnan(rules.area_under_roc(early, np.ones(5, bool)))


def test_events_in_sequence_count_and_those_that_overlap_do_not() -> None:
    early, late = np.array([1.0, 1, 0, 0, 0]), np.array([0.0, 0, 0, 1, 1])
    scores = np.stack([early, late], axis=1)

    def track(*spans: tuple[float, float]) -> Track:
        return Track(scores, EDGES, 2.5, np.array([0, 1]), segments(*spans))

    tracks = [track((0.0, 1.0), (1.5, 2.5)), track((1.5, 2.5), (0.0, 1.0)), track((0.0, 2.0), (1.5, 2.5))]
    entry, outcomes = grounding.measure(tracks)
    assert outcomes["order"][:2].tolist() == [1.0, 0.0] and np.isnan(outcomes["order"][2])
    assert entry["order"]["value"] == 0.5 and entry["n_order"] == 2
    assert outcomes["frame_auroc"][0] == 1.0 and outcomes["frame_auroc"][1] < 0.5
    assert entry["onset_error_s"]["value"] == 0.0


def test_frames_of_a_long_clip_are_those_of_its_windows(clap: str) -> None:
    model = checkpoint.load(clap).model
    rng = np.random.default_rng(0)
    clip = rng.normal(size=round(3.3 * model.sample_rate_hz)).astype(np.float32) * 0.1
    size = round(model.config.clip_s * model.sample_rate_hz)
    (whole, short), (first,), (rest,) = (
        model.encode_frames(clips) for clips in ([clip, clip[:5_000]], [clip[:size]], [clip[size:]])
    )
    count = len(first.vectors)
    assert torch.allclose(whole.vectors[:count], first.vectors, atol=1e-5)
    assert torch.allclose(whole.vectors[count:], rest.vectors, atol=1e-5)
    assert torch.allclose(whole.edges_s[count:], rest.edges_s + model.config.clip_s, atol=1e-5)
    assert (whole.edges_s.diff() > 0).all() and float(whole.edges_s[-1]) == pytest.approx(3.3, abs=0.1)
    assert len(short.vectors) == 2, "a sixth of a second, of frames of 80 ms"
    assert torch.allclose(whole.vectors.norm(dim=1), torch.ones(len(whole.vectors)), atol=1e-4)


def config(corpus: str, clap: str, out: Path) -> GroundingConfig:
    return dataclasses.replace(GROUNDING["demo"][1], task_dir=corpus, model=clap, out=str(out))


def test_the_stage_writes_numbers_with_intervals_and_a_report_shows_them(
    corpus: str, clap: str, tmp_path: Path
) -> None:
    own = config(corpus, clap, tmp_path / "model")
    grounding.run(own)
    entry = results.read(own.out)["results"]["grounding synth"]
    for name in ("psds1", "psds2", "frame_auroc", "order", "onset_error_s"):
        low, high = entry[name]["interval95"]
        assert low <= entry[name]["value"] <= high, name
    assert entry["n"] == entry["num_listed"] == 24 and not entry["missing"] and 0 < entry["n_order"] < 24
    before = Path(own.out, "results", "grounding-synth.json").stat().st_mtime_ns
    grounding.run(own)
    assert Path(own.out, "results", "grounding-synth.json").stat().st_mtime_ns == before, "a second call does nothing"
    grounding.run(dataclasses.replace(own, class_texts=storage.join(corpus, "class_texts.json")))
    assert Path(own.out, "results", "grounding-synth.json").stat().st_mtime_ns > before
    report.run(ReportConfig(results=(own.out,), out=str(tmp_path / "report")))
    table = (tmp_path / "report" / "report.md").read_text()
    for title in ("PSDS 1", "PSDS 2", "frame AUROC", "order", "onset error, s"):
        assert f"grounding synth: {title}" in table
    assert Page((tmp_path / "report" / "report.html").read_text())


def test_desed_is_read_as_it_is_distributed_and_gives_the_same_numbers(corpus: str, clap: str, tmp_path: Path) -> None:
    """The tiny corpus in the layout of DESED: the same clips, events and phrases."""
    clips = sources.read_clips(storage.join(corpus, "evaluation_segments.csv"))
    rows = []
    for clip in clips:
        name = f"Y{clip.recording_id.removeprefix('youtube:')}_{clip.start_s:.3f}_{clip.end_s:.3f}.flac"
        (audio := tmp_path / "desed" / "audio" / "eval" / "public" / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write_bytes(storage.read(clip.uri))
        rows += [f"{name}\t{one.start_s:.3f}\t{one.end_s:.3f}\t{one.label.replace(' ', '_')}" for one in clip.events]
    rows.append("YU0Cg_t_3TdI_30.000_40.000.wav\t\t\t")
    table = "\n".join(["filename\tonset\toffset\tevent_label", *rows])
    write(tmp_path / "desed" / "metadata" / "eval" / "public.tsv", table)
    texts = storage.join(corpus, "class_texts.json")
    common = {"model": clap, "class_texts": texts}
    grounding.run(dataclasses.replace(GROUNDING["demo"][1], task_dir=corpus, out=str(tmp_path / "a"), **common))
    folder = str(tmp_path / "desed")
    grounding.run(dataclasses.replace(GROUNDING["desed"][1], task_dir=folder, out=str(tmp_path / "b"), **common))
    ours = results.read(str(tmp_path / "a"))["results"]["grounding synth"]
    theirs = results.read(str(tmp_path / "b"))["results"]["grounding desed"]
    for name in ("psds1", "psds2", "frame_auroc", "order", "onset_error_s", "n", "ids_sha256", "notes"):
        assert theirs[name] == ours[name], name
    assert theirs["fold_rule"] == "DESED's public evaluation set, those with strong labels"
    assert "psds1: dtc 0.7, gtc 0.7, cttc 0.3, alpha_ct 0, alpha_st 1" in theirs["notes"][0]
    with pytest.raises(InputError, match="folds: public"):
        tasks.read("desed", folder, ("validation",))


def test_sets_with_strong_labels_are_tasks(blat_data: Path, tmp_path: Path) -> None:
    for name, split in (("desed_eval_public", "eval/public"), ("desed_validation", "validation/validation")):
        if not (real := blat_data / "meta" / f"{name}.tsv.gz").exists():
            pytest.skip(f"no {real}")
        write(tmp_path / "desed" / "metadata" / f"{split}.tsv", gzip.decompress(real.read_bytes()).decode())
    _, clips = tasks.read("desed", str(tmp_path / "desed"), ())
    assert len(clips) == 692 and all(clip.events for clip in clips)
    _, clips = tasks.read("desed", str(tmp_path / "desed"), ("validation",))
    assert len(clips) == 1168 and sum(not clip.events for clip in clips) == 15
    head = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    write(tmp_path / "audioset-strong" / "mid_to_display_name.tsv", "/m/06mb1\tRain\n")
    write(tmp_path / "audioset-strong" / "audioset_eval_strong.tsv", f"{head}b0RFKhbpFJA_30000\t0.0\t2.1\t/m/06mb1\n")
    write(tmp_path / "URBAN-SED_v2.0.0" / "annotations" / "test" / "t0.txt", "0.5\t1.5\tcar_horn\n")
    write(tmp_path / "URBAN-SED_v2.0.0" / "annotations" / "train" / "a0.txt", "0.5\t1.5\tcar_horn\n")
    write(tmp_path / "URBAN-SED_v2.0.0" / "audio/test/t0.wav", "")
    rows = "0\t1\tcar\t0.9\n"
    write(tmp_path / "maestro-real" / "development_annotation" / "soft_labels_metro" / "metro_00.txt", rows)
    write(tmp_path / "maestro-real" / "development_audio/metro/metro_00.wav", "")
    present, _ = tasks.present(str(tmp_path))
    assert {*present} == {"desed", "audioset-strong", "urban-sed", "maestro-real"}
    for name in ("audioset-strong", "urban-sed", "maestro-real"):
        _, clips = tasks.read(name, present[name], ())
        assert len(clips) == 1 and clips[0].events, name


def test_clips_without_strong_labels_are_refused(corpus: str, clap: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    (folder / "evaluation_segments_strong.tsv").unlink()
    with pytest.raises(InputError, match="fewer than 2 of its clips have strong labels"):
        grounding.run(config(str(folder), clap, tmp_path / "out"))
    assert not (tmp_path / "out" / "results").exists()


def test_a_clip_that_cannot_be_read_is_counted(corpus: str, clap: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    next(iter(sorted((folder / "audio").glob("Ysyneva*")))).unlink()
    own = config(str(folder), clap, tmp_path / "out")
    grounding.run(own)
    entry = results.read(own.out)["results"]["grounding synth"]
    assert (entry["n"], entry["num_listed"], next(iter(entry["missing"].values())).split(":")[0]) == (23, 24, "missing")

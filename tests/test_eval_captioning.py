"""The captioning stage: one command for the ablation of tags, with every caption to look at."""

import csv
import dataclasses
from pathlib import Path

import pytest

from eval import results
from eval.configs import CAPTIONING
from eval.metrics import captions
from eval.results import outcomes
from eval.stages.captioning import CaptioningConfig, run
from eval.stages.report import ReportConfig
from eval.stages.report import run as run_report
from pipeline import sources, storage
from pipeline.configs import SYNTH
from pipeline.errors import InputError
from pipeline.stages.synth import run as run_synth
from train import checkpoint
from train.configs import CAPTIONER
from train.stages.captioner import train as train_captioner
from train.trainer.context import Context

ABLATION: CaptioningConfig = CAPTIONING["demo"][1]


@pytest.fixture
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave METEOR out where it is not the subject: its program takes seconds to start."""
    monkeypatch.setattr(captions.shutil, "which", lambda _: None)


@pytest.mark.usefixtures("without_java")
def test_the_ablation_of_tags(
    corpus: str, captioner: str, clap: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = dataclasses.replace(ABLATION, model=captioner, task_dir=corpus, clap=clap, out=str(tmp_path))
    run(config)
    entry = results.read(str(tmp_path))["results"]["captioning synth"]
    clips = sources.read_clips(storage.join(corpus, "evaluation_segments.csv"))
    assert entry["n"] == 24 and entry["overlap"] == {"model": 0} and entry["num_tagged"] == 24
    assert list(entry["guidance"]) == ["tags", "none", "predicted", "shuffled"]
    for found in entry["guidance"].values():
        low, high = found["cider_d"]["interval95"]
        assert (
            low <= found["cider_d"]["value"] <= high
            and found["vocab"]["value"] > 0
            and -1 <= found["clap"]["value"] <= 1
        )
    assert set(entry["difference"]) == {"none", "predicted", "shuffled"}
    gain = entry["guidance"]["none"]["cider_d"]["value"] - entry["guidance"]["tags"]["cider_d"]["value"]
    assert entry["difference"]["none"]["cider_d"]["value"] == pytest.approx(gain, abs=2e-6)
    with open(tmp_path / "captioning-synth.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 24
    own = {clip.key: set(clip.tags) for clip in clips}
    tags = {(row["key"], row["guidance"]): set(filter(None, row["tags"].split("|"))) for row in rows}
    assert all(tags[key, "tags"] == own[key] and tags[key, "none"] == set() for key in own)
    assert sum(tags[key, "shuffled"] == own[key] for key in own) < 6
    assert sorted(tuple(sorted(tags[k, "shuffled"])) for k in own) == sorted(tuple(sorted(own[k])) for k in own)
    scores = [float(row["cider_d"]) for row in rows if row["guidance"] == "tags"]
    assert scores == sorted(scores)
    kept = outcomes.read(str(tmp_path), "captioning synth")
    assert sorted(kept["keys"].tolist()) == sorted(own)
    for name in ("tags", "shuffled"):
        value = entry["guidance"][name]["cider_d"]["value"]
        assert kept[f"guidance {name} cider_d"].mean() == pytest.approx(value, abs=1e-6)
    said = capsys.readouterr().out
    assert "shuffled minus tags:" in said
    assert "Java" in entry["unavailable"]["meteor"]
    for name, reason in entry["unavailable"].items():
        assert entry["guidance"]["tags"][name] is None and f"{name}: not computed: {reason}" in said


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A corpus and a captioner that was trained on 48 clips of it for half a minute: enough to listen to its tags."""
    folder = str(tmp_path_factory.mktemp("trained"))
    synth = dataclasses.replace(SYNTH["tiny"][1], out=f"{folder}/corpus", num_captioned=48, num_evaluation=96)
    run_synth(synth)
    tiny = CAPTIONER["tiny"][1]
    config = dataclasses.replace(
        tiny,
        source=(f"{folder}/corpus/captioned_segments.csv",),
        out=f"{folder}/captioner",
        optim=dataclasses.replace(tiny.optim, epochs=60),
    )
    train_captioner(config, config.out, {}, {}, Context())
    return f"{folder}/corpus", config.out


@pytest.mark.usefixtures("without_java")
def test_tags_help_and_those_of_other_clips_hurt(trained: tuple[str, str], tmp_path: Path) -> None:
    """On clips it was not trained on; with the same clips' own tags as the first kind, both differences are losses."""
    corpus, model = trained
    guidance = ("tags", "none", "shuffled")
    run(dataclasses.replace(ABLATION, model=model, task_dir=corpus, guidance=guidance, out=str(tmp_path)))
    entry = results.read(str(tmp_path))["results"]["captioning synth"]
    for kind in ("none", "shuffled"):
        low, high = entry["difference"][kind]["cider_d"]["interval95"]
        assert low < high < 0, (kind, entry["difference"][kind])
    assert entry["notes"] == []


@pytest.mark.usefixtures("without_java")
def test_a_captioner_that_never_went_without_tags_says_so(
    corpus: str, captioner: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    loaded = checkpoint.load(captioner)
    lineage = loaded.info.lineage | {"tag_dropout": 0.0}
    checkpoint.save(str(tmp_path / "model"), loaded.model, lineage, [])
    run(dataclasses.replace(ABLATION, model=str(tmp_path / "model"), task_dir=corpus, out=str(tmp_path)))
    assert "none: this captioner was trained with tags on every clip" in capsys.readouterr().out


def test_without_any_tag_there_is_no_guidance_to_measure(corpus: str, captioner: str, tmp_path: Path) -> None:
    rows = "".join(f"{clip.uri},x,a sound\n" for clip in sources.read_clips(f"{corpus}/evaluation_segments.csv"))
    (tmp_path / "metadata.csv").write_text(f"file,labels,caption\n{rows}")
    config = dataclasses.replace(
        ABLATION, task="clotho", model=captioner, task_dir=str(tmp_path), out=str(tmp_path / "r")
    )
    with pytest.raises(InputError, match=r"--task-dir .*no clip has a tag that the captioner knows"):
        run(config)


def test_the_report_shows_captioning_beside_the_rest(
    corpus: str, captioner: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = str(tmp_path / "captioner")
    run(dataclasses.replace(ABLATION, model=captioner, task_dir=corpus, guidance=("tags", "none"), out=out))
    run_report(ReportConfig(results=(out,), out=str(tmp_path / "report")))
    table = capsys.readouterr().out
    entry = results.read(out)["results"]["captioning synth"]
    assert entry["guidance"]["tags"]["meteor"] or "Java" in entry["unavailable"]["meteor"]
    value = entry["guidance"]["tags"]["cider_d"]["value"]
    assert "captioning synth: CIDEr-D, none" in table and f"{value:.3f} [" in table and "shuffled" not in table
    assert (tmp_path / "report" / "report.html").stat().st_size > 1000


@pytest.mark.usefixtures("without_java")
def test_clips_that_a_model_was_selected_on_are_told(corpus: str, captioner: str, tmp_path: Path) -> None:
    loaded = checkpoint.load(captioner)
    keys = [clip.key for clip in sources.read_clips(f"{corpus}/evaluation_segments.csv")]
    checkpoint.save(str(tmp_path / "model"), loaded.model, loaded.info.lineage, ["other"], validated=keys[:5])
    run(
        dataclasses.replace(
            ABLATION, model=str(tmp_path / "model"), task_dir=corpus, guidance=("tags",), out=str(tmp_path / "r")
        )
    )
    entry = results.read(str(tmp_path / "r"))["results"]["captioning synth"]
    assert entry["overlap"] == {"model": 0, "model_selected_on": 5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "clotho2"}, "did you mean clotho"),
        ({"guidance": ()}, "--guidance"),
        ({"guidance": ("tags", "tags")}, "each once"),
        ({"clap": "/nowhere"}, "--clap '/nowhere'"),
        ({"batch_size": 0}, "--batch-size 0"),
    ],
)
def test_wrong_flags(corpus: str, captioner: str, tmp_path: Path, change: dict, said: str) -> None:
    config = dataclasses.replace(ABLATION, model=captioner, task_dir=corpus, out=str(tmp_path))
    with pytest.raises(InputError, match=said):
        run(dataclasses.replace(config, **change))

"""The captioning stage: one command for the ablation of tags, with every caption to look at."""

import csv
import dataclasses
from pathlib import Path

import pytest

from eval.captioning import CaptioningConfig, run
from eval.configs import CAPTIONING
from pipeline import sources, storage
from pipeline.cli import InputError

ABLATION: CaptioningConfig = CAPTIONING["demo"][1]


def test_the_ablation_of_tags(
    corpus: str, captioner: str, clap: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = dataclasses.replace(ABLATION, model=captioner, task_dir=corpus, clap=clap, out=str(tmp_path))
    run(config)
    entry = storage.read_json(str(tmp_path / "results.json"))["results"]["captioning synth"]
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
    said = capsys.readouterr().out
    assert "shuffled minus tags:" in said
    for name, reason in entry["unavailable"].items():
        assert entry["guidance"]["tags"][name] is None and f"{name}: not computed: {reason}" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "x"}, "--task 'x'"),
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

"""Zero-shot prompts in the words of captions: --class-texts."""

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from eval import results
from eval.configs import ZERO_SHOT
from eval.embedding.in_process import embed_audio, embed_text
from eval.stages.zero_shot import NAME_ALONE, ZeroShotConfig, run
from eval.tasks import class_texts
from pipeline import sources, storage
from pipeline.corpus import phrases
from pipeline.errors import InputError
from train import checkpoint

DEMO: ZeroShotConfig = ZERO_SHOT["demo"][1]


def evaluate(corpus: str, clap: str, out: Path, texts: dict[str, list[str]] | None = None) -> dict:
    file = out.with_suffix(".json") if texts else None
    if file:
        file.write_text(json.dumps(texts))
    run(dataclasses.replace(DEMO, model=clap, task_dir=corpus, class_texts=str(file or ""), out=str(out)))
    entry: dict = results.read(str(out))["results"]["zero-shot synth"]
    return entry


def test_the_name_as_the_only_text_gives_the_numbers_of_the_name(corpus: str, clap: str, tmp_path: Path) -> None:
    by_name = evaluate(corpus, clap, tmp_path / "names")
    texts = {name: [name.split(",")[0].lower()] for name in by_name["classes"]}
    by_text = evaluate(corpus, clap, tmp_path / "texts", texts)
    assert by_text["accuracy"]["ensemble"] == by_name["accuracy"]["ensemble"] == by_text["accuracy"][NAME_ALONE]
    assert by_text["map"]["ensemble"] == by_name["map"]["ensemble"]
    assert by_text["class_texts"] == texts and "class_texts" not in by_name and NAME_ALONE not in by_name["accuracy"]


def test_a_class_is_the_mean_of_its_texts_and_its_name_is_not_among_them(
    corpus: str, clap: str, tmp_path: Path
) -> None:
    texts = phrases.class_texts() | {"Rain": ["rain falls", "a drum"], "Wind": ["a strong wind"]}
    entry = evaluate(corpus, clap, tmp_path / "r", texts)
    model = checkpoint.load(clap).model
    clips = sources.read_clips(storage.join(corpus, "evaluation_segments.csv"))
    classes = np.stack([embed_text(model, texts[name]).mean(axis=0) for name in entry["classes"]])
    scores = embed_audio(model, clips, 16).vectors @ (classes / np.linalg.norm(classes, axis=1, keepdims=True)).T
    guessed = {clip.key: entry["classes"][row.argmax()] for clip, row in zip(clips, scores, strict=True)}
    right = {clip.key: clip.tags[0] == guessed[clip.key] for clip in clips if len(clip.tags) == 1}
    with np.load(io.BytesIO(storage.read(results.outcomes_uri(str(tmp_path / "r"), "zero-shot synth")))) as held:
        pairs = zip(held["keys"], held["accuracy"], strict=True)
        assert {key: hit for key, hit in pairs if np.isfinite(hit)} == right
        assert held["scores"].shape == held["truth"].shape == (len(clips), len(entry["classes"]))
    assert set(entry["accuracy"]) == {"{}", NAME_ALONE, "ensemble"}
    assert entry["accuracy"]["ensemble"] == entry["accuracy"]["{}"]


def test_other_texts_in_the_same_file_are_another_evaluation(corpus: str, clap: str, tmp_path: Path) -> None:
    texts = phrases.class_texts()
    first = evaluate(corpus, clap, tmp_path / "r", texts)
    assert evaluate(corpus, clap, tmp_path / "r", texts)["evaluated_at"] == first["evaluated_at"]
    changed = texts | {"Rain": ["a drum"]}
    assert evaluate(corpus, clap, tmp_path / "r", changed)["class_texts"] == changed


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "holds a list"),
        ('{"Rain": ["rain"]}', "the class 'Wind'"),
        ('{"Rain": [], "Wind": ["wind"]}', "the class 'Rain'"),
        ('{"Rain": "rain", "Wind": ["wind"]}', "the class 'Rain'"),
        ('{"Rain": ["rain", " "], "Wind": ["wind"]}', "the class 'Rain'"),
    ],
)
def test_a_file_that_lacks_texts_is_named_with_the_class(tmp_path: Path, content: str | None, wrong: str) -> None:
    file = tmp_path / "texts.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=f"--class-texts.*{re.escape(wrong)}.*JSON file of"):
        class_texts.read(str(file), ["Rain", "Wind"])


def test_other_classes_in_the_file_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "texts.json").write_text('{"Bell": ["a bell"], "Wind": ["wind blows"], "Rain": ["rain"]}')
    found = class_texts.read(str(tmp_path / "texts.json"), ["Rain", "Wind"])
    assert list(found.items()) == [("Rain", ["rain"]), ("Wind", ["wind blows"])]


def test_the_corpus_brings_texts_that_its_captions_use(corpus: str) -> None:
    texts = storage.read_json(storage.join(corpus, "class_texts.json"))
    clips = {c.key: c for c in sources.read_clips(storage.join(corpus, "evaluation_segments.csv"))}
    assert set(texts) == {tag for clip in clips.values() for tag in clip.tags}
    with open(storage.join(corpus, "evaluation_segments_captions.csv"), newline="") as file:
        captions = [(row["youtube_id"], row["caption"]) for row in csv.DictReader(file)]
    by_id = {clip.key[1:12]: clip for clip in clips.values()}
    assert captions
    for ytid, caption in captions:
        assert all(any(text in caption for text in texts[tag]) for tag in by_id[ytid].tags), caption

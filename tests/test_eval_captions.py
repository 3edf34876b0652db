"""Captioning metrics: equal to pycocoevalcap's on real captions, worked by hand on small ones, null with a reason else."""

import csv
import functools
import gzip
import math
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.metrics import captions
from eval.metrics.captions import NAMES, score

REFERENCES = [
    ["a dog barks loudly", "a dog is barking"],
    ["rain falls on a roof", "it is raining"],
    ["a man talks"] * 2,
]


def real(blat_data: Path, name: str) -> tuple[list[str], list[list[str]]]:
    """The first caption of each clip as candidate, its others as references."""
    path = blat_data / "meta" / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"no {path.name} in {blat_data}/meta")
    texts = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as text:
        for row in csv.DictReader(text):
            if "youtube_id" in row:
                texts[row["youtube_id"]].append(row["caption"])
            else:
                texts[row["file_name"]] += [row[f"caption_{i}"] for i in range(1, 6)]
    return [t[0] for t in texts.values()], [t[1:] for t in texts.values()]


@pytest.fixture(scope="module")
def library_meteor() -> Any:
    """The library's own METEOR, started once."""
    if shutil.which("java") is None:
        pytest.skip("pycocoevalcap's tokenizer and METEOR need Java")
    from pycocoevalcap.meteor.meteor import Meteor

    return Meteor()


@pytest.mark.parametrize("name", ["audiocaps_v1_test", "clotho_v2_test"])
def test_values_equal_pycocoevalcaps_on_real_captions(blat_data: Path, name: str, library_meteor: Any) -> None:
    """Its own pipeline, Stanford's tokenizer included."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    candidates, references = real(blat_data, name)
    tokenizer = PTBTokenizer()
    given = tokenizer.tokenize({i: [{"caption": t} for t in texts] for i, texts in enumerate(references)})
    said = tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(candidates)})
    theirs = dict(
        zip((f"bleu_{n}" for n in range(1, 5)), Bleu(4).compute_score(given, said, verbose=0)[0], strict=True)
    )
    for metric, scorer in (("rouge_l", Rouge()), ("meteor", library_meteor), ("cider_d", Cider())):
        theirs[metric] = scorer.compute_score(given, said)[0]
    ours = score(candidates, references)
    for metric, value in theirs.items():
        assert ours[metric].value == pytest.approx(value, abs=1e-6), metric
        low, high = ours[metric].interval95 or (0, 0)
        assert low < value < high and high - low < 0.5
        assert ours[metric].per_clip is not None and len(ours[metric].per_clip) == len(candidates)


def test_by_hand() -> None:
    """`a dog barks` against `a dog barks loudly`: all its n-grams are there, one word of four is missing."""
    found = score(["a dog barks"], [["a dog barks loudly"]])
    penalty = math.exp(1 - 4 / 3)
    assert found["bleu_1"].value == pytest.approx(penalty) and found["bleu_3"].value == pytest.approx(penalty)
    assert 0 < (found["bleu_4"].value or 0) < 0.05, "it has no four words in a row; the library smooths"
    recall, precision, beta = 3 / 4, 1.0, 1.2
    assert found["rouge_l"].value == pytest.approx((1 + beta**2) * precision * recall / (recall + beta**2 * precision))


def test_perfect_wrong_and_empty_captions() -> None:
    perfect = score([texts[0] for texts in REFERENCES], REFERENCES)
    wrong = score(["x y z"] * 3, REFERENCES)
    some = score([REFERENCES[0][0], "", ""], REFERENCES)
    for metric in ("bleu_4", "rouge_l", "meteor", "cider_d"):
        values = [found[metric].value for found in (perfect, some, wrong)]
        assert None not in values, (metric, perfect[metric].reason, some[metric].reason)
        assert values[0] > values[1] > values[2] - 1e-9, (metric, values)
    assert perfect["bleu_1"].value == pytest.approx(1)


def test_what_cannot_be_computed_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = score(["a dog barks"], [["a dog barks loudly"]])
    assert set(found) == set(NAMES)
    assert found["meteor"].value is None and "needs Java" in found["meteor"].reason
    assert found["spice"].value is None and found["spider"].value is None and "spice" in found["spider"].reason
    assert found["cider_d"].value is not None
    if found["fense"].value is None:
        assert found["fense"].reason


def test_bootstrapped_bleu_is_bleu_of_the_drawn_clips() -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    said = {i: [text] for i, text in enumerate(["a dog barks", "rain on a roof", "a woman talks"])}
    given = dict(enumerate(REFERENCES))
    counts = captions.bleu_counts(given, said)
    rows = np.array([0, 2, 2, 1, 0])
    drawn = Bleu(4).compute_score(
        {i: given[r] for i, r in enumerate(rows)}, {i: said[r] for i, r in enumerate(rows)}, verbose=0
    )
    for order in (1, 2, 3, 4):
        assert counts.corpus(rows, order) == pytest.approx(drawn[0][order - 1], abs=1e-12)


def test_diversity() -> None:
    found = captions.diversity(["A dog barks.", "a dog barks", "rain"])
    assert found == {"vocab": 4, "distinct": pytest.approx(2 / 3), "words": pytest.approx(7 / 3)}


def test_every_interval_stays_in_the_range_of_its_metric() -> None:
    """Three clips of twelve are captioned right, the others with many wrong words: METEOR of all is far below the mean."""
    candidates = ["a dog barks loudly"] * 3 + [" ".join("x" * 40)] * 9
    found = score(candidates, [["a dog barks loudly"] * 2] * 12)
    for name, metric in found.items():
        if metric.value is not None:
            low, high = metric.interval95 or (-1, -1)
            assert 0 <= low <= metric.value <= high <= (10 if name in ("cider_d", "spider") else 1), name
    value, per_clip = found["meteor"].value, found["meteor"].per_clip
    assert value is not None and per_clip is not None, found["meteor"].reason
    moved = (captions.mean(per_clip).interval95 or (0, 0))[0] + value - per_clip.mean()
    assert moved < 0, "what moves the interval of the mean along does not stay in the range here"


def test_meteor_of_any_choice_of_clips_is_the_programs(library_meteor: Any) -> None:
    from eval.metrics import meteor

    rng = np.random.default_rng(0)
    words = ["a", "the", "dog", "dogs", "barks", "barking", "rains", "falls", "on", "roof", "man", "person", "speaks"]
    texts = [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(80)]
    said = {i: [text] for i, text in enumerate(["", "a dog barks", *texts[:18]])}
    given = {i: ["a dog barks", *texts[20 + 2 * i : 22 + 2 * i]] for i in said}
    scorer = meteor.program()
    value, per_clip = scorer.compute_score(given, said)
    counts = scorer.counts()
    assert meteor.corpus(counts) == pytest.approx(value, abs=1e-12)
    assert [meteor.corpus(row[None]) for row in counts] == pytest.approx(per_clip, abs=1e-12)
    rows = rng.integers(20, size=20)
    drawn = library_meteor.compute_score(
        {i: given[row] for i, row in enumerate(rows)}, {i: said[row] for i, row in enumerate(rows)}
    )
    assert meteor.corpus(counts[rows]) == pytest.approx(drawn[0], abs=1e-12)


def test_after_a_program_that_ends_too_early_another_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eval.metrics import meteor

    java = tmp_path / "java"
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(meteor, "program", functools.cache(meteor.Recorder))
    ended = meteor.program()
    assert score(["rain"], [["rain"]])["meteor"].reason
    assert meteor.program() is not ended

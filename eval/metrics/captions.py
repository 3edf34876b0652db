"""Captioning metrics, each by the library that the field uses; what cannot be computed here has a reason instead.

Names are those of aac-metrics. BLEU, ROUGE-L, METEOR, CIDEr-D and SPICE are pycocoevalcap's; FENSE is aac-metrics'. Texts
are split into PTB words (train/models/captioner/vocabulary.py), but for FENSE, which takes them as they are.
Legend: N = clips.
"""

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval import metrics
from eval.metrics import Interval
from train.models.captioner.vocabulary import tokenize

log = logging.getLogger(__name__)
ORDERS = (1, 2, 3, 4)  # of n-grams
NAMES = (*(f"bleu_{n}" for n in ORDERS), "rouge_l", "meteor", "cider_d", "spice", "spider", "fense")
Words = dict[int, list[str]]  # row -> texts of PTB words joined by blanks


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of a corpus."""

    value: float | None = None  # None: it could not be computed
    interval95: Interval | None = None
    per_clip: np.ndarray | None = None  # (N,)
    reason: str = ""  # why there is no value


@dataclass(frozen=True, kw_only=True)
class Bleu:
    """Counts from which BLEU of any choice of clips is computed."""

    correct: np.ndarray  # (N, 4) n-grams that a reference has
    guess: np.ndarray  # (N, 4) n-grams
    length: np.ndarray  # (N,) words
    reference_length: np.ndarray  # (N,) of the reference closest in length
    per_clip: list[np.ndarray] = field(default_factory=list)  # (N,) for each order

    def corpus(self, rows: np.ndarray, order: int) -> float:
        """Return BLEU (Papineni et al. 2002) with pycocoevalcap's smoothing constants."""
        correct, guess = self.correct[rows].sum(axis=0)[:order], self.guess[rows].sum(axis=0)[:order]
        ratio = (self.length[rows].sum() + 1e-15) / (self.reference_length[rows].sum() + 1e-9)
        precision = float(np.prod((correct + 1e-15) / (guess + 1e-9)) ** (1 / order))
        return precision * math.exp(min(0.0, 1 - 1 / ratio))


def score(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Score]:
    """Score one candidate a clip against its references by every metric in NAMES.

    Intervals resample clips: BLEU and METEOR anew from their counts, the others as means of what each clip got. So no
    interval leaves the range of its metric.
    """
    hypotheses = {row: [" ".join(tokenize(text))] for row, text in enumerate(candidates)}
    given = {row: [" ".join(tokenize(text)) for text in texts] for row, texts in enumerate(references)}
    counts = bleu_counts(given, hypotheses)
    found = {f"bleu_{order}": _bleu(counts, order) for order in ORDERS}
    found["rouge_l"] = _attempt(_rouge_l, given, hypotheses)
    found["meteor"] = _attempt(_meteor, given, hypotheses)
    found["cider_d"] = _attempt(_cider_d, given, hypotheses)
    found["spice"] = _attempt(_spice, given, hypotheses)
    found["spider"] = _spider(found["cider_d"], found["spice"])
    found["fense"] = _attempt(_fense, list(candidates), [list(texts) for texts in references])
    return found


def diversity(candidates: Sequence[str]) -> dict[str, float]:
    """Return `vocab` (different words), `distinct` (share of different captions) and `words` (mean of a caption)."""
    texts = [tokenize(text) for text in candidates]
    joined = [" ".join(words) for words in texts]
    return {
        "vocab": len({word for words in texts for word in words}),
        "distinct": len(set(joined)) / len(joined),
        "words": float(np.mean([len(words) for words in texts])),
    }


def bleu_counts(given: Words, hypotheses: Words) -> Bleu:
    """Count n-grams with pycocoevalcap's own code."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=len(ORDERS))
    for row in hypotheses:
        scorer += (hypotheses[row][0], given[row])
    _, per_clip = scorer.compute_score(option="closest", verbose=0)
    closest = [min((abs(n - c["testlen"]), n) for n in c["reflen"])[1] for c in scorer.ctest]
    return Bleu(
        correct=np.array([c["correct"] for c in scorer.ctest]),
        guess=np.array([c["guess"] for c in scorer.ctest]),
        length=np.array([c["testlen"] for c in scorer.ctest]),
        reference_length=np.array(closest),
        per_clip=[np.array(scores) for scores in per_clip],
    )


def mean(per_clip: np.ndarray) -> Score:
    """Return the mean over clips with its interval."""
    interval = metrics.bootstrap(lambda rows: float(per_clip[rows].mean()), len(per_clip))
    return Score(value=float(per_clip.mean()), interval95=interval, per_clip=per_clip)


def _bleu(counts: Bleu, order: int) -> Score:
    everything = np.arange(len(counts.length))
    interval = metrics.bootstrap(lambda rows: counts.corpus(rows, order), len(everything))
    return Score(value=counts.corpus(everything, order), interval95=interval, per_clip=counts.per_clip[order - 1])


def _attempt(compute: Callable[..., Score], *arguments: Any) -> Score:
    """Return a metric, or why the library could not compute it: one metric must not cost the others."""
    try:
        return compute(*arguments)
    except Exception as error:  # Java, downloads and foreign code fail in every way
        log.debug("a metric could not be computed", exc_info=True)
        lines = str(error).strip().splitlines()
        return Score(reason=f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300])


def _rouge_l(given: Words, hypotheses: Words) -> Score:
    from pycocoevalcap.rouge.rouge import Rouge

    return mean(Rouge().compute_score(given, hypotheses)[1])


def _cider_d(given: Words, hypotheses: Words) -> Score:
    from pycocoevalcap.cider.cider import Cider

    return mean(Cider().compute_score(given, hypotheses)[1])


def _meteor(given: Words, hypotheses: Words) -> Score:
    if shutil.which("java") is None:
        return Score(reason="needs Java, and there is no `java` on the PATH")
    from eval.metrics import meteor

    scorer = meteor.program()
    value, per_clip = scorer.compute_score(given, hypotheses)
    counts = scorer.counts()
    interval = metrics.bootstrap(lambda rows: meteor.corpus(counts[rows]), len(counts))
    return Score(value=float(value), interval95=interval, per_clip=np.array(per_clip))


def _spice(given: Words, hypotheses: Words) -> Score:
    from pycocoevalcap.spice import spice

    parser = Path(spice.__file__).parent / "lib" / "stanford-corenlp-3.6.0.jar"
    if not parser.exists() or shutil.which("java") is None:
        fetch = "python -c 'from pycocoevalcap.spice.get_stanford_models import get_stanford_models as g; g()'"
        return Score(reason=f"needs Java (8 to 13) and Stanford's parser, which `{fetch}` downloads")
    _, per_clip = spice.Spice().compute_score(given, hypotheses)
    return mean(np.array([each["All"]["f"] for each in per_clip]))


def _spider(cider_d: Score, spice: Score) -> Score:
    if cider_d.per_clip is None or spice.per_clip is None:
        return Score(reason=f"is the mean of cider_d and spice: {spice.reason or cider_d.reason}")
    return mean((cider_d.per_clip + spice.per_clip) / 2)


def _fense(candidates: list[str], references: list[list[str]]) -> Score:
    try:
        from aac_metrics.functional import fense
    except ImportError:
        return Score(reason="needs aac-metrics (`pip install aac-metrics`, then `aac-metrics-download`)")
    _, per_clip = fense(candidates, references)
    return mean(per_clip["fense"].double().numpy())

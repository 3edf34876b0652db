"""METEOR 1.5 of any choice of clips, from the counts that the library's Java program makes of each.

METEOR of a corpus is no mean over clips: it is computed once from the sums of their counts, so that its interval resamples
the counts. Legend: N = clips.
"""

import functools
import threading
from collections.abc import Mapping

import numpy as np
from pycocoevalcap.meteor.meteor import Meteor

COUNTS = 23
STAGES = np.array([1.0, 0.6, 0.8, 0.6])  # weights of an exact, a stem, a synonym and a paraphrase match
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75  # of English


class Recorder(Meteor):  # type: ignore[misc]
    """The library's METEOR, which also keeps the counts of each clip of its last call."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()  # the library holds it when a call fails, and acquires it again at the end
        self.lines: list[str] = []

    def compute_score(self, gts: Mapping[int, list[str]], res: Mapping[int, list[str]]) -> tuple[float, list[float]]:
        """Return METEOR of all clips and of each, from references and from one caption a clip. Raises what the pipe does."""
        self.lines = []
        try:
            value, per_clip = super().compute_score(gts, res)
        except Exception:
            program.cache_clear()  # this one may be dead, or in the middle of an answer
            raise
        return value, per_clip

    def _stat(self, hypothesis_str: str, reference_list: list[str]) -> str:
        line = str(super()._stat(hypothesis_str, reference_list))
        self.lines.append(line)
        return line

    def counts(self) -> np.ndarray:
        """Return the counts (N, 23).

        Words of the caption and of the reference; function words of both; for each stage the matched content words of
        both and the matched function words of both; chunks, 0 where the caption is the reference; matched words of both.
        """
        counts = np.array([line.split() for line in self.lines], float).reshape(-1, COUNTS)
        same = (counts[:, 20] == 1) & (counts[:, 21:] == counts[:, :2]).all(axis=1)
        counts[same, 20] = 0  # as the program has it in its sums
        return counts


@functools.cache
def program() -> Recorder:
    """Return METEOR of this process: a start reads the table of paraphrases, nine seconds of a core and 1 GB of memory."""
    return Recorder()


def corpus(counts: np.ndarray) -> float:
    """Return METEOR of clips from their counts (N, 23), 0 to 1. Source: Denkowski & Lavie 2014, Meteor Universal."""
    total = counts.sum(axis=0)
    words, function, (chunks, *matched) = total[:2], total[2:4], total[20:]
    content_matches, function_matches = (STAGES @ total[4:20].reshape(4, 2, 2)[:, kind] for kind in (0, 1))
    weighed = DELTA * content_matches + (1 - DELTA) * function_matches  # of the caption, of the reference
    precision, recall = weighed / np.maximum(DELTA * (words - function) + (1 - DELTA) * function, 1e-9)
    if not precision or not recall:
        return 0.0
    mean = 1 / (ALPHA / recall + (1 - ALPHA) / precision)
    return float(mean * (1 - GAMMA * (2 * chunks / sum(matched)) ** BETA))

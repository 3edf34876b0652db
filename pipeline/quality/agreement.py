"""How much captions of one clip agree: the cosine of their words and word pairs, weighted as in CIDEr.

Words are compared by stems. A word or pair that many captions of the dataset have counts little.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from pipeline.quality.tag_consistency import normalise, stem

Vector = dict[str, float]  # of unit length, or empty


class Agreement:
    """Compares captions by the frequencies of a dataset."""

    def __init__(self, captions: Iterable[str]) -> None:
        """Count in how many captions each word and pair is."""
        self.frequency: Counter[str] = Counter()
        self.num_captions = 0
        for caption in captions:
            self.frequency.update(set(_terms(caption)))
            self.num_captions += 1

    def similarity(self, one: str, other: str) -> float:
        """Return 0 for captions without a common word, up to 1 for those with the same words in the same order."""
        first, second = self._vector(one), self._vector(other)
        return sum(weight * second.get(term, 0.0) for term, weight in first.items())

    def consensus(self, caption: str, others: Sequence[Sequence[str]]) -> float:
        """Return the mean similarity to the most similar caption of each of the other captioners; 0 without others."""
        best = [max(self.similarity(caption, other) for other in texts) for texts in others if texts]
        return sum(best) / len(best) if best else 0.0

    def _vector(self, caption: str) -> Vector:
        counts = Counter(_terms(caption))
        weights = {
            term: count * math.log((self.num_captions + 1) / (self.frequency[term] + 0.5))
            for term, count in counts.items()
        }
        norm = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {term: weight / norm for term, weight in weights.items()} if norm else {}


def _terms(caption: str) -> list[str]:
    """Return the stems of a caption, and its pairs of neighbours."""
    stems = [stem(word) for word in normalise(caption).split()]
    return stems + [f"{one} {other}" for one, other in itertools.pairwise(stems)]

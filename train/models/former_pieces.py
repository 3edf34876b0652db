"""Vocabularies of word pieces as earlier releases built them, for runs that began then and are not finished.

This file goes with the next release. New runs use train/models/pieces.py.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from train.models.pieces import PREFIX

Pair = tuple[str, str]


def frequent_words(texts: Iterable[Sequence[str]], specials: Sequence[str], size: int) -> list[str]:
    """Return at most `size` pieces in id order: the specials, all characters, the most frequent words."""
    counts = Counter(word for words in texts for word in words)
    characters = sorted({character for word in counts for character in word})
    frequent = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if len(word) > 1]
    return [*specials, *characters, *(PREFIX + character for character in characters), *frequent][:size]


def byte_pairs(texts: Iterable[Sequence[str]], specials: Sequence[str], size: int) -> list[str]:
    """Return at most `size` pieces in id order; of equally frequent pairs the last in the alphabet is merged."""
    counts = Counter(word for words in texts for word in words)
    pieces = {word: [word[0], *(PREFIX + character for character in word[1:])] for word in counts}
    vocabulary = sorted({piece for split in pieces.values() for piece in split})
    pairs: Counter[Pair] = Counter()
    words_with: dict[Pair, set[str]] = {}
    for word, split in pieces.items():
        for pair in pairwise(split):
            pairs[pair] += counts[word]
            words_with.setdefault(pair, set()).add(word)
    while len(specials) + len(vocabulary) < size and +pairs:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        vocabulary.append(best[0] + best[1].removeprefix(PREFIX))
        for word in words_with.pop(best):
            before, after = pieces[word], _merge(pieces[word], best)
            for pair in pairwise(before):
                pairs[pair] -= counts[word]
            for pair in pairwise(after):
                pairs[pair] += counts[word]
                words_with.setdefault(pair, set()).add(word)
            pieces[word] = after
        del pairs[best]
    return [*specials, *dict.fromkeys(vocabulary)][:size]


def _merge(pieces: Sequence[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    start = 0
    while start < len(pieces):
        if tuple(pieces[start : start + 2]) == pair:
            merged.append(pair[0] + pair[1].removeprefix(PREFIX))
            start += 2
        else:
            merged.append(pieces[start])
            start += 1
    return merged

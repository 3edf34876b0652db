"""The captioner's vocabulary: words as captioning metrics split them, or parts of words. Ids: pad 0, start 1, end 2, unk 3.

`tokenize` gives what Stanford's PTBTokenizer gives inside pycocoevalcap: lower case, contractions split, punctuation
dropped. It is written anew because training and metrics should not need Java.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

PAD, START, END, UNK = range(4)
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")
MAX_WORDS = 20  # of a caption; start and end are added to these
MAX_PARTS = 30  # the same, where words are in parts
PART = "##"  # marks a part that goes on a word

CLITIC = r"'(?:s|m|re|ve|ll|d)\b"
TOKEN = re.compile(
    rf"""
    -[lr][rsc]b-                      # a bracket, as PTB writes it
  | \w+(?=n't\b) | n't\b              # do n't
  | {CLITIC}                          # dog 's
  | \d+(?:[.,:]\d+)+                  # 1,000.5
  | (?:[a-z]\.){{2,}}                 # p.a.
  | \b(?:mr|mrs|ms|dr|prof|etc|vs|[a-z])\.(?=\s|$)   # abbreviations keep their dot
  | o'\w+ | ma'am                      # o'clock; elsewhere an apostrophe parts words
  | \w+(?:[-&/.]\w+)*                 # high-pitched, and/or
  | [^\w\s]
    """,
    re.VERBOSE,
)
BRACKETS = str.maketrans(
    {b: f" {n} " for b, n in zip("()[]{}", ["-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"], strict=True)}
)
IN_TWO = {
    "cannot": "can not",
    "gonna": "gon na",
    "wanna": "wan na",
    "gotta": "got ta",
    "gimme": "gim me",
    "lemme": "lem me",
}
DROPPED = {"'", "`", ".", "?", "!", ",", ":", "-", ";", '"', "“", "”", "‘", "—", "–"}
JOIN = re.compile(rf" (n't\b|{CLITIC})")


def tokenize(text: str) -> list[str]:
    """Split a caption into lower-case PTB words; punctuation is dropped."""
    lowered = text.lower().replace("\u2019", "'").translate(BRACKETS)
    words = (part for token in TOKEN.findall(lowered) for part in IN_TWO.get(token, token).split())
    return [word for word in words if word not in DROPPED]


def join(words: Iterable[str]) -> str:
    """Write PTB words as people do: `the dog 's bark` becomes `the dog's bark`."""
    return JOIN.sub(r"\1", " ".join(words))


class Vocabulary:
    """Words <-> ids."""

    max_tokens = MAX_WORDS

    def __init__(self, words: Sequence[str]) -> None:
        assert tuple(words[:4]) == SPECIALS, words[:4]
        self.words = list(words)
        self.ids = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def build(cls, texts: Iterable[str], min_count: int = 1) -> "Vocabulary":
        """Collect the words that occur at least `min_count` times, in first-seen order."""
        counts = Counter(word for text in texts for word in tokenize(text))
        return cls([*SPECIALS, *(word for word, count in counts.items() if count >= min_count)])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Return start, at most `max_tokens` ids, end."""
        return [START, *self._ids(text)[: self.max_tokens], END]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text up to the first end; specials are left out."""
        words = []
        for index in ids:
            if index == END:
                break
            if index > UNK:
                words.append(self.words[index])
        return self._text(words)

    def _ids(self, text: str) -> list[int]:
        return [self.ids.get(word, UNK) for word in tokenize(text)]

    def _text(self, words: list[str]) -> str:
        return join(words)


class Subwords(Vocabulary):
    """Parts of words: frequent words whole, others from the longest parts that fit, from left to right."""

    max_tokens = MAX_PARTS

    @classmethod
    def build_parts(cls, texts: Iterable[str], size: int) -> "Subwords":
        """Take all characters, then join the most frequent neighbours, over and over, up to `size` ids (byte-pair encoding).

        Of equally frequent ones the last in the alphabet is joined, so that the same texts give the same ids in every
        process: ranks and resumed runs build it again.
        """
        words = Counter(word for text in texts for word in tokenize(text))
        spelt = {word: [word[0], *(PART + character for character in word[1:])] for word in words}
        parts = sorted({part for pieces in spelt.values() for part in pieces})
        pairs: Counter[tuple[str, str]] = Counter()
        users: dict[tuple[str, str], set[str]] = {}
        for word, pieces in spelt.items():
            for pair in pairwise(pieces):
                pairs[pair] += words[word]
                users.setdefault(pair, set()).add(word)
        while len(SPECIALS) + len(parts) < size and +pairs:
            best = max(pairs, key=lambda pair: (pairs[pair], pair))
            parts.append(best[0] + best[1].removeprefix(PART))
            for word in users.pop(best):
                before, after = spelt[word], _merge(spelt[word], best)
                for pair in pairwise(before):
                    pairs[pair] -= words[word]
                for pair in pairwise(after):
                    pairs[pair] += words[word]
                    users.setdefault(pair, set()).add(word)
                spelt[word] = after
            del pairs[best]
        return cls([*SPECIALS, *dict.fromkeys(parts)][:size])

    def _ids(self, text: str) -> list[int]:
        return [index for word in tokenize(text) for index in self._parts(word)]

    def _parts(self, word: str) -> list[int]:
        found, place = [], 0
        while place < len(word):
            mark = PART if place else ""
            end = next((e for e in range(len(word), place, -1) if mark + word[place:e] in self.ids), None)
            if end is None:
                return [UNK]
            found.append(self.ids[mark + word[place:end]])
            place = end
        return found

    def _text(self, words: list[str]) -> str:
        return join(" ".join(words).replace(f" {PART}", "").removeprefix(PART).split())


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    place = 0
    while place < len(pieces):
        if tuple(pieces[place : place + 2]) == pair:
            merged.append(pair[0] + pair[1].removeprefix(PART))
            place += 2
        else:
            merged.append(pieces[place])
            place += 1
    return merged

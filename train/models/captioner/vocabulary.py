"""The captioner's vocabulary: words as captioning metrics split them, or pieces of words. Ids: pad 0, start 1, end 2, unk 3.

`tokenize` gives the words of Stanford's PTBTokenizer in pycocoevalcap: lower case, contractions split, punctuation
dropped. It is written in Python because training and metrics should not need Java.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, models

from train.models.pieces import PREFIX, TrainPieces, train_pieces

PAD, START, END, UNK = range(4)
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")
MAX_WORDS = 20  # of a caption; start and end are added to these
MAX_PIECES = 30  # the same, where words are in pieces
MAX_WORD_CHARACTERS = 10_000  # of a word that is split into pieces; longer ones are unknown

CLITIC = r"'(?:s|m|re|ve|ll|d)\b"
TOKEN = re.compile(
    rf"""
    -[lr][rsc]b-                      # a bracket, as PTB writes it
  | \w+(?=n't\b) | n't\b              # do n't
  | {CLITIC}                          # dog 's
  | \d+(?:[.,:]\d+)+                  # 1,000.5
  | (?:[a-z]\.){{2,}}                 # p.a.
  | \b(?:mr|mrs|ms|dr|prof|etc|vs|[a-z])\.(?=\s|$)   # abbreviations keep their dot
  | o'\w+ | ma'am                      # o'clock; elsewhere an apostrophe separates words
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
    """Word pieces: frequent words whole, others from the longest pieces that fit, from left to right."""

    max_tokens = MAX_PIECES

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__(words)
        pieces = models.WordPiece(self.ids, unk_token=SPECIALS[UNK], max_input_chars_per_word=MAX_WORD_CHARACTERS)
        self.tokenizer = Tokenizer(pieces)

    @classmethod
    def build_pieces(cls, texts: Iterable[str], size: int, train: TrainPieces = train_pieces) -> "Subwords":
        """Train at most `size` pieces on captions; the same captions give the same ids in every process."""
        return cls(train(map(tokenize, texts), SPECIALS, size))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(tokenize(text), is_pretokenized=True).ids
        return ids

    def _text(self, words: list[str]) -> str:
        return join(" ".join(words).replace(f" {PREFIX}", "").removeprefix(PREFIX).split())

"""The captioner's word-level vocabulary: pad 0, start 1, end 2, unk 3, then words in first-seen order."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

PAD, START, END, UNK = range(4)
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")
MAX_WORDS = 20  # start and end are added to these


def tokenize(text: str) -> list[str]:
    """Split a caption into lower-case words; punctuation is dropped, an apostrophe stays inside its word."""
    return re.findall(r"\w+(?:'\w+)*", text.lower())


class Vocabulary:
    """Words <-> ids."""

    def __init__(self, words: Sequence[str]) -> None:
        assert tuple(words[:4]) == SPECIALS, words[:4]
        self.words = list(words)
        self.ids = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def build(cls, texts: Iterable[str], min_count: int = 1) -> "Vocabulary":
        """Collect the words that occur at least `min_count` times."""
        counts = Counter(word for text in texts for word in tokenize(text))
        return cls([*SPECIALS, *(word for word, count in counts.items() if count >= min_count)])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Return start, at most MAX_WORDS word ids, end."""
        return [START, *(self.ids.get(word, UNK) for word in tokenize(text)[:MAX_WORDS]), END]

    def decode(self, ids: Iterable[int]) -> str:
        """Join words up to the first end; specials are left out."""
        words = []
        for index in ids:
            if index == END:
                break
            if index > UNK:
                words.append(self.words[index])
        return " ".join(words)

"""Vocabularies of word pieces: byte-pair merges, trained by the tokenizers library and written as WordPiece writes them."""

from collections.abc import Callable, Iterable, Sequence

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

PREFIX = "##"  # marks a piece that continues a word
TrainPieces = Callable[[Iterable[Sequence[str]], Sequence[str], int], list[str]]  # see `train_pieces`


def train_pieces(texts: Iterable[Sequence[str]], specials: Sequence[str], size: int) -> list[str]:
    """Return at most `size` pieces in id order: the specials, every character at the start and inside a word, merges.

    The library numbers the characters inside words in the order of a hash map, and these numbers decide between merges
    that are equally frequent. Here all characters enter in sorted order, in front of what the library finds: the same
    texts give the same pieces in every process.

    Args:
        texts: the words of each text.
        specials: the first ids.
        size: of the vocabulary.
    """
    lines = [" ".join(words) for words in texts]
    characters = sorted({character for line in lines for character in line if character != " "})
    first = [*specials, *characters, *(PREFIX + character for character in characters)]
    tokenizer = Tokenizer(models.WordPiece())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    ids: dict[str, int] = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)[:size]

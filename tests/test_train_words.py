"""Vocabulary: words as Stanford's PTB tokenizer splits them, and parts of words that come back as they went in."""

import csv
import gzip
import shutil
from pathlib import Path

import pytest

from train.models.captioner.vocabulary import MAX_PIECES, SPECIALS, UNK, Subwords, Vocabulary, join, tokenize

HAND_MADE = {
    "A dog's bark, then: rain!": "a dog 's bark then rain",
    "It doesn't stop; they're loud.": "it does n't stop they 're loud",
    "A high-pitched whine and/or a hum": "a high-pitched whine and/or a hum",
    "one can not, one cannot": "one can not one can not",
    "5 o'clock (a bell) rings 1,000.5 times": "5 o'clock -lrb- a bell -rrb- rings 1,000.5 times",
    "“quoted” and 'quoted'": "quoted and quoted",
    "  ": "",
}


@pytest.mark.parametrize("text", HAND_MADE)
def test_words_are_split_as_ptb_does(text: str) -> None:
    assert " ".join(tokenize(text)) == HAND_MADE[text]


def captions(blat_data: Path, name: str) -> list[str]:
    path = blat_data / "meta" / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"no {path.name} in {blat_data}/meta")
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as text:
        rows = list(csv.DictReader(text))
    columns = [column for column in rows[0] if column.startswith("caption")]
    return [" ".join(row[column].split()) for row in rows for column in columns]


@pytest.mark.parametrize(
    "name", ["audiocaps_v1_train", "audiocaps_v1_test", "clotho_v2_train", "clotho_v2_test", "clotho_v2_val"]
)
def test_real_captions_are_split_exactly_as_stanfords_tokenizer_splits_them(blat_data: Path, name: str) -> None:
    if shutil.which("java") is None:
        pytest.skip("Stanford's tokenizer needs Java")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = captions(blat_data, name)
    theirs = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    differing = [text for i, text in enumerate(texts) if tokenize(text) != theirs[i][0].split()]
    assert not differing, differing[:5]


def test_other_peoples_texts_differ_from_stanfords_words_in_less_than_one_of_a_hundred(blat_data: Path) -> None:
    """WavText5K's descriptions, on which nothing was fitted: smileys, fractions and French elisions are what differs."""
    path = blat_data / "meta" / "WavText5K.csv.gz"
    if shutil.which("java") is None or not path.exists():
        pytest.skip("needs Java and meta/WavText5K.csv.gz in BLAT_DATA")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as text:
        texts = [" ".join(row[column].split()) for row in csv.DictReader(text) for column in ("title", "description")]
    theirs = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    differing = [text for i, text in enumerate(texts) if tokenize(text) != theirs[i][0].split()]
    assert 0 < len(differing) < 0.01 * len(texts), (len(differing), len(texts))


def test_vocabularies_of_the_real_tables_have_the_published_sizes(blat_data: Path) -> None:
    """4,981 and 4,368 are published, with the specials; Stanford's tokenizer gives these counts on these tables."""
    audiocaps = Vocabulary.build(captions(blat_data, "audiocaps_v1_train"))
    clotho = Vocabulary.build(captions(blat_data, "clotho_v2_train"))
    assert (len(audiocaps), len(clotho)) == (4_988, 4_364)


def test_words_are_joined_as_people_write_them() -> None:
    assert join(tokenize("The dog's master doesn't talk")) == "the dog's master doesn't talk"


TEXTS = [
    "a dog barks",
    "dogs bark and a dog growls",
    "the barking of dogs",
    "rain falls on the dog's roof",
    "he's running",
]


def test_subwords_come_back_as_the_words_they_were() -> None:
    pieces = Subwords.build_pieces(TEXTS * 3, 60)
    assert tuple(pieces.words[:4]) == SPECIALS and len(pieces) <= 60
    for text in [*TEXTS, "a roofing dog falls"]:
        assert pieces.decode(pieces.encode(text)) == text
        assert UNK not in pieces.encode(text)
    assert pieces.decode(pieces.encode("a dog 7")) == "a dog", "a character never seen is unknown"
    assert len(pieces.encode("barking " * 40)) == MAX_PIECES + 2


def test_subwords_are_the_same_in_every_process_and_start_with_what_is_frequent() -> None:
    pieces = Subwords.build_pieces(TEXTS * 3, 50)
    assert pieces.words == Subwords.build_pieces(TEXTS * 3, 50).words
    assert "dog" in pieces.words and "bark" in pieces.words and "growls" not in pieces.words
    assert len(Subwords.build_pieces(TEXTS, 10_000)) < 200, "no more pieces than there is to merge"

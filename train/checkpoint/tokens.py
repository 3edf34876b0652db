"""How captions become ids: one file that the command which starts a run publishes, and that all its workers read.

vocabulary.json   of a captioner: words or word pieces in id order
tokenizer.json    of two towers whose text tower is not pretrained: format of the tokenizers library

The finished checkpoint holds the same file.
"""

import json
from collections.abc import Callable

from tokenizers import Tokenizer

from pipeline import storage
from train.models.captioner.vocabulary import Subwords, Vocabulary

VOCABULARY_FILE, TOKENIZER_FILE = "vocabulary.json", "tokenizer.json"


def open_vocabulary(out: str, subwords: bool, build: Callable[[], Vocabulary]) -> Vocabulary:
    """Return the vocabulary of a run; the first process that asks for it builds and publishes it."""
    if not storage.exists(storage.join(out, VOCABULARY_FILE)):
        publish_vocabulary(out, build())
    return read_vocabulary(out, subwords)


def publish_vocabulary(folder: str, vocabulary: Vocabulary) -> None:
    """Write the vocabulary of a captioner."""
    storage.publish_json(storage.join(folder, VOCABULARY_FILE), vocabulary.words)


def read_vocabulary(folder: str, subwords: bool) -> Vocabulary:
    """Read the vocabulary of a captioner: of word pieces, or of words."""
    return (Subwords if subwords else Vocabulary)(storage.read_json(storage.join(folder, VOCABULARY_FILE)))


def open_tokenizer(out: str, build: Callable[[], Tokenizer]) -> Tokenizer:
    """Return the tokenizer of a run; the first process that asks for it builds and publishes it."""
    if not storage.exists(storage.join(out, TOKENIZER_FILE)):
        publish_tokenizer(out, build())
    return read_tokenizer(out)


def publish_tokenizer(folder: str, tokenizer: Tokenizer) -> None:
    """Write the tokenizer of two towers."""
    storage.publish_json(storage.join(folder, TOKENIZER_FILE), json.loads(tokenizer.to_str()))


def read_tokenizer(folder: str) -> Tokenizer:
    """Read the tokenizer of two towers."""
    return Tokenizer.from_str(storage.read(storage.join(folder, TOKENIZER_FILE)).decode())

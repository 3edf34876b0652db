"""How captions become ids: one file that the command which starts a run publishes, and that all its workers read.

vocabulary.json   of a captioner: words or word pieces in id order
tokenizer.json    of two towers: format of the tokenizers library

The finished checkpoint holds the same file.
"""

import json

from tokenizers import Tokenizer

from pipeline import storage
from train.models.captioner.vocabulary import Subwords, Vocabulary

VOCABULARY_FILE, TOKENIZER_FILE = "vocabulary.json", "tokenizer.json"


def has_vocabulary(folder: str) -> bool:
    """Return whether a run or a checkpoint has its vocabulary."""
    return storage.exists(storage.join(folder, VOCABULARY_FILE))


def publish_vocabulary(folder: str, vocabulary: Vocabulary) -> None:
    """Write the vocabulary of a captioner."""
    storage.publish_json(storage.join(folder, VOCABULARY_FILE), vocabulary.words)


def read_vocabulary(folder: str, subwords: bool) -> Vocabulary:
    """Read the vocabulary of a captioner: of word pieces, or of words."""
    return (Subwords if subwords else Vocabulary)(storage.read_json(storage.join(folder, VOCABULARY_FILE)))


def has_tokenizer(folder: str) -> bool:
    """Return whether a run or a checkpoint has its tokenizer."""
    return storage.exists(storage.join(folder, TOKENIZER_FILE))


def publish_tokenizer(folder: str, tokenizer: Tokenizer) -> None:
    """Write the tokenizer of two towers."""
    storage.publish_json(storage.join(folder, TOKENIZER_FILE), json.loads(tokenizer.to_str()))


def read_tokenizer(folder: str) -> Tokenizer:
    """Read the tokenizer of two towers."""
    return Tokenizer.from_str(storage.read(storage.join(folder, TOKENIZER_FILE)).decode())

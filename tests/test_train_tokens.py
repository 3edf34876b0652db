"""The vocabulary of a run: built once, the same in every process; a run that an earlier release began keeps its own."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline import storage
from pipeline.sources.clip import Clip
from train.checkpoint import tokens
from train.configs import PRETRAIN
from train.data.clip_sets import ListedClips
from train.models import former_pieces, pieces
from train.models.captioner.vocabulary import SPECIALS, Subwords, Vocabulary
from train.stages.pretrain import towers

TEXTS = [
    "a dog barks",
    "dogs bark and a dog growls",
    "the barking of dogs",
    "rain falls on the dog's roof",
    "he's running",
]
BUILD = "from train.models.pieces import train_pieces; print(train_pieces({!r}, ['<unk>'], 60))"
BYTE_PAIRS = (  # of TEXTS three times, as the release before made them
    "##a ##d ##e ##f ##g ##h ##i ##k ##l ##n ##o ##r ##s ##u ##w ' a b d f g h o r t do dog ba bar bark ##in th the dogs "
    "'s ##ls ##ing ru run runn running ro roo roof ra rain"
)


def fail() -> NoReturn:
    raise AssertionError("built again")


def test_pieces_are_the_same_in_every_process() -> None:
    words = [[f"word{i % 17}", f"sound{i % 13}", f"of{i % 7}"] for i in range(200)]
    command = [sys.executable, "-c", BUILD.format(words)]
    assert len({subprocess.run(command, capture_output=True, check=True).stdout for _ in range(3)}) == 1


def test_pieces_are_characters_and_merges_up_to_the_size() -> None:
    found = pieces.train_pieces([["low", "lower"], ["low"]], ("<unk>",), 100)
    assert found[:11] == ["<unk>", "e", "l", "o", "r", "w", "##e", "##l", "##o", "##r", "##w"]
    assert {"low", "lower"} <= set(found) and len(found) == len(set(found)) < 20
    assert pieces.train_pieces([["low", "lower"]], ("<unk>",), 5) == found[:5]


@pytest.mark.parametrize(
    ("subwords", "vocabulary"), [(False, Vocabulary.build(TEXTS)), (True, Subwords.build_pieces(TEXTS, 60))]
)
def test_a_vocabulary_is_built_once(subwords: bool, vocabulary: Vocabulary, tmp_path: Path) -> None:
    opened = tokens.open_vocabulary(str(tmp_path), subwords, lambda: vocabulary)
    again = tokens.open_vocabulary(str(tmp_path), subwords, fail)
    assert type(opened) is type(again) is type(vocabulary)
    assert opened.words == again.words == vocabulary.words
    assert again.encode("a dog barks") == vocabulary.encode("a dog barks")


def test_byte_pairs_of_an_earlier_release() -> None:
    former = Subwords.build_pieces(TEXTS * 3, 50, former_pieces.byte_pairs)
    assert former.words == [*SPECIALS, *BYTE_PAIRS.split()]
    assert former.encode("dogs bark and a dog growls") == [1, 37, 33, 20, 13, 5, 20, 30, 24, 15, 14, 18, 39, 2]


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_an_earlier_release_began_keeps_its_words(begun: bool, tmp_path: Path) -> None:
    config = dataclasses.replace(PRETRAIN["tiny"][1], out=str(tmp_path))
    clips = ListedClips(
        [Clip(key=text, captions=(text,), uri=text, source_id=text) for text in ("low lower", "low")], ()
    )
    if begun:
        storage.publish_json(str(tmp_path / "training_state" / "00000005.json"), {})
    tokenizer = towers.tokenizer(config, config.out, clips)
    assert tokenizer is not None
    ids = tokenizer.get_vocab()
    assert ("lo" in ids) is not begun, "the words of the earlier release are whole"
    assert sorted(ids, key=ids.__getitem__)[-2:] == (["low", "lower"] if begun else ["##er", "lower"])
    storage.remove(str(tmp_path / "training_state"))
    kept = towers.tokenizer(config, config.out, clips)
    assert kept is not None and kept.to_str() == tokenizer.to_str()

"""Texts that are wrong by the order of events or by a sound that is absent: hand-made cases, and what a batch gets."""

import numpy as np
import pytest

from pipeline.sources import audioset
from train.data import hard_negatives
from train.metrics import foils

TAGS = [["Rain", "Bell"], ["Siren"], [], ["Wind", "Rain", "Siren"]]
LABELS = ["Bell", "Church bell", "Heart sounds, heartbeat", "Rain", "Siren", "Wind"]


@pytest.mark.parametrize(
    ("caption", "wrong"),
    [
        ("rain falls, then a bell tolls", "a bell tolls, then rain falls"),
        ("rain falls and then a bell tolls", "a bell tolls and then rain falls"),
        ("Rain falls and then a bell tolls.", "A bell tolls and then rain falls."),
        ("rain falls followed by a bell tolling", "after a bell tolling, rain falls"),
        ("rain falls, followed closely by a bell tolling", "after a bell tolling, rain falls"),
        ("a bell is followed by a loud siren", "after a loud siren, a bell"),
        ("after steady rain, a bell tolls", "a bell tolls followed by steady rain"),
        ("before the rain starts, a bell tolls", "after the rain starts, a bell tolls"),
        ("rain falls before a bell tolls", "a bell tolls before rain falls"),
        ("rain falls after a bell tolls", "a bell tolls after rain falls"),
        (
            "rain falls, then a bell tolls, and finally a dog barks",
            "a bell tolls, then rain falls, and finally a dog barks",
        ),
        (
            "rain falls followed by a bell tolling and then wind blowing",
            "rain falls followed by wind blowing and then a bell tolling",
        ),
        ("rain falls, then a bell tolls followed by a dog", "a bell tolls, then rain falls followed by a dog"),
        ("rain falls while wind blows, then a bell tolls", "a bell tolls, then rain falls while wind blows"),
    ],
)
def test_the_order_of_events_is_swapped(caption: str, wrong: str) -> None:
    assert foils.swap_order(caption) == wrong


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "rain falls",
        "rain falls while a bell tolls",
        "a siren wails, then a siren wails",
        "a siren wails, then a siren wails loudly",
        "a dog barks and then growls",
        "a dog barks every now and then while rain falls",
        "one car after another passes by a bell",
        "a dog barks after a few seconds",
        "a car slows down before stopping at a light",
        "an engine idles and is then revved several times",
        "rain falls, then",
    ],
)
def test_nothing_is_made_of_captions_whose_order_cannot_be_turned(caption: str) -> None:
    assert foils.swap_order(caption) is None


@pytest.mark.parametrize("caption", ["rain falls, then a bell tolls", "Rain falls before a bell tolls."])
def test_a_swap_of_two_equal_forms_is_its_own_reverse(caption: str) -> None:
    wrong = foils.swap_order(caption)
    assert wrong is not None and foils.swap_order(wrong) == caption


def test_a_label_that_shares_a_word_with_a_tag_is_not_absent() -> None:
    assert [label for label in LABELS if foils.is_absent(label, ["Bell", "Rain"])] == [LABELS[2], "Siren", "Wind"]
    rng = np.random.default_rng(0)
    assert {foils.draw_absent(LABELS, ["Bell", "Rain"], rng) for _ in range(50)} == {LABELS[2], "Siren", "Wind"}
    assert foils.draw_absent(["Bell", "Church bell"], ["Bell"], rng) is None


def test_statements_differ_in_the_second_sound_only() -> None:
    assert foils.presence("bell", "wind", "rain") == ("rain and bell", "rain and wind")
    assert foils.presence("bell", "wind") == ("bell", "wind")
    assert foils.negation("bell", "wind", "rain") == ("rain without wind", "rain without bell")
    assert foils.negation("bell", "wind") == ("no wind", "no bell")
    assert audioset.label_text("Heart sounds, heartbeat") == "heart sounds"


def test_order_leaves_captions_as_they_are_and_marks_those_without_a_negative() -> None:
    captions = ["rain falls, then a bell tolls", "a siren wails", "wind", "rain falls followed by a siren"]
    drawn = hard_negatives.draw(captions, TAGS, ("order",), (), seed=0)
    assert drawn.texts == captions and drawn.made.tolist() == [True, False, False, True]
    assert drawn.wrong == ["a bell tolls, then rain falls", "", "", "after a siren, rain falls"]


def test_absence_states_what_is_so_and_denies_it_in_the_same_form() -> None:
    """Over many batches: half of the captions of clips with tags give way; what is stated is true, what is wrong is not."""
    captions, stated = ["a caption"] * len(TAGS), 0
    for seed in range(200):
        texts, wrongs, made = hard_negatives.draw(captions, TAGS, ("absence",), LABELS, seed)
        assert [text != "a caption" for text in texts] == made.tolist() == [bool(wrong) for wrong in wrongs]
        assert not made[2]
        for text, wrong, tags in zip(texts, wrongs, TAGS, strict=True):
            if wrong:
                stated += 1
                assert holds(text, tags) and not holds(wrong, tags), (text, wrong, tags)
    assert 250 < stated < 350  # of 600 clips with tags


def holds(statement: str, tags: list[str]) -> bool:
    """Whether a statement is true of a clip with these tags."""
    present = {audioset.label_text(tag) for tag in tags}
    if " without " in statement or statement.startswith("no "):
        beside, _, absent = statement.removeprefix("no ").rpartition(" without ")
        return absent not in present and (not beside or beside in present)
    return all(part in present for part in statement.split(" and "))


def test_a_seed_gives_one_batch() -> None:
    captions = ["rain falls, then a bell tolls"] * 4
    batches = [hard_negatives.draw(captions, TAGS, ("order", "absence"), LABELS, seed) for seed in (0, 0, 1)]
    assert batches[0][:2] == batches[1][:2] and batches[0].texts != batches[2].texts
    texts, wrongs, _ = batches[0]
    assert {w for t, w in zip(texts, wrongs, strict=True) if t == captions[0]} == {"a bell tolls, then rain falls"}

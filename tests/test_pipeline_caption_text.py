"""From the answer of a language model to a caption."""

import pytest

from pipeline.graph import caption_text

OPENING, SENTENCE, WORDS = "cut_openings", "cut_sentences", "cut_words"


@pytest.mark.parametrize(
    ("answer", "text", "cuts"),
    [
        ("A dog barks.", "A dog barks.", set()),
        ("  A dog\n barks. ", "A dog", {SENTENCE}),
        ("", "", set()),
        ('"A dog barks."', "A dog barks.", set()),
        ("**A dog barks.**", "A dog barks.", set()),
        ("The audio contains a dog that barks.", "a dog that barks.", {OPENING}),
        ("This audio clip features rain on a roof.", "rain on a roof.", {OPENING}),
        ("The short recording captures the sound of a bell.", "a bell.", {OPENING}),
        ("In this clip, a man speaks.", "a man speaks.", {OPENING}),
        ("Sure! Here is a caption: Rain falls.", "Rain falls.", {OPENING}),
        ("Here's a description of the recording:\nRain falls.", "Rain falls.", {OPENING}),
        ("You can hear birds.", "birds.", {OPENING}),
        ("Caption: birds sing", "birds sing", {OPENING}),
        ("The audio contains", "The audio contains", set()),
        ("The audio is of poor quality.", "The audio is of poor quality.", set()),
        ("The audio is loud.", "The audio is loud.", set()),
        ("A dog barks. A cat meows.", "A dog barks.", {SENTENCE}),
        ("A horn at 5.30 in the morning.", "A horn at 5.30 in the morning.", set()),
        ("Rain, e.g. on a roof, falls.", "Rain, e.g. on a roof, falls.", set()),
        ("one two three four five six", "one two three four five", {WORDS}),
        (
            "The sound contains one two three four five six. More.",
            "one two three four five",
            {OPENING, SENTENCE, WORDS},
        ),
    ],
)
def test_rules(answer: str, text: str, cuts: set[str]) -> None:
    found = caption_text.clean(answer, max_words=5 if "three" in answer else 40)
    assert (found.text, set(found.cuts)) == (text, cuts)
    assert caption_text.clean(found.text, max_words=40).text == found.text or not found.text

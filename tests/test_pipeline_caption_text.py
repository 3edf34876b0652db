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


@pytest.mark.parametrize(
    ("answer", "text", "cuts"),
    [
        ("<think>A dog?</think>Rain falls.", "Rain falls.", {"cut_thoughts"}),
        ("A dog? No.</think> Rain falls.", "Rain falls.", {"cut_thoughts"}),  # the server left out the first of the two
        ("[THINK]A dog?[/THINK] Rain falls.", "Rain falls.", {"cut_thoughts"}),
        ("<think>A dog barks. It is loud.", "", {"cut_thoughts"}),
        ("<think>A dog?</think><think>Or rain. It", "", {"cut_thoughts"}),
        ("A man is thinking aloud.", "A man is thinking aloud.", set()),
    ],
)
def test_thoughts_are_no_captions(answer: str, text: str, cuts: set[str]) -> None:
    found = caption_text.clean(answer, max_words=40)
    assert (found.text, set(found.cuts)) == (text, cuts)


@pytest.mark.parametrize(
    ("answer", "text"),
    [("A dog barks.", "A dog barks."), ("A dog barks. A ca", "A dog barks."), ("Rain, e.g. on a ro", ""), ("A do", "")],
)
def test_a_sentence_that_the_limit_cut_is_no_caption(answer: str, text: str) -> None:
    found = caption_text.clean(answer, max_words=40, at_limit=True)
    assert found.text == text and found.cuts["cut_tokens"] == 1

"""Captions that are wrong in one respect: the order of the events, or a sound that is not there.

Training takes them as hard negatives, evaluation compares them with the right captions. A foil has the words and the form
of a right caption wherever that can be had, so that text alone does not show which of the two is wrong. Sources: NegCLIP
(Yuksekgonul et al. 2023, arXiv 2210.01936), and CompA (Ghosh et al. 2024, arXiv 2310.08753) for audio.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

_THEN = r",?\s+(?:and\s+|but\s+)?(?:then|finally|afterwards|subsequently|later)\s+"
_FOLLOWED = r",?\s+(?:and\s+|is\s+|are\s+)?followed\s+(?:closely\s+|shortly\s+|quickly\s+)?by\s+"
_JOINED = re.compile(f"({_THEN}|{_FOLLOWED})", re.IGNORECASE)
_LEADING = re.compile(r"(after|before)\s+([^,]+),\s+(.+)", re.IGNORECASE)
_MIDDLE = re.compile(r"(.+?),?\s+(before|after)\s+(.+)", re.IGNORECASE)
_NO_ORDER = re.compile(r"\b(?:now and then|after another|after the other|one after)\b", re.IGNORECASE)
_NO_EVENT = re.compile(r"\w+ing\b|.*\b(?:seconds?|minutes?|moments?|while|which|that|it)\b", re.IGNORECASE)
_FUNCTION_WORDS = frozenset(
    ("a", "an", "the", "of", "in", "on", "by", "and", "or", "to", "with", "is", "are", "being", "some", "it", "its")
)
MAX_DRAWS = 20  # of a label, until one is absent


class Statement(NamedTuple):
    """A right text, and a wrong one of the same form."""

    right: str
    wrong: str


def swap_order(caption: str) -> str | None:
    """Return a caption with two of its events in the opposite order; None where it names no order that can be turned.

    "A, then B" becomes "B, then A", "A followed by B" becomes "after B, A", and "after A, B" becomes "B followed by A": the
    parts stay clauses or noun phrases as the connective needs them. Nothing is made of halves of which one has no words
    but the other's, such as "a siren wails, then a loud siren wails". Synonyms are not recognised.
    """
    text = caption.strip()
    end = "." if text.endswith(".") else ""
    capital = text[:1].isupper() and not text[1:2].isupper()
    swapped = None if _NO_ORDER.search(text) else _swap(_lower(text.rstrip(".")) if capital else text.rstrip("."))
    if swapped is None:
        return None
    return (swapped[0].upper() + swapped[1:] if capital else swapped) + end


def _swap(text: str) -> str | None:
    if found := _LEADING.fullmatch(text):
        connective, first, second = found.groups()
        wrong = f"{second} followed by {first}" if connective.lower() == "after" else f"after {first}, {second}"
        return wrong if _differ(first, second) else None
    pieces = _JOINED.split(text)  # event, connective, event, ...
    for i in range(1, len(pieces), 2):
        if "followed" not in pieces[i].lower():
            before, after = pieces[i - 1].strip(" ,"), pieces[i + 1].strip(" ,")
            wrong = "".join([*pieces[: i - 1], after, pieces[i], before, *pieces[i + 2 :]])
            return wrong if _differ(before, after) else None
    if len(pieces) > 1:
        before, after = pieces[0].strip(" ,"), "".join(pieces[2:]).strip(" ,")
        return f"after {after}, {before}" if _differ(before, after) else None
    if found := _MIDDLE.fullmatch(text):
        first, connective, second = found.groups()
        return f"{second} {connective} {first}" if _differ(first, second) and not _NO_EVENT.match(second) else None
    return None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _differ(first: str, second: str) -> bool:
    """Return whether two parts of a caption are events of their own: whole, of two words or more, other words in each."""
    if min(len(first.split()), len(second.split())) < 2 or first.split()[-1].lower() in _FUNCTION_WORDS:
        return False
    one, two = content_words(first), content_words(second)
    return not (one <= two or two <= one)


@lru_cache(maxsize=10_000)
def content_words(text: str) -> frozenset[str]:
    """Return the words of a text without articles, prepositions and the like, in lower case."""
    return frozenset(re.findall(r"[\w']+", text.lower())) - _FUNCTION_WORDS


def is_absent(label: str, tags: Iterable[str]) -> bool:
    """Return whether a label is neither among the tags of a clip nor shares a word with one of them.

    "Church bell" counts as present where "Bell" is a tag. Synonyms and superclasses in other words are not recognised.
    """
    return all(label != tag and not content_words(label) & content_words(tag) for tag in tags)


def draw_absent(labels: Sequence[str], tags: Sequence[str], rng: np.random.Generator) -> str | None:
    """Draw a label that is absent from a clip; None where `MAX_DRAWS` draws find none."""
    drawn = (labels[i] for i in rng.integers(len(labels), size=MAX_DRAWS))
    return next((label for label in drawn if is_absent(label, tags)), None)


def presence(present: str, absent: str, beside: str = "") -> Statement:
    """State which sounds there are: "rain and bell", and wrongly "rain and siren"; `beside` is another present one."""
    start = f"{beside} and " if beside else ""
    return Statement(start + present, start + absent)


def negation(present: str, absent: str, beside: str = "") -> Statement:
    """State which sound is absent: "rain without siren", and wrongly "rain without bell"; `beside` is a present one.

    The wrong text does not contradict itself: only the audio shows that it is wrong.
    """
    start = f"{beside} without " if beside else "no "
    return Statement(start + absent, start + present)

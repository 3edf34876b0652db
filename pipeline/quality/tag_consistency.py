"""Checks of captions without a model: length, equality, and whether a caption agrees with its clip's tags.

Pure functions of text. A verdict is stored beside the caption, and thresholds are chosen for training or export.

The audit finds the phrases that name events, by the names of labels and the tables of pipeline/quality/lexicon.py. A tag
explains an event when it is the same label, an ancestor or a descendant in the ontology, or a label that listeners confuse
with it. Siblings do not explain each other: a cat is not a dog. Tags are incomplete: annotators leave out speech, wind and
birds beside louder sounds. Such an event counts as hallucinated only where nothing else in the caption agrees with the tags.
"""

import functools
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

from pipeline.quality import lexicon

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
MAX_FREE_ORDER = 3  # words: up to here "birds chirp" is also "chirping birds"

Stems = tuple[str, ...]


class Verdict(NamedTuple):
    """How a caption agrees with its clip's tags."""

    num_words: int
    hallucinated_events: list[str]  # that the caption mentions and no tag explains: sorted display names
    omitted_tags: list[str]  # that no word of the caption mentions: sorted


class _Phrase(NamedTuple):
    """A run of stems that may mean any of `senses`."""

    stems: Stems
    senses: tuple[str, ...]  # display names, the plain one first
    is_event: bool  # False: weak evidence, which can explain a tag but is never a hallucinated event


class _Tag(NamedTuple):
    """A tag and the labels of the lexicon that it stands for."""

    name: str
    words: Stems
    labels: tuple[str, ...]  # the tag itself, or the labels that the words of an unknown tag mention
    is_known: bool


def num_words(caption: str) -> int:
    """Count the words: runs of letters and digits, with apostrophes inside."""
    return len(WORD.findall(caption))


def normalise(caption: str) -> str:
    """Return the words in lower case, one space between, without punctuation: to count equal captions."""
    return " ".join(WORD.findall(caption.lower()))


@functools.lru_cache(maxsize=1 << 16)  # captions have few different words
def stem(word: str) -> str:
    """Return the stem of an English word in lower case: "barks", "barked", "barking" become "bark"."""
    word = re.sub("['’].*", "", word)
    if not hasattr(_of_thread, "stemmer"):
        import snowballstemmer  # here: it loads thirty languages, and the command line needs none

        _of_thread.stemmer = snowballstemmer.stemmer("english")  # it holds the word that it works on
    return str(_of_thread.stemmer.stemWord(lexicon.IRREGULAR.get(word, word)))


_of_thread = threading.local()


def _split(text: str) -> Stems:
    return tuple(stem(word) for word in WORD.findall(text.lower()) if word not in lexicon.SKIPPED)


class Lexicon:
    """The words that name the events of one vocabulary, and which of its labels are relatives.

    Args:
        names: {mid: display name}, or {name: name} in a vocabulary without mids.
        children: the ontology's children by mid; without it only equal labels are relatives.
    """

    def __init__(self, names: dict[str, str], children: Mapping[str, Sequence[str]] | None = None) -> None:
        self._tags: dict[str, _Tag] = {}  # cached: clips have few different tags
        self._named = {key: name for name in names.values() for key in (_split(name), normalise(name))}
        below = _descendants(children or {})
        self._below = {name: {names[m] for m in below.get(mid, ()) if m in names} for mid, name in names.items()}
        self._above = {name: {n for n, lower in self._below.items() if name in lower} for name in self._below}
        self._explains = {name: {name} | self._below[name] | self._above[name] for name in self._below}
        for group in lexicon.CONFUSABLE_GROUPS:
            families = [{n for head in self._pick(member) for n in (head, *self._below[head])} for member in group]
            for one, other in permutations(families, 2):
                for name in one:
                    self._explains[name] |= other
        self._background = set(self._pick(lexicon.BACKGROUND))
        self._ambience = set(self._pick(lexicon.AMBIENCE))
        self._no_evidence = {*self._ambience, *self._pick(lexicon.AMBIGUOUS), *self._pick(lexicon.UBIQUITOUS)}
        self._superclasses = set(self._pick(lexicon.SUPERCLASSES))
        self._phrases: dict[str, list[_Phrase]] = {}
        for phrase in sorted(self._collect(), key=lambda phrase: -len(phrase.stems)):
            self._phrases.setdefault(phrase.stems[0], []).append(phrase)

    def mentions(self, caption: str) -> set[str]:
        """Return the display names of the events that the caption names, each word in its plain sense."""
        return {phrase.senses[0] for phrase in self._find(_split(caption))[0] if phrase.is_event}

    def audit(self, caption: str, tags: Sequence[str]) -> Verdict:
        """Compare a caption with its clip's tags; tags unknown to the lexicon are compared by their own words.

        A clip without tags, or with tags of its acoustic environment only, has no hallucinated events.
        """
        stems = _split(caption)
        phrases, overlapping = self._find(stems)
        known_tags = [self._tag(tag) for tag in tags]
        sources = [tag for tag in known_tags if self._ambience.isdisjoint(tag.labels)]
        senses = {sense for phrase in overlapping for sense in phrase.senses}
        omitted = {tag.name for tag in known_tags if not self._is_mentioned(tag, senses, set(stems))}
        return Verdict(num_words(caption), sorted(self._hallucinated(phrases, sources)), sorted(omitted))

    def _hallucinated(self, phrases: Sequence[_Phrase], tags: Sequence[_Tag]) -> set[str]:
        if not tags:
            return set()
        words = {word for tag in tags for word in tag.words}  # a caption that repeats the tags is never wrong
        labels = [label for tag in tags for label in tag.labels]
        unexplained = [p for p in phrases if not words.issuperset(p.stems) and not self._is_explained(p, labels)]
        events = {phrase.senses[0] for phrase in unexplained if phrase.is_event}
        # every other clip has speech: agreement on it is no evidence for the rest
        evidence = [label for label in labels if label not in self._no_evidence]
        agrees = any(self._is_explained(p, evidence) for p in phrases) if evidence else len(unexplained) < len(phrases)
        return events - self._background if agrees else events

    def _is_explained(self, phrase: _Phrase, labels: Sequence[str]) -> bool:
        for label in labels:
            explains = self._explains[label]
            if label in self._superclasses and not self._below[label].isdisjoint(labels):
                explains = {label} | self._above[label]  # "Animal, Dog" explains no cat
            if not explains.isdisjoint(phrase.senses):
                return True
        return False

    def _is_mentioned(self, tag: _Tag, senses: set[str], stems: set[str]) -> bool:
        if not tag.is_known:
            return not stems.isdisjoint(tag.words)
        labels = self._below[tag.labels[0]].union(tag.labels)
        return stems.issuperset(tag.words) or not labels.isdisjoint(senses) or not labels.isdisjoint(self._ambience)

    def _tag(self, tag: str) -> _Tag:
        if tag not in self._tags:
            words, name = _split(tag), self._label(tag)
            labels = (name,) if name else tuple(phrase.senses[0] for phrase in self._find(words)[0])
            self._tags[tag] = _Tag(tag, words, labels, bool(name))
        return self._tags[tag]

    def _find(self, stems: Stems) -> tuple[list[_Phrase], list[_Phrase]]:
        """Return the phrases from left to right, each the longest, without overlap; and all phrases, with overlap."""
        chosen, overlapping, free = [], [], 0
        for at, first in enumerate(stems):
            for phrase in self._phrases.get(first, ()):
                if stems[at : at + len(phrase.stems)] == phrase.stems:
                    overlapping.append(phrase)
                    if at >= free:
                        chosen.append(phrase)
                        free = at + len(phrase.stems)
        return chosen, overlapping

    def _label(self, text: str) -> str | None:
        """Return the label of this name, also in another inflection ("Insect" for "insects")."""
        return self._named.get(normalise(text)) or self._named.get(_split(text))

    def _pick(self, labels: str) -> list[str]:
        """Return those of the labels in a "|"-joined list that this vocabulary has, under its own names."""
        return [name for label in labels.split("|") if (name := self._label(label))]

    def _collect(self) -> Iterator[_Phrase]:
        """Yield one phrase for each run of stems in the tables and in the names."""
        plain: defaultdict[Stems, list[str]] = defaultdict(list)  # phrases with a sense that can be hallucinated
        others: defaultdict[Stems, list[str]] = defaultdict(list)
        for table in (lexicon.EVENTS, lexicon.WEAK_EVIDENCE):
            for texts, labels in table.items():
                senses = plain if table is lexicon.EVENTS and self._pick(labels.split("|")[0]) else others
                for text in texts.split(", "):
                    senses[_split(text)] += self._pick(labels)
        for _, part, name in sorted((*ranked, label) for label in self._below for ranked in _parts(label)):
            stems = _split(part)
            for order in permutations(stems) if len(stems) <= MAX_FREE_ORDER else [stems]:
                plain[order].append(name)
        never = self._ambience.union(self._pick(lexicon.AMBIGUOUS))
        cues = {_split(text) for texts in lexicon.WEAK_EVIDENCE for text in texts.split(", ")}
        for stems in filter(None, plain | others):
            if found := tuple(dict.fromkeys(plain[stems] + others[stems])):
                yield _Phrase(stems, found, bool(plain[stems]) and stems not in cues and found[0] not in never)


def _parts(name: str) -> Iterator[tuple[int, str]]:
    """Yield the parts of a display name with a rank: 0 a plain name, 1 one of several, 2 a qualified one."""
    head, _, qualifier = name.replace("_", " ").partition(" (")
    parts = [re.sub("^(and|or) ", "", part.strip()) for part in head.split(",")]
    for part in parts:
        yield 2 if qualifier else min(1, len(parts) - 1), part
        if qualifier:
            yield 0, f"{part} {qualifier}"


def _descendants(children: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Return all descendants of each node that has children."""
    below: dict[str, set[str]] = {}
    for node in children:
        found, stack = below.setdefault(node, set()), list(children[node])
        while stack:
            child = stack.pop()
            if child not in found:
                found.add(child)
                stack.extend(children.get(child, ()))
    return below

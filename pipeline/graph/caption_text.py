"""From the answer of a language model to a caption, by rules. What they cut is counted.

0. Thoughts go: <think>...</think>, also where the server has left out the first of these. Thoughts without an end have no
   caption after them. Counted as `cut_thoughts`.
1. Markdown, quotation marks around the whole, and repeated blanks go; they are not counted.
2. An opening goes: "Sure, here is a caption:", "The audio contains", "In this clip, ". Counted as `cut_openings`.
3. The first sentence stays. Counted as `cut_sentences`.
4. At most `max_words` words stay. Counted as `cut_words`.

An answer that an endpoint ended at --max-tokens is counted as `cut_tokens`. It gives a caption only where a sentence of it
has ended.
"""

import re
from collections import Counter
from typing import NamedTuple

NOUN = r"(?:audio|sound|recording|clip|track|file|soundscape)"
SUBJECT = rf"(?:the|this)\s+(?:\w+\s+)?{NOUN}(?:\s+(?:clip|file|recording|track))?"
VERB = r"(?:contains?|includes?|features?|consists?\s+of|captures?|presents?|depicts?|is\s+a\s+recording\s+of)"
OPENINGS = (
    re.compile(r"(?i)^(?:sure|certainly|of course)\b[^:.!\n]{0,80}[:.!]\s*"),
    re.compile(r"(?i)^(?:here\s+is|here's)\b[^:.\n]{0,80}:\s*"),
    re.compile(r"(?i)^(?:audio\s+)?(?:caption|description|answer)\s*:\s*"),
    re.compile(rf"(?i)^in\s+{SUBJECT}\s*,\s*"),
    re.compile(rf"(?i)^{SUBJECT}\s+{VERB}\s+"),
    re.compile(r"(?i)^(?:i|we|you|one)\s+(?:can\s+)?hear\s+"),
    re.compile(r"(?i)^the\s+sounds?\s+of\s+"),
)
SENTENCE_END = re.compile(r"[.!?](?=\s+[\"'(]?[A-Z0-9])|\n")
THOUGHTS = re.compile(r"(?is)^.*[<\[]/think(?:ing)?[>\]]")
OPEN_THOUGHT = re.compile(r"(?i)[<\[]think(?:ing)?[>\]]")
MARKDOWN = re.compile(r"[*_`#]+")
QUOTES = "\"'“”«» "


class CleanText(NamedTuple):
    """A caption, and which rules cut something from the answer."""

    text: str
    cuts: Counter[str]


def clean(answer: str, max_words: int, at_limit: bool = False) -> CleanText:
    """Return the caption in an answer; '' where there is none.

    Args:
        answer: of the model.
        max_words: that stay.
        at_limit: whether the answer ended at the limit of its tokens.
    """
    cuts = Counter({"cut_tokens": 1} if at_limit else {})
    text = THOUGHTS.sub("", answer)
    if text != answer or OPEN_THOUGHT.search(text):
        cuts["cut_thoughts"] = 1
    if OPEN_THOUGHT.search(text):
        return CleanText("", cuts)
    text = MARKDOWN.sub("", text).strip(QUOTES + "\n\t")
    for opening in OPENINGS:
        if (rest := opening.sub("", text, count=1)) != text and rest.strip():
            text = rest
            cuts["cut_openings"] = 1
    if end := SENTENCE_END.search(text):
        text = text[: end.end()]
        cuts["cut_sentences"] = 1
    elif at_limit and not text.endswith((".", "!", "?")):
        return CleanText("", cuts)
    words = text.split()
    if len(words) > max_words:
        words = words[:max_words]
        cuts["cut_words"] = 1
    return CleanText(" ".join(words).strip(QUOTES), cuts)

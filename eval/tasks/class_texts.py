"""Texts for the classes of a task, in the words of captions: a JSON file of {class: [text, ...]}."""

from collections.abc import Sequence

from pipeline import storage
from pipeline.errors import InputError


def read(file: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Return {class: texts} of a JSON file for these classes, in their order; {} where no file is named.

    Raises:
        InputError: when it cannot be read, or one of the classes has no text there.
    """
    if not file:
        return {}
    remedy = 'give a JSON file of {"class": ["text", ...]}'
    try:
        found = storage.read_json(storage.resolve(file))
    except (OSError, ValueError) as error:
        raise InputError("--class-texts", file, f"cannot be read ({error}); {remedy}") from None
    if not isinstance(found, dict):
        raise InputError("--class-texts", file, f"holds a {type(found).__name__}; {remedy}")
    for name in names:
        texts = found.get(name)
        if not (isinstance(texts, list) and texts and all(isinstance(text, str) and text.strip() for text in texts)):
            raise InputError("--class-texts", file, f"has no list of texts for the class {name!r}; {remedy}")
    return {name: found[name] for name in names}

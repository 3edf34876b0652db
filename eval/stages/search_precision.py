"""How good a search is: `python -m eval search-precision --index INDEX --class-texts class_texts.json`."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from eval.search import MAX_K, Mode, Searcher
from eval.search.config import IndexConfig
from eval.search.precision import DEPTH, ClassPrecision, measure
from eval.tasks import class_texts
from pipeline.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SearchPrecisionConfig(IndexConfig):
    """Measure the share of the first results of each class's texts that have the class as a tag."""

    class_texts: str = ""
    """JSON file of {class: [text, ...]} to search for, such as the one that `pipeline synth` writes; empty searches for
    the names of the tags."""
    mode: Mode = "embedding"
    """How to search, as in `eval search`."""
    k: int = 10
    """First results that count."""
    json: bool = False
    """Print JSON in place of a table."""


def run(config: SearchPrecisionConfig) -> None:
    """Print the table."""
    if not 1 <= config.k <= MAX_K // DEPTH:
        raise InputError("--k", config.k, f"use 1 to {MAX_K // DEPTH}")
    searcher = Searcher(config.index, config.model, config.device)
    names = sorted(name for name, _ in searcher.tags())
    if not names:
        raise InputError("--index", config.index, "its clips have no tags to compare with")
    texts = class_texts.read(config.class_texts, names) or {name: [name.lower()] for name in names}
    found = measure(searcher, texts, config.k, config.mode)
    if config.json:
        print(json.dumps([dataclasses.asdict(each) for each in found], indent=2, ensure_ascii=False))
    else:
        print(table(found, config.k))


def table(found: Sequence[ClassPrecision], k: int) -> str:
    """Return the classes as lines of a Markdown table, in per cent."""
    lines = [f"| class | texts | clips | chance | first {k} that have the tag |", "|---|---|---|---|---|"]
    for each in found:
        low, high = (100 * value for value in each.interval95)
        share = f"{100 * each.value:.1f} [{low:.1f}, {high:.1f}]"
        lines.append(f"| {each.name} | {each.queries} | {each.clips} | {100 * each.chance:.1f} | {share} |")
    return "\n".join(lines)

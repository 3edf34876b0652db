"""What differs, in sentences: made from the verdicts over runs and clips, never from the numbers alone."""

from collections.abc import Iterator

from eval.report.headline import Runs
from eval.results import compare
from eval.results.model_results import ModelResults


def sentences(runs: Runs) -> list[str]:
    """Return for every model but the first where it differs from the first, where it does not, and where nobody knows."""
    first, *others = runs
    return [sentence for name in others for sentence in _sentences(first, name, runs[name])]


def _sentences(first: str, name: str, result: ModelResults) -> Iterator[str]:
    found = {
        f"{evaluation} {title}": difference
        for evaluation, by_title in result.differences.items()
        if not isinstance(by_title, str)
        for title, difference in by_title.items()
    }
    for word, sign in (("above", 1), ("below", -1)):
        if numbers := [number for number, each in found.items() if each.differs == "yes" and sign * each.value > 0]:
            yield f"{name} is {word} {first}, over runs and clips, in {_listed(numbers)}."
    if numbers := [number for number, each in found.items() if each.differs == "no"]:
        yield f"No difference between {name} and {first} is shown in {_listed(numbers)}."
    if numbers := [number for number, each in found.items() if each.differs == compare.ONE_RUN]:
        yield (
            f"Whether {name} differs from {first} is not known in {_listed(numbers)}: one of them has one run, and another "
            "seed was not tried."
        )


def _listed(numbers: list[str]) -> str:
    *most, last = numbers
    return f"{', '.join(most)} and {last}" if most else last

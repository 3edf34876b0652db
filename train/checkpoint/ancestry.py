"""Where a model comes from, as columns of a table: read from the lineage that its checkpoint records."""

from collections.abc import Iterable, Iterator

from pipeline.dataset.authorship import SCORES
from train.checkpoint.info import Lineage

NOT_RECORDED = "-"
COLUMNS = (
    "made by",
    "from",
    "started from",
    "captions",
    "captioner",
    "tags given",
    "filter",
    "clips trained on",
)


def columns(lineage: Lineage) -> list[str]:
    """Return a cell for each of `COLUMNS`, with names and short revisions in place of paths."""
    generations: list[Lineage] = [
        generation for origin in lineage.get("origins", [lineage]) if (generation := origin.get("generation"))
    ]
    cells: tuple[Iterable[str], ...] = (
        [" ".join(filter(None, (lineage.get("stage"), lineage.get("layout"))))],
        map(_data_name, _data(lineage)),
        _starts(lineage),
        [_name(generation["out"]) for generation in generations if generation.get("out")],
        dict.fromkeys(
            [
                *(_captioner(generation) for generation in generations if generation.get("captioner")),
                *(_with_revision(each["model"], each.get("revision", "")) for each in _writers(lineage)),
            ]
        ),
        dict.fromkeys("yes" if "tags" in (generation.get("guidance") or ()) else "no" for generation in generations),
        dict.fromkeys(_filter(lineage, overlay) for overlay in _overlays(lineage)),
        [str(lineage.get("num_clips", ""))],
    )
    return [", ".join(filter(None, cell)) or NOT_RECORDED for cell in cells]


def makers(overlay: Lineage) -> Iterator[Lineage]:
    """Yield who made an overlay: of a choice its candidates, of scores the scorer and who wrote the captions."""
    if candidates := overlay.get("candidates"):
        for each in candidates:
            yield from makers(each)
        return
    yield overlay
    if scored := overlay.get("scored"):
        yield from makers(scored)


def _data(lineage: Lineage) -> list[str]:
    """Return the URIs of what was read."""
    values = [lineage[key] for key in ("weights", "data", "source", "labelled") if lineage.get(key)]
    return [uri for value in values for uri in ([value] if isinstance(value, str) else value)]


def _starts(lineage: Lineage) -> list[str]:
    starts = (("init", ""), ("init_audio", " (audio encoder)"))
    return [_name(lineage[key]) + part for key, part in starts if lineage.get(key)]


def _overlays(lineage: Lineage) -> list[Lineage]:
    """Return the overlays: a list has one for each dataset."""
    overlay = lineage.get("overlay")
    return overlay if isinstance(overlay, list) else [overlay] if overlay else []


def _writers(lineage: Lineage) -> list[Lineage]:
    """Return who wrote the captions of the overlays."""
    made_by = (each for overlay in _overlays(lineage) for each in makers(overlay))
    return [each for each in made_by if each.get("stage") != SCORES and each.get("model")]


def _filter(lineage: Lineage, overlay: Lineage) -> str:
    choice = "best caption of each clip" if lineage["best_only"] else "all captions"
    kept = f"best {100 * lineage['keep_fraction']:.0f} % of the clips"
    return f"{choice} by {_with_revision(overlay['model'], overlay['revision'])}, {kept}"


def _captioner(generation: Lineage) -> str:
    return _with_revision(generation["captioner"], generation.get("captioner_revision", ""))


def _with_revision(model: str, revision: str) -> str:
    """Return the name of a model with its revision; of a served model the name is all that is known."""
    return _name(model) + (f" ({revision[:12]})" if revision and revision != model else "")


def _name(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


def _data_name(uri: str) -> str:
    """Return the name of a dataset, and that of a file with its folder: many files are named metadata.csv."""
    name = _name(uri)
    return "/".join(uri.split("/")[-2:]) if "." in name else name

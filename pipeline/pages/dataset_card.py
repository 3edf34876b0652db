"""The dataset card, in the Hugging Face format: what a dataset of shards holds, where it came from, what was left out."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline import run_dir, storage
from pipeline.dataset import overlays, shards
from pipeline.dataset.statistics import Statistics, quantile
from pipeline.planning.plan import MatchedSets, Plan
from pipeline.quality.audio_filter import OFF, AudioFilterConfig

CARD_FILE = "README.md"
TEMPLATE = Path(__file__).with_name("dataset_card.md.jinja")
CAPTIONERS_BEGIN, CAPTIONERS_END = "<!-- captioners -->", "<!-- end of captioners -->"  # of a part that overlays renew
SHOWN_TAGS, SHOWN_WORDS, SHOWN_CAPTIONS = 50, 30, 12
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def render(
    data: str,
    plan: Plan,
    counts: dict[str, int],
    reasons: dict[str, int],
    found: Statistics,
    decoding: str,
) -> str:
    """Return the card as Markdown."""
    from huggingface_hub import DatasetCard, DatasetCardData  # its import takes most of a second

    run_config = storage.read_json(storage.join(data, run_dir.RUN_FILE))
    num_shards = len(plan.shards)
    card = DatasetCard.from_template(
        DatasetCardData(
            license=run_config["licence"],
            task_categories=["audio-classification", "text-to-audio"],
            tags=["audio", "audio-captioning", "webdataset", "synthetic"],
            size_categories=[next((name for limit, name in SIZES if found.clips < limit), "n>10M")],
            configs=[{"config_name": "default", "data_files": "*.tar"}],
        ),
        template_str=TEMPLATE.read_text(),
        counts=counts,
        hours=found.duration_s / 3600,
        found=found,
        num_shards=num_shards,
        listing=plan.listing.sentence() if plan.listing else "",
        provenance=_provenance(run_config, plan, decoding),
        reasons=_table(("reason", "clips"), sorted(reasons.items(), key=lambda item: -item[1]) or [("nothing", 0)]),
        retries=_retries(plan),
        evaluation_clips=_decontamination(plan.matched_sets, reasons),
        captions=_captions(found),
        times=_times(run_config, plan, found),
        captioners=_captioners(data, found.clips, found.captions),
        samples=_table(("key", "tags", "caption"), _samples(data)),
        words=found.words.most_common(SHOWN_WORDS),
        tags=_table(("tag", "clips"), found.tags.most_common(SHOWN_TAGS)),
        num_tags=min(SHOWN_TAGS, len(found.tags)),
        tar="00000.tar" if num_shards == 1 else f"{{00000..{num_shards - 1:05d}}}.tar",
    )
    return str(card)


def name_captioners(data: str) -> None:
    """Renew the part of a published card that names the captioners, as an overlay has come to the dataset."""
    uri = storage.join(data, CARD_FILE)
    if not storage.exists(uri):
        return
    card = storage.read_text(uri)
    if CAPTIONERS_BEGIN in card:
        before, _, rest = card.partition(CAPTIONERS_BEGIN)
        after = rest.partition(CAPTIONERS_END)[2]
    else:  # of an earlier version
        before, tags, after = card.partition("## Tags\n")
        before, after = before + "## Captioners\n\n", f"\n\n{tags}{after}"
    sizes = shards.sizes(data)
    ledgers = (overlays.read_clips(data, shard) for shard in sizes)
    captions = sum(len(row["text"]) for rows in ledgers for row in rows)
    storage.publish(uri, f"{before}{_captioners(data, sum(sizes.values()), captions)}{after}".encode())


def _captioners(data: str, clips: int, captions: int) -> str:
    """Return the table of who wrote the captions: the shards' own, then those of every overlay."""
    made = storage.read_json(storage.join(data, run_dir.RUN_FILE))
    own = made["captioner"].rstrip("/").rpartition("/")[2], *(f"{number:,}" for number in (clips, captions, clips)), ""
    head = ("captions", "captioner", "clips", "captions of it", "clips whose first is of it", "example")
    table = _table(head, [("the shards'", *own), *_overlay_captioners(data)])
    return f"{CAPTIONERS_BEGIN}\n{table}{CAPTIONERS_END}"


def _overlay_captioners(data: str) -> Iterator[tuple[str, ...]]:
    """Yield a row for each captioner of each complete overlay of captions; early overlays have no counts."""
    for name in storage.list_names(storage.join(data, overlays.FOLDER)):
        try:
            info = overlays.read_info(data, name)
        except FileNotFoundError:
            continue
        for captioner, counts in info.get("captioners", {}).items():
            numbers = (f"{counts[each]:,}" for each in ("clips", "captions", "first"))
            yield f"overlay `{name}`", captioner, *numbers, counts["example"]


def _provenance(run_config: dict[str, Any], plan: Plan, decoding: str) -> str:
    decodings = f"{decoding}, at most {run_config['decoding']['num_captions']}"
    decodings += f"; {run_config['samples']} more by nucleus sampling" if run_config["samples"] else ""
    rows = [
        (
            "source",
            f"`{run_config['source']}`" + (f", folds {', '.join(run_config['folds'])}" if run_config["folds"] else ""),
        ),
        ("captioner", f"`{run_config['captioner']}`, revision `{run_config['captioner_revision']}`"),
        ("guidance", ", ".join(run_config["guidance"])),
        *([("instruction", run_config["prompt"])] if run_config.get("prompt") else []),
        ("decoding, and captions for each guidance", decodings),
        ("arithmetic", run_config.get("arithmetic", "float32")),
        (
            "left out for its sound",
            run_dir.restore(AudioFilterConfig, run_config["audio_filter"]) if "audio_filter" in run_config else OFF,
        ),
        ("plan", f"`{plan.hash}`"),
        ("licence", f"{run_config['licence']}; that of the audio is its source's"),
    ]
    return _table(("", ""), rows)


def _retries(plan: Plan) -> str:
    lines = [
        f"Tried again in shards {retry.first_shard:05d} to {retry.first_shard + retry.num_shards - 1:05d}: "
        + ", ".join(f"{count} {reason}" for reason, count in retry.reasons.items())
        for retry in plan.retries
    ]
    return "\n".join([*lines, ""]) if lines else ""


def _decontamination(matched_sets: MatchedSets, reasons: dict[str, int]) -> str:
    rows = [
        (
            one.set,
            f"`{one.list.rpartition('/')[2]}`",
            f"{one.ids:,}",
            "allowed" if one.allowed else f"{matched_sets.excluded.get(one.set, 0):,}",
        )
        for one in matched_sets.lists
    ]
    text = _table(("evaluation set", "list", "ids", "clips excluded"), rows) if rows else ""
    if excluded := reasons.get("evaluation_audio"):
        text += f"\n{excluded:,} more clips sound like an evaluation clip.\n"
    if matched_sets.unchecked:
        text += f"\n**Not checked, no list was given:** {', '.join(matched_sets.unchecked)}.\n"
    return text


def _captions(found: Statistics) -> str:
    per_clip = ", ".join(f"{n:,} clips with {count}" for count, n in sorted(found.per_clip.items()))
    middle = [quantile(found.lengths, share) for share in (0.05, 0.5, 0.95)]
    rows = [
        ("captions", f"{found.captions:,}, {found.distinct:,} of them different"),
        ("for each clip", per_clip or "none"),
        ("words", f"median {middle[1]}, 5 % below {middle[0]}, 5 % above {middle[2]}"),
        ("vocabulary", f"{len(found.words):,} words"),
        ("clips with the very audio of an earlier one", f"{found.copies:,}"),
    ]
    return _table(("", ""), rows)


def _times(run_config: dict[str, Any], plan: Plan, found: Statistics) -> str:
    """Return how many clips have phrases with times, and by what these are known; '' without --timed."""
    if not run_config.get("timed"):
        return ""
    revision, by = run_config.get("frame_tagger_revision", ""), run_config["timed_by"]
    labels = f"strong labels of the source, which {plan.num_timed or 0:,} of the planned clips have"
    name = by["tagger"].rstrip("/").rpartition("/")[2]
    tagger = f"frames of `{name}`, revision `{revision}`, from probability {by['threshold']:g} on"
    rows = [
        ("clips whose phrases and times are known", f"{found.timed:,} of {found.clips:,}"),
        ("phrases in them", f"{found.phrases:,}, with {found.segments:,} segments"),
        ("known by", labels),
        *([("for the other clips by", tagger)] if revision else []),
    ]
    return _table(("", ""), rows)


def _samples(data: str) -> Iterable[tuple[str, str, str]]:
    """Return some captions, evenly spaced over the first shard."""
    first = storage.read_table(storage.join(data, shards.ledger_name(0))).to_pylist()
    written = [row for row in first if row["status"] == "written"]
    for row in written[:: max(1, len(written) // SHOWN_CAPTIONS)][:SHOWN_CAPTIONS]:
        yield f"`{row['key']}`", ", ".join(row["tags"]), row["text"][0]


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    cells = ((str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows)
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells), ""])

"""The dataset card, in the Hugging Face format: what a dataset of shards holds, where it came from, what was left out."""

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline import run_dir, storage
from pipeline.dataset import shards
from pipeline.dataset.statistics import Statistics, quantile
from pipeline.planning import plan
from pipeline.quality.audio_filter import OFF, AudioFilterConfig
from pipeline.sources import ListingStats

CARD_FILE = "README.md"
SHOWN_TAGS, SHOWN_WORDS, SHOWN_CAPTIONS = 50, 30, 12
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def render(
    data: str,
    planned: dict[str, Any],
    counts: dict[str, int],
    reasons: dict[str, int],
    found: Statistics,
    decoding: str,
) -> str:
    """Return the card as Markdown."""
    owner = storage.read_json(storage.join(data, run_dir.RUN_FILE))
    tar = "00000.tar" if plan.num_shards(planned) == 1 else f"{{00000..{plan.num_shards(planned) - 1:05d}}}.tar"
    parts = [
        _front(owner, found),
        "# Caption shards\n",
        f"{counts['in']:,} clips planned = {counts['written']:,} written + {counts['filtered']:,} filtered + "
        f"{counts['failed']:,} failed. {found.duration_s / 3600:,.2f} hours of audio with {found.captions:,} captions, in "
        f"{plan.num_shards(planned):,} shards.\n",
        "## Where it comes from\n",
        _provenance(owner, planned, decoding),
        "## What was left out\n",
        *(
            [f"Listing the source: {ListingStats.from_json(planned['listing']).sentence()}.\n"]
            if "listing" in planned
            else []
        ),
        _table(("reason", "clips"), sorted(reasons.items(), key=lambda item: -item[1]) or [("nothing", 0)]),
        _retries(planned),
        "### Evaluation clips\n",
        _firewall(planned, reasons),
        "## Captions\n",
        _captions(found),
        _table(("key", "tags", "caption"), _samples(data)),
        f"Most frequent words: {', '.join(f'{word} {n}' for word, n in found.words.most_common(SHOWN_WORDS))}.\n",
        f"## Tags\n\n{len(found.tags)} tags; the {min(SHOWN_TAGS, len(found.tags))} most frequent of the written clips:\n",
        _table(("tag", "clips"), found.tags.most_common(SHOWN_TAGS)),
        "## Reading it\n",
        READING.replace("TAR", tar),
    ]
    return "\n".join(parts)


READING = """Plain WebDataset tars of `<key>.flac` (32 kHz, mono, 16-bit) and `<key>.json` (`text`, `tag` and more);
webdataset, Hugging Face `datasets`, open_clip and LAION-CLAP read them. `NNNNN.parquet` is the ledger of every
planned clip, `NNNNN_stats.json` the counts of a shard.

```python
import webdataset

for sample in webdataset.WebDataset("TAR", shardshuffle=False).decode():
    print(sample["__key__"], sample["json"]["text"])
```
"""


def _front(owner: dict[str, Any], found: Statistics) -> str:
    size = next((name for most, name in SIZES if found.clips < most), "n>10M")
    return f"""---
license: {owner["licence"]}
task_categories:
- audio-classification
- text-to-audio
tags:
- audio
- audio-captioning
- webdataset
- synthetic
size_categories:
- {size}
configs:
- config_name: default
  data_files: "*.tar"
---
"""


def _provenance(owner: dict[str, Any], planned: dict[str, Any], decoding: str) -> str:
    decodings = f"{decoding}, at most {owner['decoding']['num_captions']}"
    decodings += f"; {owner['samples']} more by nucleus sampling" if owner["samples"] else ""
    rows = [
        ("source", f"`{owner['source']}`" + (f", folds {', '.join(owner['folds'])}" if owner["folds"] else "")),
        ("captioner", f"`{owner['captioner']}`, revision `{owner['captioner_revision']}`"),
        ("guidance", ", ".join(owner["guidance"])),
        ("decoding, and captions for each guidance", decodings),
        ("arithmetic", owner.get("arithmetic", "float32")),
        (
            "left out for its sound",
            run_dir.restore(AudioFilterConfig, owner["audio_filter"]) if "audio_filter" in owner else OFF,
        ),
        ("plan", f"`{planned['hash']}`"),
        ("licence", f"{owner['licence']}; that of the audio is its source's"),
    ]
    return _table(("", ""), rows)


def _retries(planned: dict[str, Any]) -> str:
    lines = [
        f"Tried again in shards {r['first_shard']:05d} to {r['first_shard'] + r['num_shards'] - 1:05d}: "
        + ", ".join(f"{n} {reason}" for reason, n in r["reasons"].items())
        for r in planned["retries"]
    ]
    return "\n".join([*lines, ""]) if lines else ""


def _firewall(planned: dict[str, Any], reasons: dict[str, int]) -> str:
    wall = planned["firewall"]
    rows = [
        (
            one["set"],
            f"`{one['list'].rpartition('/')[2]}`",
            f"{one['ids']:,}",
            "allowed" if one["allowed"] else _excluded(wall, one),
        )
        for one in wall["lists"]
    ]
    told = _table(("evaluation set", "list", "ids", "clips excluded"), rows) if rows else ""
    if heard := reasons.get("evaluation_audio"):
        told += f"\n{heard:,} more clips sound like an evaluation clip.\n"
    if wall["unchecked"]:
        told += f"\n**Not checked, no list was given:** {', '.join(wall['unchecked'])}.\n"
    return told


def _excluded(wall: dict[str, Any], one: dict[str, Any]) -> str:
    return f"{wall['excluded'].get(one['set'], 0):,}"


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

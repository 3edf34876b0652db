"""The dataset card: what is in a dataset of shards, where it came from, and ten captions to read."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from pipeline import cli, shards, storage
from train.models.decoding import Decoding

CARD_FILE = "README.md"


def render(data: str, planned: dict[str, Any], counts: dict[str, int], reasons: dict[str, int]) -> str:
    """Return the card as Markdown."""
    owner = storage.read_json(storage.join(data, cli.RUN_FILE))
    decoding = Decoding(**owner["decoding"])
    ended = "".join(f"| {reason} | {count} |\n" for reason, count in sorted(reasons.items())) or "| none | 0 |\n"
    tags = "".join(f"| {name} | {count} |\n" for name, count in planned["tags"].items())
    samples = "".join(f"| `{key}` | {', '.join(tag)} | {text[0]} |\n" for key, tag, text in islice(_written(data), 10))
    return f"""# Caption shards

{counts["in"]} clips planned = {counts["written"]} written + {counts["filtered"]} filtered + {counts["failed"]} failed,
in {planned["num_shards"]} shards. Plan hash `{planned["hash"]}`.

- source: `{owner["source"]}`
- captioner: `{owner["captioner"]}`, revision `{owner["captioner_revision"]}`
- guidance: {owner["guidance"]}; decoding: {decoding}; captions per clip: at most {decoding.num_captions}

| left out because | clips |
|---|---|
{ended}
| key | tags | caption |
|---|---|---|
{samples}
| tag | clips |
|---|---|
{tags}
Format: WebDataset tars of `<key>.flac` and `<key>.json`; `NNNNN.parquet` is the ledger of every planned clip.
"""


def _written(data: str) -> Iterator[tuple[str, list[str], list[str]]]:
    for shard in shards.committed(data):
        for row in storage.read_table(storage.join(data, shards.ledger_name(shard))).to_pylist():
            if row["status"] == "written":
                yield row["key"], row["tags"], row["text"]

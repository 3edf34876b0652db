"""Prove a dataset of shards whole, offline: `python -m pipeline verify --data <dataset>`.

Reads every byte: counts add up, hashes match, no key twice, every tar is readable in order, every FLAC decodes to the length
that its ledger states. The message lists what is wrong by shard; the exit code is 1.
"""

import hashlib
import io
import json
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from pipeline import audio, storage
from pipeline.dataset import shards
from pipeline.dataset.shard_stats import ShardStats
from pipeline.errors import InputError, JobError
from pipeline.graph import engine
from pipeline.graph.finalize import SIZES_FILE
from pipeline.planning.plan import Plan, read_plan
from pipeline.planning.tables import PlanRow
from pipeline.progress import Progress

log = logging.getLogger(__name__)
SHOWN = 20
SHARD_REPORT = pa.schema(
    [
        ("shard", pa.int32()),
        ("clips", pa.int64()),
        ("written", pa.int64()),
        ("wrong", pa.list_(pa.string())),
        ("keys", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Check every byte of a dataset of shards."""

    data: str = ""
    """Dataset of shards that `pipeline caption` wrote."""
    in_process: bool = False
    """Work in this process, without Ray: it starts at once, suits one machine, and breakpoints work."""


def run(config: VerifyConfig) -> None:
    """Check the shards in parallel and the dataset as a whole.

    Raises:
        JobError: with what is wrong.
    """
    if not config.data:
        raise InputError("--data", config.data, "give the --out of a `python -m pipeline caption`")
    data = storage.resolve(config.data)
    plan = read_plan(data)
    if plan is None:
        raise InputError("--data", config.data, "has no plan.json: no dataset of shards")
    wrong = list(_check_names(data, plan))
    numbers = [shard for shard in shards.committed(data) if shard in plan.shards]
    progress = Progress("verify", "clips", sum(part.num_clips for part in (plan, *plan.retries)))
    keys: list[np.ndarray] = [np.empty(0, np.int64)]
    sizes: dict[str, int] = {}
    task = engine.Tasks(partial(check, data=data, plan=plan))
    for row in engine.rows(numbers, task, in_process=config.in_process):
        wrong += row["wrong"]
        keys.append(np.array(row["keys"], np.int64))
        sizes[shards.tar_name(row["shard"])] = row["written"]
        progress.add(row["clips"])
    wrong += _check_sizes(data, sizes)
    if len(np.unique(all_keys := np.concatenate(keys))) < len(all_keys):
        wrong.append("a key is written twice: it is in more than one shard")
    if wrong:
        more = f"\n  and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise JobError(f"{config.data}: {len(wrong)} things are wrong\n  " + "\n  ".join(wrong[:SHOWN]) + more)
    log.info("verify: %s: %d shards with %d clips are whole", data, len(numbers), progress.done)


def check(batch: pa.Table, data: str, plan: Plan) -> pa.Table:
    """Check one shard; returns a row of SHARD_REPORT."""
    (shard,) = batch["shard"].to_pylist()
    rows, wrong, keys, written = [], [], [], -1
    try:
        rows = plan.read_shard(data, shard)
        stats = shards.read_stats(data, shard)
        written = stats.written
        tar = storage.read(storage.join(data, shards.tar_name(shard)))
        ledger = storage.read_table(storage.join(data, shards.ledger_name(shard))).to_pylist()
        wrong = list(_check_shard(plan.part_of(shard).hash, rows, stats, tar, ledger))
        keys = [hash_of(row["key"]) for row in ledger if row["status"] == "written"]
    except (OSError, ValueError, KeyError, pa.ArrowException, tarfile.TarError) as error:
        wrong = [f"{type(error).__name__}: {error}"]
    messages = [f"shard {shard:05d}: {what}" for what in wrong]
    row = {"shard": shard, "clips": len(rows), "written": written, "wrong": messages, "keys": keys}
    return pa.Table.from_pylist([row], schema=SHARD_REPORT)


def hash_of(key: str) -> int:
    """Return 63 bits of a key, the same in every process."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1


def _check_names(data: str, plan: Plan) -> Iterator[str]:
    """Look at the dataset as a whole: every shard there, none too many, and what names them in agreement."""
    wanted, committed = set(plan.shards), set(shards.committed(data))
    if missing := sorted(wanted - committed):
        yield f"not committed: shards {_shorten(missing)}; `pipeline caption` with the same flags fills them"
    if extra := sorted(committed - wanted):
        yield f"not in the plan: shards {_shorten(extra)}"
    names = set(storage.list_names(data))
    tars = {shards.tar_name(shard) for shard in wanted}
    if strangers := sorted(name for name in names if name.endswith(".tar") and name not in tars):
        yield f"tars that no plan names: {strangers[:SHOWN]}"


def _check_sizes(data: str, found: dict[str, int]) -> Iterator[str]:
    """Compare sizes.json with what the commit marks state."""
    uri = storage.join(data, SIZES_FILE)
    if not storage.exists(uri):
        yield "no sizes.json: the dataset is not finished"
        return
    try:
        agrees = storage.read_json(uri) == found
    except ValueError:
        agrees = False
    if not agrees:
        yield "sizes.json does not agree with the shards"


def _shorten(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:SHOWN])) + (f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else "")


def _check_shard(
    plan_hash: str, rows: list[PlanRow], stats: ShardStats, tar: bytes, ledger: list[shards.ClipRow]
) -> Iterator[str]:
    if [row["key"] for row in ledger] != [row["key"] for row in rows]:
        yield "its ledger does not list the planned clips"
    if stats.plan_hash != plan_hash:
        yield "is of another plan"
    statuses = [row["status"] for row in ledger]
    counted = {"in": len(ledger), **{status: statuses.count(status) for status in ("written", "filtered", "failed")}}
    if stats.counts != counted or counted["in"] != sum(counted.values()) - counted["in"]:
        yield f"its counts do not add up: ledger {counted}, stats {stats.counts}"
    if len(tar) != stats.tar_size or hashlib.sha256(tar).hexdigest() != stats.tar_sha256:
        yield f"its tar has {len(tar)} bytes and is not the one that was committed ({stats.tar_size} bytes)"
        return
    written = [row for row in ledger if row["status"] == "written"]
    with tarfile.open(fileobj=io.BytesIO(tar)) as file:
        members = [(member.name, member.offset_data, member.size) for member in file]
    if members != [member for row in written for member in _stated_members(row)]:
        yield "its tar does not hold the members that the ledger states, in their order"
        return
    for row in written:
        yield from _check_clip(row, tar)


def _stated_members(row: shards.ClipRow) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of the members of a clip."""
    yield f"{row['key']}.flac", row["flac_offset"], row["flac_size"]
    yield f"{row['key']}.json", row["json_offset"], row["json_size"]


def _check_clip(row: shards.ClipRow, tar: bytes) -> Iterator[str]:
    flac, text = (shards.member(tar, row, kind) for kind in ("flac", "json"))
    if hashlib.sha256(flac).hexdigest() != row["sha256"]:
        yield f"{row['key']}: the audio is not what was written"
        return
    try:
        samples = audio.decode(flac)
    except audio.AudioError as error:
        yield f"{row['key']}: {error}"
        return
    meta = json.loads(text)
    agrees = meta["text"] == row["text"] and meta.get("phrases") == row.get("phrases")
    if len(samples) != meta["num_samples"] or not agrees or not meta["text"]:
        yield f"{row['key']}: its JSON does not agree with its audio or the ledger"

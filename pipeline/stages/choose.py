"""The best captions of several captioners: `python -m pipeline choose --data <dataset> --overlays a b --name best`.

The captions of each clip become one overlay, the best first, so that training takes the best one (--best-only) or several.
overlay.json counts how often each captioner wins, by tag; disagreement.csv lists the clips whose captions differ most.
"""

import csv
import io
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from pipeline import run_dir, storage
from pipeline.dataset import authorship, ledgers, overlays, shards
from pipeline.dataset.authorship import OWN
from pipeline.errors import InputError
from pipeline.graph import engine
from pipeline.graph.captioner_name import CaptionerName
from pipeline.graph.finalize import read_finished_plan
from pipeline.pages import dataset_card
from pipeline.planning.plan import Plan
from pipeline.progress import Progress
from pipeline.quality.agreement import Agreement

log = logging.getLogger(__name__)
LIST_FILE, LISTED = "disagreement.csv", 200
SHOWN_TAGS = 50


@dataclass(frozen=True, kw_only=True)
class ChooseConfig:
    """Choose among the captions of several overlays, into one."""

    data: str = field(default="", metadata=run_dir.NOT_IDENTITY)
    """Dataset of shards that `pipeline caption` wrote."""
    name: str = ""
    """Name of the new overlay, such as best; becomes <data>/overlays/<name>."""
    overlays: tuple[str, ...] = ()
    """Two or more overlays of captions; of captions that tie, those of the overlay named first win. `shards` stands for the
    shards' own captions."""
    by: Literal["score", "agreement", "audit"] = "score"
    """score: that of `pipeline score` with one model. agreement: the mean similarity to the other overlays' captions, by
    words and pairs of words weighted as in CIDEr. audit: fewest events outside the clip's tags, then fewest tags left
    out."""
    audits: tuple[str, ...] = ()
    """Overlays of `pipeline audit --captions <overlay>`, one for each of --overlays in their order. With other ways to
    choose, captions that mention an event outside the clip's tags come after all others."""
    in_process: bool = field(default=False, metadata=run_dir.NOT_IDENTITY)
    """Work in this process, without Ray: it starts at once, suits one machine, and breakpoints work."""


Captioners = Mapping[str, Mapping[str, str]]  # overlay -> model and revision of captions without a record


class Candidate(NamedTuple):
    """One caption of a clip."""

    overlay: str
    text: str
    score: float | None  # by which it was chosen
    record: Mapping[str, Any]
    order: tuple[float, ...]  # the lowest is the best


def run(config: ChooseConfig) -> None:
    """Write the overlay, part by part; parts that are there are skipped."""
    data, plan = storage.resolve(config.data), _check(config)
    folder = overlays.folder(data, config.name)
    identity = {"plan_hash": plan.hash, "retries": len(plan.retries)}
    run_dir.claim(folder, config, identity, flag="--name")
    marker = storage.join(folder, overlays.MARK_FILE)
    if storage.exists(marker):
        log.info("choose: %s is complete already", folder)
        return
    done = set(storage.list_names(folder))
    todo = [shard for shard in plan.shards if shards.ledger_name(shard) not in done]
    candidates = {name: authorship.origin(data, name) for name in config.overlays}
    agreement = Agreement(_captions(config, data, plan.shards))
    task = partial(
        choose_shard, config=config, data=data, folder=folder, agreement=agreement, captioners=_captioners(candidates)
    )
    progress = Progress("choose", "clips")
    for row in engine.rows(todo, engine.Tasks(task), in_process=config.in_process):
        progress.add(row["clips"])
    report = _report(config, data, folder, plan)
    scores = "of the choice" if config.by != "audit" else None
    made_by = {"model": f"{config.by} among {', '.join(config.overlays)}", "revision": "", "by": config.by}
    report |= {"candidates": list(candidates.values()), **authorship.describe(data, config.name)}
    storage.publish_json(marker, {"stage": "pipeline choose", **made_by, "score": scores, **report})
    dataset_card.name_captioners(data)
    log.info("choose: %s: %s", folder, ", ".join(f"{name} wins {n:,}" for name, n in report["wins"].items()))


def choose_shard(
    table: pa.Table, config: ChooseConfig, data: str, folder: str, agreement: Agreement, captioners: Captioners
) -> pa.Table:
    """Choose for the clips of one shard and publish the part."""
    (shard,) = table["shard"].to_pylist()
    made = {name: authorship.read(data, _overlay(name), shard) for name in config.overlays}
    audits = [overlays.read_part(data, name, shard) for name in config.audits]
    rows: list[overlays.CaptionsRow] = []
    for key in dict.fromkeys(chain.from_iterable(made.values())):
        found = [made[name].get(key) for name in config.overlays]
        verdicts = [part.get(key) for part in audits] or [None] * len(found)
        candidates = _candidates(config, found, verdicts, agreement, captioners)
        first = [row["text"][:1] if row else [] for row in found]
        rows.append(_row(key, candidates, _mutual(first, agreement)))
    part = pa.Table.from_pylist(rows, schema=overlays.CAPTIONS_SCHEMA)
    storage.publish_table(storage.join(folder, shards.ledger_name(shard)), part)
    return pa.table({"shard": [shard], "clips": [len(rows)]})


def _candidates(
    config: ChooseConfig,
    found: Sequence[overlays.CaptionsRow | None],
    verdicts: Sequence[overlays.AuditRow | None],
    agreement: Agreement,
    captioners: Captioners,
) -> list[Candidate]:
    """Return the captions of a clip, the best first, each text once."""
    candidates: list[Candidate] = []
    for index, (name, row, audit) in enumerate(zip(config.overlays, found, verdicts, strict=True)):
        others = [other["text"] for place, other in enumerate(found) if other and place != index]
        records = {one["text"]: one for one in json.loads((row and row["captions"]) or "[]")}
        for text, score in zip(row["text"], row["score"], strict=True) if row else ():
            foreign, omitted = _verdict(audit, text) if config.audits else (0, 0)
            value = {"score": score, "agreement": None, "audit": None}[config.by]
            if config.by == "agreement":
                value = agreement.consensus(text, others)
            order = (foreign, omitted) if config.by == "audit" else (bool(foreign), -(value or 0.0))
            record = {"text": text, **captioners.get(name, {}), **records.get(text, {})}
            candidates.append(Candidate(name, text, value, record, order))
    best: dict[str, Candidate] = {}
    for candidate in sorted(candidates, key=lambda one: one.order):
        best.setdefault(candidate.text, candidate)
    return list(best.values())


def _verdict(audit: overlays.AuditRow | None, text: str) -> tuple[float, float]:
    """Return how many events a caption adds and how many tags it leaves out; infinite for one that was not audited."""
    if audit is None or text not in audit["text"]:
        return float("inf"), float("inf")
    index = audit["text"].index(text)
    return len(audit["foreign"][index]), len(audit["unmentioned"][index])


def _mutual(first: Sequence[list[str]], agreement: Agreement) -> float:
    """Return the mean similarity of the first captions of all overlays, in pairs; 1 where there is no pair."""
    texts = [text for one in first for text in one]
    pairs = [agreement.similarity(a, b) for place, a in enumerate(texts) for b in texts[place + 1 :]]
    return sum(pairs) / len(pairs) if pairs else 1.0


def _row(key: str, candidates: list[Candidate], mutual: float) -> overlays.CaptionsRow:
    records = [{**one.record, "overlay": one.overlay, "agreement": round(mutual, 4)} for one in candidates]
    return {
        "key": key,
        "text": [one.text for one in candidates],
        "score": [one.score for one in candidates],
        "captions": json.dumps(records, ensure_ascii=False),
    }


def _report(config: ChooseConfig, data: str, folder: str, plan: Plan) -> dict[str, Any]:
    """Count the wins of each overlay, in all and by tag, and publish the list of clips whose captions differ most."""
    wins: Counter[str] = Counter()
    by_tag: dict[str, Counter[str]] = defaultdict(Counter)
    clips: list[tuple[float, str, str, str]] = []
    for shard, written in ledgers.written(data, plan.shards):
        tags = dict(zip(written["key"].to_pylist(), written["tags"].to_pylist(), strict=True))
        for row in storage.read_table(storage.join(folder, shards.ledger_name(shard))).to_pylist():
            if not row["text"]:
                continue
            records = json.loads(row["captions"])
            winner, texts = records[0]["overlay"], {one["overlay"]: one["text"] for one in reversed(records)}
            wins[winner] += 1
            for tag in tags[row["key"]]:
                by_tag[tag][winner] += 1
            clips.append((records[0]["agreement"], row["key"], winner, json.dumps(texts, ensure_ascii=False)))
        clips = sorted(clips)[:LISTED]
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["key", "agreement", "winner", "captions"])
    table.writerows([key, value, winner, texts] for value, key, winner, texts in clips)
    storage.publish(storage.join(folder, LIST_FILE), text.getvalue().encode())
    largest = sorted(by_tag, key=lambda tag: -by_tag[tag].total())[:SHOWN_TAGS]
    named = {name: wins[name] for name in config.overlays}
    return {"wins": named, "wins_by_tag": {tag: dict(by_tag[tag].most_common()) for tag in largest}}


def _captioners(candidates: Mapping[str, Mapping[str, Any]]) -> Captioners:
    """Return the model of captions that have no record: the shards' own, and those that an overlay only scores."""
    made = {name: one.get("scored", one) for name, one in candidates.items()}
    return {
        name: {"model": CaptionerName.parse(one["model"]).title, "revision": one["revision"]}
        for name, one in made.items()
        if one["model"] and one["stage"] == "pipeline caption"
    }


def _overlay(name: str) -> str:
    """Return the overlay that --overlays names; '' for the shards' own captions."""
    return "" if name == OWN else name


def _captions(config: ChooseConfig, data: str, numbers: Sequence[int]) -> Iterator[str]:
    rows = (authorship.read(data, _overlay(name), shard) for shard in numbers for name in config.overlays)
    yield from chain.from_iterable(row["text"] for part in rows for row in part.values())


def _check(config: ChooseConfig) -> Plan:
    """Find out what is wrong with the command; return the plan of the dataset."""
    overlays.check_name(config.name)
    plan = read_finished_plan(config.data)
    if len(set(config.overlays)) < 2 or len(set(config.overlays)) < len(config.overlays):
        raise InputError("--overlays", config.overlays, "name two or more overlays, each once")
    if config.name == OWN:
        raise InputError("--name", OWN, "stands for the shards' own captions; choose another name")
    for name in config.overlays:
        if name != OWN:
            overlays.check_exists(config.data, name, "--overlays")
    for name in config.audits:
        overlays.check_exists(config.data, name, "--audits")
    if config.audits and len(config.audits) != len(config.overlays):
        raise InputError("--audits", config.audits, f"give one for each of --overlays: {', '.join(config.overlays)}")
    if config.by == "audit" and not config.audits:
        raise InputError(
            "--audits", config.audits, "--by audit needs them; `pipeline audit --captions <overlay>` writes one"
        )
    if config.by == "score":
        _check_scores(config)
    return plan


def _check_scores(config: ChooseConfig) -> None:
    """Raise InputError where scores cannot be compared: they have to come from `pipeline score` with one model."""
    revisions = set()
    for name in config.overlays:
        info = overlays.read_info(config.data, name) if name != OWN else {}
        if info.get("stage") != "pipeline score":
            captions = "" if name == OWN else f" --captions {name}"
            remedy = f"its scores are not comparable; `pipeline score{captions}` writes an overlay to name here"
            raise InputError("--overlays", name, remedy)
        authorship.check_scored(config.data, name, "--overlays")
        revisions.add(info["revision"])
    if len(revisions) > 1:
        raise InputError("--overlays", config.overlays, "were scored by different models; score them with one")

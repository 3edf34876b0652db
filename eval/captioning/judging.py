"""The scores of captions: for the results, for the terminal, and caption by caption."""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np

from eval import metrics, results
from eval.captioning.makers import Judged
from eval.embedding.in_process import Written
from eval.metrics import captions
from eval.metrics.captions import Score
from eval.results.records import Entry, MetricRecord

SHOWN = ("bleu_4", "rouge_l", "meteor", "cider_d", "spice", "spider", "fense", "clap", "vocab")
COMPARED = ("rouge_l", "meteor", "cider_d", "spice", "spider", "fense", "clap")
Scores = Mapping[str, Mapping[str, Score]]  # guidance -> metric -> score


def entry(judged: Judged, scores: Scores) -> Entry:
    """Return the numbers of every kind of guidance, the differences from the first, and why some are missing."""
    written, (first, *others) = judged.written, scores
    found: Entry = {
        "guidance": {name: _metrics(each, written.texts[name]) for name, each in scores.items()},
        "difference": {name: _differences(scores[name], scores[first]) for name in others},
        "unavailable": {name: score.reason for each in scores.values() for name, score in each.items() if score.reason},
        "num_references": sum(len(clip.captions) for clip in written.clips),
        **judged.facts,
    }
    if judged.captioners:
        found["captioners"] = _by_captioner(judged.captioners, scores[first])
    return found


def _by_captioner(captioners: Sequence[str], scores: Mapping[str, Score]) -> dict[str, Entry]:
    """Return how many captions each captioner wrote, and the mean of what they score. Means of few clips are noisy."""
    found: dict[str, Entry] = {}
    for name in sorted(set(captioners)):
        rows = [row for row, each in enumerate(captioners) if each == name]
        means = {
            metric: results.metric(float(per_clip[rows].mean()))
            for metric in COMPARED
            if (per_clip := scores[metric].per_clip) is not None
        }
        found[name or "no caption"] = {"captions": len(rows), **means}
    return found


def text_table(entry: Entry) -> str:
    """Return the numbers of every kind of guidance, and why some are missing."""
    names = [name for name in SHOWN if name not in entry["unavailable"]]
    lines = ["guidance   " + "".join(f"{name:>22}" for name in names)]
    for guidance, found in entry["guidance"].items():
        lines.append(f"{guidance:<11}" + "".join(f"{_cell(found[name]):>22}" for name in names))
    for guidance, found in entry["difference"].items():
        first = next(iter(entry["guidance"]))
        shown = ", ".join(f"{name} {_cell(found[name], '+')}" for name in names if name in found)
        lines.append(f"{guidance} minus {first}: {shown}")
    for name, found in entry.get("captioners", {}).items():
        shown = "".join(f", {metric} {_cell(found[metric])}" for metric in names if metric in found)
        lines.append(f"{name}: first captions of {found['captions']} clips{shown}")
    if counted := entry.get("captioning"):
        lines.append("captioning: " + ", ".join(f"{name} {count:,}" for name, count in sorted(counted.items())))
    lines += [f"{name}: not computed: {reason}" for name, reason in entry["unavailable"].items()]
    lines.append(f"{entry['num_tagged']} of {entry['n']} clips have tags that the captioner knows")
    lines += entry["notes"]
    return "\n".join(lines)


def _metrics(scores: Mapping[str, Score], texts: list[str]) -> dict[str, MetricRecord | None]:
    found: dict[str, MetricRecord | None] = {
        name: None if score.value is None else results.metric(score.value, score.interval95)
        for name, score in scores.items()
    }
    return found | {name: results.metric(value) for name, value in captions.diversity(texts).items()}


def _differences(scores: Mapping[str, Score], first: Mapping[str, Score]) -> dict[str, MetricRecord]:
    """Return the mean differences from the first kind of guidance, over the same clips, with their intervals."""
    found = {}
    for name in COMPARED:
        one, other = scores[name].per_clip, first[name].per_clip
        if one is not None and other is not None:
            gain = one - other
            interval = metrics.bootstrap(lambda rows, gain=gain: float(gain[rows].mean()), len(gain))  # type: ignore[misc]
            found[name] = results.metric(float(gain.mean()), interval)
    return found


def outcomes(written: Written, scores: Scores) -> dict[str, np.ndarray]:
    """Return what two runs are compared by: of every score that is a mean over clips, that of each clip (N,)."""
    found = {"keys": results.keys(written.clips)}
    for guidance, by_name in scores.items():
        for name in COMPARED:
            score = by_name[name]
            if (
                score.value is not None
                and score.per_clip is not None
                and np.isclose(score.per_clip.mean(), score.value)
            ):
                found[f"guidance {guidance} {name}"] = score.per_clip
    return found


def table(judged: Judged, scores: Scores) -> bytes:
    """Return a CSV of every caption with its references and scores; worst first, by CIDEr-D under the first guidance."""
    written, first = judged.written, next(iter(scores.values()))["cider_d"].per_clip
    order = range(len(written.clips)) if first is None else np.argsort(first, kind="stable").tolist()
    text = io.StringIO()
    rows = csv.writer(text)
    named = ["captioner"] * bool(judged.captioners)
    per_clip = {
        name: {m: s.per_clip for m, s in found.items() if s.per_clip is not None} for name, found in scores.items()
    }
    rows.writerow(["key", "guidance", *named, "tags", "caption", "references", *next(iter(per_clip.values()))])
    for row in order:
        clip = written.clips[row]
        for name, values in per_clip.items():
            columns = [
                clip.key,
                name,
                *judged.captioners[row : row + 1],
                "|".join(written.tags[name][row]),
                written.texts[name][row],
                " || ".join(clip.captions),
            ]
            rows.writerow([*columns, *(f"{each[row]:.4f}" for each in values.values())])
    return text.getvalue().encode()


def _cell(metric: MetricRecord | None, sign: str = "") -> str:
    if metric is None:
        return "-"
    if "interval95" not in metric:
        return f"{metric['value']:{sign}.3g}" if metric["value"] % 1 else f"{metric['value']:{sign}.0f}"
    low, high = metric["interval95"]
    return f"{metric['value']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"

"""The report as one self-contained HTML page: tables, bars with intervals, confusion, and clips to listen to."""

import base64
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1060px; margin: 2rem auto; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; width: 100%; font-size: .92rem } caption { text-align: left; color: #5b6675 }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #dde3ea; vertical-align: top }
th { font-weight: 600 } code { font-size: .85em; background: #f2f5f8; padding: 0 .25em; overflow-wrap: anywhere }
.note { color: #5b6675 } audio { height: 30px; width: 210px } svg text { font: 12px system-ui, sans-serif; fill: #1c2430 }
.scroll { overflow-x: auto } .heat td { padding: 2px 4px; text-align: center; font-size: .75rem; border: 0 }
.heat th { font-weight: 400; font-size: .75rem; padding: 2px 6px; border: 0; white-space: nowrap }
"""
BLUE = "#2f6fb2"


class Captioned(NamedTuple):
    """One clip with the captions of several datasets."""

    key: str
    tags: list[str]
    flac: bytes
    captions: dict[str, str]  # dataset -> its first caption


def render(runs: dict[str, Any], headline: Sequence[Sequence[str]], clips: Sequence[Captioned]) -> str:
    """Return the page for runs (name -> results.json), the headline table (header first) and the clips to show."""
    sections = [
        "<h1>Language-audio models side by side</h1>",
        _table(headline, "Per cent. In brackets: 95 % bootstrap interval over the evaluated clips."),
        "<h2>Zero-shot accuracy</h2>",
        _bars(runs),
        "<h2>How each number was measured</h2>",
        _table(_protocol_rows(runs)),
        "<h2>Where each model comes from</h2>",
        _table(_lineage_rows(runs)),
        *_clips(clips),
        *_prompts(runs),
        *_confusions(runs),
    ]
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Language-audio models side by side</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body>{body}</body></html>\n'
    )


def _table(rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return a table whose first row is the header; cells are plain text."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    lines = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    note = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{note}<tr>{head}</tr>{"".join(lines)}</table></div>'


def _entries(runs: dict[str, Any], stage: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (run, name of the evaluation, entry) of every evaluation of a stage."""
    return [(run, name, e) for run, r in runs.items() for name, e in r["results"].items() if name.split()[0] == stage]


def _bars(runs: dict[str, Any]) -> str:
    entries = _entries(runs, "zero-shot")
    width, left, row = 900, 200, 34
    scale = (width - left - 60) / 100
    parts = []
    for i, (run, _, entry) in enumerate(entries):
        metric, y = entry["accuracy"]["ensemble"], i * row + 8
        value, (low, high) = 100 * metric["value"], (100 * bound for bound in metric["interval95"])
        parts.append(
            f'<text x="{left - 10}" y="{y + 15}" text-anchor="end">{escape(run)}</text>'
            f'<rect x="{left}" y="{y}" width="{value * scale:.1f}" height="20" fill="{BLUE}" rx="2"/>'
            f'<line x1="{left + low * scale:.1f}" x2="{left + high * scale:.1f}" y1="{y + 10}" y2="{y + 10}" '
            f'stroke="#1c2430" stroke-width="2"/>'
            f'<text x="{left + high * scale + 8:.1f}" y="{y + 15}">{value:.1f} %</text>'
        )
    if entries:
        chance = left + 100 * entries[0][2]["accuracy"]["ensemble"]["chance"] * scale
        bottom = len(entries) * row + 4
        parts.append(
            f'<line x1="{chance:.1f}" x2="{chance:.1f}" y1="0" y2="{bottom}" stroke="#b3402f" stroke-dasharray="4 3"/>'
        )
        parts.append(f'<text x="{chance + 4:.1f}" y="{bottom + 12}" fill="#b3402f">chance</text>')
    box = f"0 0 {width} {len(entries) * row + 22}"
    return f'<svg viewBox="{box}" role="img" aria-label="zero-shot accuracy">{"".join(parts)}</svg>'


def _protocol_rows(runs: dict[str, Any]) -> list[list[str]]:
    rows = [["model", "evaluation", "clips", "clips hash", "folds", "clips seen in training"]]
    for run, result in runs.items():
        for name, entry in result["results"].items():
            known = {stage: "unknown" if count is None else str(count) for stage, count in entry["overlap"].items()}
            shared = ", ".join(f"{stage} {count}" for stage, count in known.items())
            extra = f" ({entry['n_single_label']} with one label)" if "n_single_label" in entry else ""
            folds = entry["fold_rule"] + (f": {', '.join(entry['folds'])}" if entry["folds"] else "")
            n = f"{entry['n']} of {entry['num_listed']}{extra}"
            rows.append([run, name, n, entry["ids_sha256"][:12], folds, shared])
    return rows


def _lineage_rows(runs: dict[str, Any]) -> list[list[str]]:
    rows = [["model", "revision", "captions", "captioner", "tags given", "filter", "clips trained on"]]
    for run, result in runs.items():
        lineage = result["model"]["lineage"]
        made = lineage.get("generation", {})
        overlay = lineage.get("overlay")
        captions = made.get("out", "-").rpartition("/")[2]
        chosen = "none"
        if overlay:
            choice = "best caption of each clip" if lineage["best_only"] else "all captions"
            scorer = overlay["model"].rpartition("/")[2]
            chosen = f"{choice} by {scorer} ({overlay['revision'][:12]})"
            chosen += f", best {100 * lineage['keep_fraction']:.0f} % of the clips"
        captioner = f"{made.get('captioner', '-').rpartition('/')[2]} ({made.get('captioner_revision', '')[:12]})"
        tags = "yes" if "tags" in (made.get("guidance") or []) else "no"
        rows.append(
            [run, result["model"]["revision"][:12], captions, captioner, tags, chosen, str(lineage.get("num_clips"))]
        )
    return rows


def _clips(clips: Sequence[Captioned]) -> list[str]:
    if not clips:
        return []
    names = list(clips[0].captions)
    head = "".join(f"<th>{escape(name)}</th>" for name in ("clip", "tags", *names))
    lines = []
    for clip in clips:
        data = base64.b64encode(clip.flac).decode()
        player = f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>'
        cells = "".join(f"<td>{escape(clip.captions[name])}</td>" for name in names)
        lines.append(
            f"<tr><td>{player}<br><code>{escape(clip.key)}</code></td><td>{escape(', '.join(clip.tags))}</td>{cells}</tr>"
        )
    return [
        "<h2>Captions to read and hear</h2>",
        f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>',
    ]


def _prompts(runs: dict[str, Any]) -> list[str]:
    entries = _entries(runs, "zero-shot")
    if not entries:
        return []
    prompts = list(dict.fromkeys(prompt for _, _, entry in entries for prompt in entry["accuracy"]))
    rows = [["model", "evaluation", *prompts]]
    rows += [
        [
            run,
            name,
            *(
                f"{100 * entry['accuracy'][prompt]['value']:.1f}" if prompt in entry["accuracy"] else "-"
                for prompt in prompts
            ),
        ]
        for run, name, entry in entries
    ]
    return ["<h2>Accuracy by prompt</h2>", _table(rows, "Per cent.")]


def _confusions(runs: dict[str, Any]) -> list[str]:
    return [
        f"<h2>Confusion: {escape(run)}, {escape(name)}</h2>"
        "<p class='note'>Rows are the true class, columns the guess; clips.</p>"
        + _heat(entry["classes"], entry["confusion"])
        for run, name, entry in _entries(runs, "zero-shot")
    ]


def _heat(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    head = "<th></th>" + "".join(f'<th title="{escape(name)}">{i}</th>' for i, name in enumerate(classes))
    lines = []
    for i, (name, row) in enumerate(zip(classes, counts, strict=True)):
        most = max(1, sum(row))
        cells = "".join(
            f'<td style="background:rgba(47,111,178,{count / most:.2f})">{count or ""}</td>' for count in row
        )
        lines.append(f"<tr><th>{escape(name)} <b>{i}</b></th>{cells}</tr>")
    return f'<div class="scroll"><table class="heat"><tr>{head}</tr>{"".join(lines)}</table></div>'

"""The page of a finished run: curves, what it was made with and from, and where; one self-contained HTML file."""

import html
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pipeline import storage
from pipeline.run_dir import RUN_FILE
from train.checkpoint import CONFIG_FILE
from train.trainer.history import History
from train.trainer.state import HISTORY_FILE

PAGE_FILE = "report.html"
PACKAGES = ("torch", "torchaudio", "transformers", "ray", "numpy", "pyarrow", "soundfile")
WIDTH, HEIGHT, MARGIN, MAX_POINTS = 470, 220, 60, 400
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #1a1a1a; }
h2 { margin-top: 2em; } .curves { display: flex; flex-wrap: wrap; gap: 20px; } figure { margin: 0; }
figcaption { font-weight: 600; } table { border-collapse: collapse; } td { padding: 2px 14px 2px 0; vertical-align: top; }
td:first-child { color: #666; white-space: nowrap; } td + td { overflow-wrap: anywhere; }
svg text { font-size: 11px; fill: #666; }
"""


def write(out: str) -> None:
    """Publish the page of the run whose checkpoint and history lie in `out`."""
    history = History.from_json(storage.read_json(storage.join(out, HISTORY_FILE)))
    checkpoint = storage.read_json(storage.join(out, CONFIG_FILE))
    run_config = storage.read_json(storage.join(out, RUN_FILE))
    storage.publish(storage.join(out, PAGE_FILE), page(history, checkpoint, run_config).encode())


def page(history: History, checkpoint: Mapping[str, Any], run_config: Mapping[str, object]) -> str:
    """Return the page of one run as HTML; `checkpoint` is its config.json."""
    lineage = checkpoint["lineage"]
    curves = "".join(curve(name, points) for name, points in _series(history).items())
    environment = {"python": platform.python_version(), "machine": platform.machine(), "devices": _devices()}
    environment |= {name: importlib.metadata.version(name) for name in PACKAGES}
    name = str(run_config["out"]).rpartition("/")[2]
    parts = [
        f"<h1>{html.escape(str(lineage['stage']))}: {html.escape(name)}</h1>",
        f"<p>{len(history.loss)} steps over {lineage['num_clips']} clips; revision {checkpoint['revision'][:12]}.</p>",
        f'<div class="curves">{curves}</div>',
        f"<h2>Clips that could not be read ({len(history.skipped)})</h2>{_table(history.skipped)}"
        if history.skipped
        else "",
        f"<h2>Lineage</h2>{_table(lineage)}",
        f"<h2>Config</h2>{_table(run_config)}",
        f"<h2>Environment</h2>{_table(environment)}",
    ]
    head = f'<meta charset="utf-8"><title>{html.escape(name)}</title><style>{STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>"


def _series(history: History) -> dict[str, list[tuple[float, float]]]:
    """Return the curves by name, (step, value) each: the loss of steps, then logged and validation scalars."""
    found: dict[str, list[tuple[float, float]]] = {"train/loss": list(enumerate(history.loss, start=1))}
    rows = [(row["step"], row) for row in history.steps]
    rows += [(each.step, {f"val/{name}": value for name, value in each.metrics.items()}) for each in history.epochs]
    for step, row in rows:
        for name, value in row.items():
            if name not in ("step", "train/loss"):
                found.setdefault(name, []).append((step, value))
    return found


def curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    """Return a line of (step, value) points as a figure; of many points the mean of neighbours."""
    size = -(-len(points) // MAX_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    xs, ys = ([sum(point[axis] for point in group) / len(group) for group in groups] for axis in (0, 1))
    low, high = min(ys), max(ys)
    wide, tall = max(xs[-1] - xs[0], 1e-9), max(high - low, 1e-9)
    places = " ".join(
        f"{MARGIN + (x - xs[0]) / wide * (WIDTH - MARGIN - 8):.1f},{8 + (high - y) / tall * (HEIGHT - 30):.1f}"
        for x, y in zip(xs, ys, strict=True)
    )
    line = f'<polyline points="{places}" fill="none" stroke="#2563eb" stroke-width="1.6"/>'
    if len(groups) == 1:
        x, _, y = places.partition(",")
        line = f'<circle cx="{x}" cy="{y}" r="3" fill="#2563eb"/>'
    labels = (
        f'<text x="{MARGIN - 4}" y="14" text-anchor="end">{high:.3g}</text>'
        f'<text x="{MARGIN - 4}" y="{HEIGHT - 22}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{MARGIN}" y="{HEIGHT - 4}">step {points[0][0]:.0f}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 4}" text-anchor="end">{points[-1][0]:.0f}</text>'
    )
    frame = f'<path d="M{MARGIN} 8V{HEIGHT - 18}H{WIDTH - 8}" fill="none" stroke="#ccc"/>'
    caption = f"<figcaption>{html.escape(name)}: {points[-1][1]:.4g}</figcaption>"
    drawn = f'<svg width="{WIDTH}" height="{HEIGHT}" role="img">{frame}{line}{labels}</svg>'
    return f"<figure>{caption}{drawn}</figure>"


def _table(values: Mapping[str, object], prefix: str = "") -> str:
    return f"<table>{''.join(_rows(values, prefix))}</table>"


def _rows(values: Mapping[str, object], prefix: str) -> list[str]:
    rows = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            rows += _rows(value, f"{prefix}{name}.")
        else:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append(f"<tr><td>{html.escape(prefix + name)}</td><td>{html.escape(shown)}</td></tr>")
    return rows


def _devices() -> str:
    if not torch.cuda.is_available():
        return "CPU"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))

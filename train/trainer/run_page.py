"""The page of a finished run: curves, what it was made with and from, and where; one self-contained HTML file."""

import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline import html, storage
from pipeline.html import Part
from pipeline.run_dir import RUN_FILE
from train.checkpoint import CONFIG_FILE
from train.trainer.history import History
from train.trainer.state import HISTORY_FILE

PAGE_FILE = "report.html"
TEMPLATE = Path(__file__).with_suffix(".html.jinja")
PACKAGES = ("torch", "torchaudio", "transformers", "ray", "numpy", "pyarrow", "soundfile")
WIDTH, HEIGHT = 402, 190  # of the lines, in units of the SVG view box
MAX_POINTS = 400


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line over the steps; numbers are as they are shown."""

    name: str
    points: list[tuple[float, float]]
    """Positions (x, y) from the upper left corner; a single one is drawn as a dot."""
    low: str
    high: str
    first_step: str
    last_step: str
    last: str
    """The last value."""


def write(out: str) -> None:
    """Publish the page of the run whose checkpoint and history lie in `out`."""
    history = History.from_json(storage.read_json(storage.join(out, HISTORY_FILE)))
    checkpoint = storage.read_json(storage.join(out, CONFIG_FILE))
    run_config = storage.read_json(storage.join(out, RUN_FILE))
    storage.publish(storage.join(out, PAGE_FILE), page(history, checkpoint, run_config).encode())


def page(history: History, checkpoint: Mapping[str, Any], run_config: Mapping[str, object]) -> str:
    """Return the page of one run as HTML; `checkpoint` is its config.json."""
    lineage = checkpoint["lineage"]
    environment = {"python": platform.python_version(), "machine": platform.machine(), "devices": _devices()}
    environment |= {name: importlib.metadata.version(name) for name in PACKAGES}
    curves = [curve(name, points) for name, points in _series(history).items()]
    parts = [
        Part(title="Curves", note="A title ends with the last value.", kind="curves", content=curves),
        *(
            [_pairs(f"Clips that could not be read ({len(history.skipped)})", history.skipped)]
            if history.skipped
            else []
        ),
        _pairs("Lineage", lineage),
        _pairs("Config", run_config),
        _pairs("Environment", environment),
    ]
    name = str(run_config["out"]).rpartition("/")[2]
    figures = [
        (f"{len(history.loss):,}", "steps"),
        (f"{lineage['num_clips']:,}", "clips"),
        (checkpoint["revision"][:12], "revision"),
    ]
    heading = f"{lineage['stage']}: {name}"
    return html.render(TEMPLATE, title=name, heading=heading, parts=parts, figures=figures, width=WIDTH, height=HEIGHT)


def _series(history: History) -> dict[str, list[tuple[float, float]]]:
    """Return the curves by name, (step, value) each: the loss of steps, then logged and validation scalars."""
    series: dict[str, list[tuple[float, float]]] = {"train/loss": list(enumerate(history.loss, start=1))}
    rows = [(row["step"], row) for row in history.steps]
    rows += [
        (record.step, {f"val/{name}": value for name, value in record.metrics.items()}) for record in history.epochs
    ]
    for step, row in rows:
        for name, value in row.items():
            if name not in ("step", "train/loss"):
                series.setdefault(name, []).append((step, value))
    return series


def curve(name: str, values: Sequence[tuple[float, float]]) -> Curve:
    """Return the curve of (step, value); of many values the mean of neighbours."""
    size = -(-len(values) // MAX_POINTS)
    groups = [values[i : i + size] for i in range(0, len(values), size)]
    steps, means = ([sum(pair[axis] for pair in group) / len(group) for group in groups] for axis in (0, 1))
    low, high = min(means), max(means)
    step_range, value_range = max(steps[-1] - steps[0], 1e-9), max(high - low, 1e-9)
    return Curve(
        name=name,
        points=[
            ((step - steps[0]) / step_range * WIDTH, (high - mean) / value_range * HEIGHT)
            for step, mean in zip(steps, means, strict=True)
        ],
        low=f"{low:.3g}",
        high=f"{high:.3g}",
        first_step=f"{values[0][0]:.0f}",
        last_step=f"{values[-1][0]:.0f}",
        last=f"{values[-1][1]:.4g}",
    )


def _pairs(title: str, values: Mapping[str, object]) -> Part:
    return Part(title=title, kind="pairs", content=list(_flat(values, "")))


def _flat(values: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield names and values of nested objects; a name has those of the objects around it before it."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _devices() -> str:
    if not torch.cuda.is_available():
        return "CPU"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))

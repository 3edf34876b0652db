"""The model card, in the Hugging Face format: what a model is, how it is loaded, where it comes from, what it reaches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.checkpoint import CheckpointInfo, ancestry
from train.models.clap import TwoTowers
from train.models.configs import ClapConfig, TowersConfig
from train.publishing.onnx_files import Described
from train.publishing.results import Number, Results

CARD_FILE = "README.md"
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
UNKNOWN = "unknown"  # the hub's word for it
PIPELINE = "zero-shot-audio-classification"
TAGS = ["audio", "clap", "language-audio", "audio-retrieval", "blat"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a card describes."""

    name: str
    """Name of the folder, or namespace/name on the hub: what the card's examples load."""
    model: TwoTowers
    info: CheckpointInfo[TowersConfig]
    licence: str
    results: Results
    onnx: Described | None = None
    """What onnx.json states, where there are ONNX files."""
    int8: bool = False
    """Whether there are files with weights of 8 bits, too."""


def render(published: Published) -> str:
    """Return the card as Markdown."""
    from huggingface_hub import ModelCard, ModelCardData  # its import takes most of a second

    title = published.name.rpartition("/")[2]
    network = published.info.network
    card = ModelCard.from_template(
        ModelCardData(
            license=published.licence,
            library_name="transformers",
            pipeline_tag=PIPELINE,
            tags=TAGS + ["onnx"] * bool(published.onnx),
            model_name=title,
            eval_results=[_result(number) for number in published.results.numbers] or None,
        ),
        template_str=TEMPLATE.read_text(),
        title=title,
        name=published.name,
        ours=isinstance(network, ClapConfig),
        rate_hz=published.model.sample_rate_hz,
        dim=network.joint_dim,
        facts=_table(_facts(published)),
        lineage=_table(zip(ancestry.COLUMNS, ancestry.columns(published.info.lineage), strict=True)),
        onnx=published.onnx,
        int8=published.int8,
        numbers=_numbers(published.results.numbers),
        notes=published.results.notes,
        licence=published.licence,
        known=published.licence != UNKNOWN,
        max_tokens=network.text.max_tokens if isinstance(network, ClapConfig) else network.max_tokens,
    )
    return str(card) + "\n"


def _facts(published: Published) -> list[tuple[str, str]]:
    network, model = published.info.network, published.model
    if isinstance(network, ClapConfig):
        audio, text = str(network.audio.encoder), network.text.name or f"BERT of {network.text.layers} layers"
        policy = "zero-padded to it" if network.padding == "clip" else "taken at their true length"
    else:
        audio = text = f"that of a {network.transformers} of transformers"
        policy = f"as its processor says ({network.processor.get('padding')})"
    return [
        ("audio tower", audio),
        ("text tower", text),
        ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
        ("audio", f"mono, {model.sample_rate_hz:,} Hz"),
        ("window", f"{network.clip_s:g} s; shorter clips are {policy}"),
        ("embedding", f"{network.joint_dim} numbers, unit length"),
        ("revision", f"`{published.info.revision}`"),
    ]


def _result(number: Number) -> Any:
    from huggingface_hub import EvalResult

    stage, _, task = number.evaluation.partition(" ")
    return EvalResult(
        task_type=stage,
        dataset_type=task,
        dataset_name=f"{task}, {number.n:,} clips",
        metric_type=number.name,
        metric_value=number.value,
    )


def _numbers(numbers: Sequence[Number]) -> str:
    if not numbers:
        return ""
    rows = [("evaluation", "number", "value", "95 % interval", "chance", "clips")]
    for each in numbers:
        interval = f"[{each.interval[0]:.3f}, {each.interval[1]:.3f}]" if each.interval else ""
        chance = "" if each.chance is None else f"{each.chance:.3f}"
        rows.append((each.evaluation, each.name, f"{each.value:.3f}{each.mark}", interval, chance, f"{each.n:,}"))
    return _table(rows[1:], rows[0])


def _table(rows: Iterable[Sequence[str]], head: Sequence[str] = ("", "")) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    cells = ((str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows)
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells)])

"""The headline table, the differences and the published numbers as cells, plain text, Markdown and LaTeX."""

from collections.abc import Sequence
from pathlib import Path

import jinja2

from eval.report import headline, verdicts
from eval.report.headline import Headline, Line, Number, Runs
from eval.results import compare
from eval.results.compare import Difference

Rows = Sequence[Sequence[str]]  # header first
EXPLAINED = (
    "Per cent, CIDEr-D and the onset error as they are. Of several runs, the number is their mean, and after ± stands the "
    "standard deviation of a run. In brackets: 95 % bootstrap interval over the evaluated clips, of the mean where "
    "there are several runs. It does not cover another training run."
)
MORE = (
    "Per cent, but ranks (MedR, MeanR), d' and captioning scores as they are. After ±: the standard deviation of a run, and "
    "of a fold where folds are named."
)
APART = "Published numbers are of other clips, prompts, folds and training data: no ranking with ours."
MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_|[]$~#"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " "})
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "\n": " "}
)


def rows(table: Headline) -> Rows:
    """Return the headline table as cells: a row for each number, a column for each model; header first."""
    return [["", "chance", *table.runs], *map(_row, table.lines)]


def with_published(table: Headline) -> Rows:
    """Return the headline table as cells, with a column of published numbers where there are any."""
    if not table.published:
        return rows(table)
    header, *body = rows(table)
    cited = ("; ".join(map(table.cite, line.published)) for line in table.lines)
    return [[*header, "published"], *([*row, cell] for row, cell in zip(body, cited, strict=True))]


def more(table: Headline) -> Rows:
    """Return the other numbers as cells; header first."""
    return [["", "chance", *table.runs], *map(_row, table.more)]


def _row(line: Line) -> list[str]:
    return [str(line.number), line.chance, *map(str, line.cells)]


def differences(runs: Runs) -> Rows:
    """Return the differences of all models from the first; header first, and only it where there are none."""
    found = [["", "model", "difference [over clips]", "[over runs and clips]", "p", "clips", "runs", "differs"]]
    for run, result in runs.items():
        for name, by_title in result.differences.items():
            if isinstance(by_title, str):
                found.append([name, run, by_title, *[headline.NOT_MEASURED] * 5])
                continue
            for title, difference in by_title.items():
                found.append([f"{name}: {title}", run, *_difference(difference, Number(name, title, ()))])
    return found


def _difference(found: Difference, number: Number) -> list[str]:
    interval = headline.NOT_MEASURED
    if found.interval95_runs is not None:
        interval = headline.show_interval(found.interval95_runs, number.percent, "+", number.digits)
    shown = headline.show(found, number.percent, "+", number.digits)
    first, other = found.runs
    return [shown, interval, probability(found.p), f"{found.n:,}", f"{other} against {first}", found.differs]


def probability(p: float) -> str:
    """Return a p as it is shown."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def published(table: Headline) -> Rows:
    """Return the published numbers with their protocols and sources as cells, header first."""
    cells = (
        [f"{found.evaluation}: {found.metric}", found.model, str(found.value), found.protocol, found.source]
        for found in table.published
    )
    return [["number", "model", "value", "protocol", "source"], *cells]


def text(table: Headline, runs: Runs) -> str:
    """Return the headline table, what differs, and the footnotes as plain text."""
    blocks = (aligned(rows(table)), "\n".join(verdicts.sentences(runs)), "\n".join(table.footnotes))
    return "\n\n".join(filter(None, blocks))


def aligned(cells: Rows) -> str:
    """Align cells into columns of plain text."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    header, *body = cells
    lines = (
        "  ".join(map(str.ljust, row, widths)).rstrip() for row in (header, ["-" * width for width in widths], *body)
    )
    return "\n".join(lines)


def markdown(table: Headline, runs: Runs) -> str:
    """Return the headline table, its footnotes, the other numbers, the differences and what is published for GitHub."""
    return _render("report.md.jinja", table, runs)


def latex(table: Headline, runs: Runs) -> str:
    """Return the headline table, the other numbers and the differences as tabulars that need the package booktabs."""
    return _render("report.tex.jinja", table, runs)


def _render(template: str, table: Headline, runs: Runs) -> str:
    """Return the text of a template; its marks are << >> and <% %>, because LaTeX is full of braces."""
    environment = jinja2.Environment(  # noqa: S701  # no HTML: the templates escape each cell for their own format
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    environment.filters["markdown"] = lambda cell: cell.translate(MARKDOWN)
    environment.filters["latex"] = lambda cell: cell.translate(LATEX)
    values = {
        "table": table,
        "rows": rows(table),
        "with_published": with_published(table),
        "more": more(table),
        "differences": differences(runs),
        "sentences": verdicts.sentences(runs),
        "notes": {"explained": EXPLAINED, "more": MORE, "apart": APART, "differences": compare.METHOD},
    }
    return environment.get_template(template).render(values).strip() + "\n"

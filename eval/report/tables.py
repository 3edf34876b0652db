"""The headline table and the differences as plain text, Markdown (GitHub's) and LaTeX (booktabs)."""

from collections.abc import Sequence

from eval.report import headline
from eval.report.headline import Headline, Runs
from eval.results import compare

Rows = Sequence[Sequence[str]]  # header first
EXPLAINED = "Per cent, CIDEr-D as it is. In brackets: 95 % bootstrap interval over the evaluated clips."
MORE = "Per cent, but ranks (MedR, MeanR), d' and captioning scores as they are. After ±: the standard deviation of a fold."
APART = "Published numbers are of other clips, prompts, folds and training data: no ranking with ours."
MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_|[]$~#"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " "})
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "\n": " "}
)


def rows(table: Headline, published: bool) -> Rows:
    """Return the headline table as cells: a row for each number, a column for each run; header first."""
    last = ["published"] if published and table.published else []
    return [
        ["", "chance", *table.runs, *last],
        *(
            [
                str(line.number),
                line.chance,
                *map(str, line.cells),
                *(["; ".join(map(table.cite, line.published))] if last else []),
            ]
            for line in table.lines
        ),
    ]


def more(table: Headline) -> Rows:
    """Return the other numbers as cells, likewise."""
    return [
        ["", "chance", *table.runs],
        *([str(line.number), line.chance, *map(str, line.cells)] for line in table.more),
    ]


def differences(runs: Runs) -> Rows:
    """Return the differences of all models from the first; header first, and only it where there are none."""
    rows = [["", "model", "difference", "p", "n"]]
    for run, result in runs.items():
        for name, found in result.differences.items():
            if isinstance(found, str):
                rows.append([name, run, found, headline.NOT_MEASURED, headline.NOT_MEASURED])
                continue
            rows += [
                [
                    f"{name}: {title}",
                    run,
                    headline.show(difference, sign="+"),
                    _probability(difference.p),
                    f"{difference.n:,}",
                ]
                for title, difference in found.items()
            ]
    return rows


def published(table: Headline) -> Rows:
    """Return the published numbers with their protocols and sources as cells, header first."""
    return [
        ["number", "model", "value", "protocol", "source"],
        *(
            [
                f"{reference.evaluation}: {reference.metric}",
                reference.model,
                str(reference.value),
                reference.protocol,
                reference.source,
            ]
            for reference in table.published
        ),
    ]


def text(table: Headline) -> str:
    """Return the headline table and its footnotes as plain text."""
    return "\n".join([aligned(rows(table, published=False)), *([""] if table.footnotes else []), *table.footnotes])


def aligned(cells: Rows) -> str:
    """Align cells into columns of plain text."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def markdown(table: Headline, runs: Runs) -> str:
    """Return the headline table, its footnotes, the other numbers, the differences and what is published for GitHub."""
    parts = [_markdown_table(rows(table, published=True)), EXPLAINED]
    parts += [f"- {note.translate(MARKDOWN)}" for note in table.footnotes]
    if table.more:
        parts += ["**More metrics**", _markdown_table(more(table)), MORE]
    changed = differences(runs)
    if changed[1:]:
        parts += [f"**Differences from {table.runs[0].translate(MARKDOWN)}**", _markdown_table(changed), compare.METHOD]
    if table.sources:
        cited = (f"{i}. {source.translate(MARKDOWN)}" for i, source in enumerate(table.sources, start=1))
        parts += ["**Published**", f"{APART} Read at:", "\n".join(cited)]
    return "\n\n".join(parts) + "\n"


def latex(table: Headline, runs: Runs) -> str:
    """Return the headline table, the other numbers and the differences as tabulars that need the package booktabs."""
    width = 2 + len(table.runs)
    body = rows(table, published=False)
    lines = [_latex_row(body[0]), r"\midrule", *map(_latex_row, body[1:])]
    if table.published:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{APART.translate(LATEX)}}}}} \\"]
        for reference in table.published:
            label = f"{table.cite(reference)} ({reference.protocol})".translate(LATEX)
            title = f"{reference.evaluation}: {reference.metric}".translate(LATEX)
            lines.append(rf"{title} & \multicolumn{{{width - 1}}}{{l}}{{{label}}} \\")
    parts = ["% needs \\usepackage{booktabs}", _tabular(lines, width)]
    cited = (f"[{i}] {source}." for i, source in enumerate(table.sources, start=1))
    notes = (EXPLAINED, *table.footnotes, " ".join(cited))
    parts += [rf"\par\noindent\footnotesize {note.translate(LATEX)}" for note in notes if note]
    for title, cells, note in (
        ("More metrics", more(table), MORE),
        (f"Differences from {table.runs[0]}", differences(runs), compare.METHOD),
    ):
        if cells[1:]:
            lines = [_latex_row(cells[0]), r"\midrule", *map(_latex_row, cells[1:])]
            parts += [rf"\par\medskip\noindent\normalsize {title.translate(LATEX)}", "", _tabular(lines, len(cells[0]))]
            parts.append(rf"\par\noindent\footnotesize {note.translate(LATEX)}")
    return "\n".join(parts) + "\n"


def _markdown_table(cells: Rows) -> str:
    lines = ["| " + " | ".join(cell.translate(MARKDOWN) for cell in row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + " --- |" * len(cells[0]), *lines[1:]])


def _tabular(lines: Sequence[str], width: int) -> str:
    return "\n".join([rf"\begin{{tabular}}{{{'l' * width}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"])


def _latex_row(row: Sequence[str]) -> str:
    """Return a row; one that begins with [ or * would be an argument of the line break before it."""
    cells = " & ".join(cell.translate(LATEX) for cell in row)
    return ("{}" if cells.startswith(("[", "*")) else "") + cells + r" \\"


def _probability(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"

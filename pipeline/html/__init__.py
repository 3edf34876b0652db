"""HTML pages: jinja2 templates over one base page and one style sheet. A page is one file, with its style and its scripts.

A page of files loads nothing. The pages of a server load sound and pictures from that server, and nothing from elsewhere.

A page has its own template beside the module that computes its values. The template extends `base.html.jinja`, which draws
the head, the header, the navigation and the frame of each part; `macros.html.jinja` has what several pages draw.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

FOLDER = Path(__file__).parent
PLAYER = FOLDER / "player.js"  # `attachPlayer`, which pages with clips call
NUMERIC = re.compile(r"[-+<\d][-+\d.,\[\] ]*")
NUM_COLORS = 6  # of models: --m0 to --m5 in style.css


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a page. It has a heading, and a link in the navigation."""

    title: str
    note: str = ""
    """Text below the heading."""
    kind: str
    """How the template of the page draws the content."""
    content: object


def render(
    template: Path, *, title: str, heading: str, parts: Sequence[Part], scripts: Sequence[Path] = (), **values: object
) -> str:
    """Return a page; the same values give the same text.

    Args:
        template: file that extends base.html.jinja.
        title: of the browser's window.
        heading: of the page.
        parts: of the page, in order.
        scripts: files that are the only script which the browser may run, in order; none runs without them.
        values: what else the template names. All values are escaped.

    Raises:
        jinja2.UndefinedError: when the template names a value that is not given.
    """
    page = _environment(template.parent).get_template(template.name)
    code = "".join(script.read_text() for script in scripts)
    return page.render(
        title=title,
        heading=heading,
        parts=parts,
        style=Markup((FOLDER / "style.css").read_text()),  # noqa: S704  # a file of this package
        script=Markup(code),  # noqa: S704  # a file of this package
        script_hash=base64.b64encode(hashlib.sha256(code.encode()).digest()).decode(),
        **values,
    )


def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["color"] = color
    environment.tests["numeric"] = lambda cell: bool(NUMERIC.fullmatch(cell))
    return environment


def color(index: int) -> str:
    """Return the color of the model with this index, the same on the whole page, as a CSS value."""
    return f"var(--m{index % NUM_COLORS})"


def _data_uri(content: bytes, media_type: str) -> str:
    """Return content as a URI that holds it: the page needs no other file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"

"""Pages from templates: escaped, the same each time, and no script runs but the one that the policy names by its hash."""

import base64
import hashlib
from pathlib import Path

import jinja2
import pytest

from pipeline import html
from pipeline.html import Part
from tests.support.html_page import Page

TEMPLATE = """
{% extends "base.html.jinja" %}
{% import "macros.html.jinja" as ui %}
{% block part %}{{ ui.table(part.content, extra) }}{% endblock %}
"""
EVIL = "</style><script>alert(1)</script>\"'&"


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "page.html.jinja"
    path.write_text(TEMPLATE)
    return path


def rendered(template: Path, *scripts: Path) -> str:
    part = Part(title=EVIL, note=EVIL, kind="tables", content=[[EVIL, "b"], ["<i>", "1,200"]])
    return html.render(template, title=EVIL, heading=EVIL, parts=[part], scripts=scripts, extra=EVIL)


def policy(page: Page) -> str:
    return next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)


def test_every_value_is_text(template: Path) -> None:
    page = Page(rendered(template))
    page.assert_loads_nothing()
    assert page.texts.count(EVIL) == 6, "title, heading, link, heading of the part, its note, the header of its table"
    assert not page.all("script") and "script-src" not in policy(page)
    assert page.of_class("n") == ["td"], "numbers are not broken over lines"
    assert rendered(template) == rendered(template)


def test_only_the_own_scripts_may_run(template: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.js"
    script.write_text('if (1 < 2 && "a") document.title = "b";\n')
    text = rendered(template, html.PLAYER, script)
    page = Page(text)
    code = text.rpartition("<script>")[2].partition("</script>")[0]
    assert code == html.PLAYER.read_text() + script.read_text() and len(page.all("script")) == 1
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert policy(page).endswith(f"script-src 'sha256-{digest}'")


def test_a_value_that_is_missing_is_an_error(template: Path) -> None:
    with pytest.raises(jinja2.UndefinedError, match="extra"):
        html.render(template, title="", heading="", parts=[Part(title="", kind="", content=[["a"]])])

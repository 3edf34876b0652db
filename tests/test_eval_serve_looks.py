"""How the pages of `eval serve` look in a real browser: widths, colors, names, and text that is never code."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from pipeline.dataset.clip_index import ClipIndex
from pipeline.pages import listening_page
from pipeline.pages.listening_page import Caption
from tests.support.browser import PLAYED, Watched, opened, search, until
from tests.support.serving import TOKEN, Server, flac_of, make_index, served

UNNAMED = """() => [...document.querySelectorAll('button, input, a, audio, img')].filter(element => !(
    element.innerText || element.getAttribute('aria-label') || element.alt || element.labels?.length || element.hidden
)).map(element => element.outerHTML)"""
CONTRASTS = """selectors => selectors.flatMap(selector => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const light = color => {
        canvas.fillStyle = '#fff'; canvas.fillRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(value => value / 255)
            .map(value => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = element => {
        const color = getComputedStyle(element).backgroundColor;
        return color == 'rgba(0, 0, 0, 0)' && element.parentElement ? behind(element.parentElement) : color;
    };
    return [...document.querySelectorAll(selector)].slice(0, 3).map(element => {
        const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
        return [selector, (a + .05) / (b + .05)];
    });
})"""


@pytest.mark.parametrize("width", [320, 390, 768, 1600])
def test_nothing_is_wider_than_the_screen(browser: Browser, page_server: Server, width: int) -> None:
    with opened(browser, page_server.url, width=width) as window:
        search(window.page, "rain")
        assert window.page.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("#text", "[type=submit]", "#choose", "#results .clip"):
            box = window.page.locator(name).first.bounding_box()
            assert box and box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] >= 24


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_everything_has_a_name(browser: Browser, page_server: Server, scheme: str) -> None:
    with opened(browser, page_server.url, scheme=scheme) as window:
        search(window.page, "rain")
        window.page.locator("#results .tags button").first.click()
        expect(window.page.locator("#filters li")).to_have_count(1)
        names = [
            ".caption",
            ".small",
            ".status",
            ".tags li",
            ".actions button",
            ".actions a",
            "[type=submit]",
            "label span",
        ]
        found = window.page.evaluate(CONTRASTS, names)
        assert {name for name, _ in found} == set(names)
        assert not [each for each in found if each[1] < 4.5]
        assert window.page.evaluate(UNNAMED) == []
        background = window.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) > 384) is (scheme == "light")


def test_names_from_a_dataset_are_text(browser: Browser, clap: str, dataset: str, tmp_path: Path) -> None:
    nasty = "<img src=x onerror=alert(1)>"
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.flac").write_bytes(flac_of(dataset, ClipIndex(dataset).keys[0]))
    (tmp_path / "clips" / "metadata.csv").write_text(f'file,labels,caption\na.flac,{nasty},"{nasty} rain"\n')
    make_index(str(tmp_path / "index"), str(tmp_path / "clips" / "metadata.csv"), clap)
    with served(str(tmp_path / "index")) as server, opened(browser, f"{server.url}/?text=rain") as window:
        page = window.page
        expect(page.locator("#results .caption")).to_have_text([f"{nasty} rain"])
        page.locator("#results .tags button").first.click()
        expect(page.locator("#filters li")).to_have_text([f"{nasty}×"])
        expect(page.locator("#results .clip")).to_have_count(1)
        assert page.locator("img[src=x]").count() == 0 and window.errors == []


def test_the_token_is_asked_for(browser: Browser, search_index: str) -> None:
    with served(search_index, token=TOKEN) as server, opened(browser, f"{server.url}/?text=rain") as window:
        page = window.page
        page.get_by_label("Token").fill("a wrong token")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("This token is wrong.")
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#results .clip")).to_have_count(20)
        assert page.url == f"{server.url}/?text=rain"
        expect(page.locator("#results img").first).to_have_js_property("naturalWidth", 500)


def test_the_page_of_the_api(window: Watched) -> None:
    window.page.get_by_role("link", name="API").click()
    expect(window.page.get_by_role("heading", level=1)).to_have_text("API of the search")
    assert window.page.evaluate("document.documentElement.scrollWidth") <= 1280
    expect(window.page.get_by_text("GET /api/search").first).to_be_visible()


def test_the_listening_page_has_the_same_player(browser: Browser, dataset: str, tmp_path: Path) -> None:
    index = ClipIndex(dataset)
    samples = [
        listening_page.Sample(index.keys[row], "clip", index.tags()[row], index.flac(row), [Caption(text, [], [])])
        for row, text in ((0, "the first"), (1, "the second"))
    ]
    facts = listening_page.Facts("a dataset", [("2", "clips")], {}, {}, {})
    file = tmp_path / "listen.html"
    file.write_text(listening_page.render(facts, [listening_page.Section("Clips", "", samples)]))
    with opened(browser, file.as_uri()) as window:
        page = window.page
        page.get_by_role("button", name="Play").first.click()
        until(lambda: page.evaluate(PLAYED))
        page.get_by_role("button", name="Play").click()
        until(
            lambda: page.evaluate(
                "[...document.querySelectorAll('audio')].map(sound => sound.paused).join() == 'true,false'"
            )
        )
        page.get_by_role("searchbox").fill("second")
        expect(page.locator(".clip:visible")).to_have_count(1)
        assert window.errors == []

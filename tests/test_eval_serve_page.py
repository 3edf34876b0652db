"""The search page in a real browser, served by the real stage: type, play, filter, similar, upload, share, keys, errors."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from eval.search import Query, Searcher
from tests.support.browser import PLAYED, Watched, opened, search, until
from tests.support.serving import Server, flac_of, served


@pytest.fixture(scope="module")
def searcher(search_index: str) -> Searcher:
    return Searcher(search_index)


def keys(page: Page) -> list[str]:
    return page.locator("#results .clip").evaluate_all("cards => cards.map(card => card.dataset.key)")


def found(searcher: Searcher, **values) -> list[str]:
    return [hit.key for hit in searcher.search(Query(**values))]


def shows(page: Page, wanted: list[str]) -> None:
    """Wait until these are the results: filters change at once, results when the server has answered."""
    until(lambda: keys(page) == wanted)


def test_typing_finds_clips_and_the_address_can_be_shared(
    window: Watched, browser: Browser, searcher: Searcher
) -> None:
    page = window.page
    expect(page.locator("#message")).to_contain_text("Describe a sound")
    page.get_by_role("searchbox").press_sequentially("a bell")  # without Enter
    expect(page.locator("#status")).to_contain_text(re.compile(r"20 clips for “a bell” in \d"))
    shows(page, found(searcher, text="a bell", k=20))
    card = page.locator("#results .clip").first
    expect(card.locator("img")).to_have_js_property("naturalWidth", 500)
    (hit,) = searcher.search(Query(text="a bell", k=1))
    assert card.locator(".caption").all_inner_texts() == list(hit.captions)
    assert card.locator(".tags li").all_inner_texts() == list(hit.tags)
    assert page.url.endswith("?text=a+bell") and page.title().startswith("a bell")
    with opened(browser, page.url) as shared:
        expect(shared.page.locator("#results .clip")).to_have_count(20)
        shows(shared.page, keys(page))
        assert shared.page.get_by_role("searchbox").input_value() == "a bell"
    search(page, "rain")
    page.go_back()
    expect(page.locator("#status")).to_contain_text("“a bell”")
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("#results .clip")).to_have_count(searcher.info.clips)


def test_a_click_plays_and_a_picture_seeks(window: Watched) -> None:
    page = window.page
    search(page, "rain")
    first, second = page.locator("#results .clip").nth(0), page.locator("#results .clip").nth(1)
    first.get_by_role("button", name="Play").click()
    until(lambda: page.evaluate(PLAYED))
    expect(first).to_have_class(re.compile(r"\bon\b"))
    box = second.locator(".picture").bounding_box()
    assert box
    with page.expect_response(lambda response: response.status == 206) as part:
        page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + box["height"] / 2)
    assert part.value.headers["content-type"] == "audio/flac"
    sound = second.locator("audio")
    until(lambda: sound.evaluate("sound => sound.currentTime > 0.7 * sound.duration"))
    assert first.locator("audio").evaluate("sound => sound.paused"), "one clip plays at a time"
    expect(first).not_to_have_class(re.compile(r"\bon\b"))


def test_tags_filter_and_leave_out(window: Watched, searcher: Searcher) -> None:
    page = window.page
    search(page, "rain")
    tag = page.locator("#results .tags button").first.inner_text()
    page.locator("#results .tags button").first.click()
    chips = page.locator("#filters li")
    expect(chips).to_have_text([f"{tag}×"])
    shows(page, found(searcher, text="rain", tags=(tag,)))
    chips.get_by_role("button", name=tag, exact=True).click()
    expect(chips).to_have_text([f"not {tag}×"])
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
    shows(page, found(searcher, text="rain", without_tags=(tag,)))
    assert f"without={tag.split()[0]}" in page.url
    chips.get_by_role("button", name=f"Remove not {tag}").click()
    expect(chips).to_have_count(0)
    other = searcher.tags()[-1][0]
    page.get_by_role("combobox", name="tag").fill(other.upper())
    page.keyboard.press("Enter")
    expect(chips).to_have_text([f"{other}×"])


def test_modes(window: Watched, searcher: Searcher) -> None:
    page = window.page
    text = searcher.search(Query(text="rain", k=1))[0].captions[0]
    search(page, text)
    page.get_by_role("radio", name="Words").check()
    page.wait_for_url("**mode=words**")
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
    shows(page, found(searcher, text=text, mode="words"))


def test_more_like_this_and_a_link_to_one_clip(window: Watched, browser: Browser, searcher: Searcher) -> None:
    page = window.page
    search(page, "a dog")
    (hit,) = searcher.search(Query(text="a dog", k=1))
    page.locator("#results .clip").first.get_by_role("button", name="More like this").click()
    expect(page.locator("#status")).to_contain_text("the sound of a clip")
    shows(page, found(searcher, like=hit.id))
    assert hit.key not in keys(page)
    page.go_back()
    expect(page.locator("#status")).to_contain_text("“a dog”")
    page.get_by_role("link", name="Link to this clip").first.click()
    expect(page.locator("#status")).to_have_text("One clip")
    shows(page, [hit.key])
    assert page.url.endswith(f"?clip={hit.id}")
    with opened(browser, page.url) as shared:
        expect(shared.page.locator("#results .clip")).to_have_count(1)
        shows(shared.page, [hit.key])


def test_a_file_is_chosen_or_dropped(window: Watched, searcher: Searcher, dataset: str, tmp_path: Path) -> None:
    page = window.page
    first, second = found(searcher, text="rain", k=2)
    file = tmp_path / "my sound.flac"
    file.write_bytes(flac_of(dataset, first))
    page.get_by_label("Sound file to search with").set_input_files(file)
    expect(page.locator("#status")).to_contain_text("the sound of my sound.flac")
    until(lambda: keys(page)[:1] == [first])
    expect(page.locator("#filters li")).to_have_text(["like my sound.flac×"])
    data = page.evaluate_handle(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], 'b.flac'));
            return data;
        }""",
        list(flac_of(dataset, second)),
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": data})
    expect(page.get_by_text("Drop the sound to search with it")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    expect(page.locator("#status")).to_contain_text("the sound of b.flac")
    until(lambda: keys(page)[:1] == [second])
    page.get_by_role("button", name="Remove like b.flac").click()
    expect(page.locator("#message")).to_contain_text("Describe a sound")


def test_keys_move_and_play(window: Watched) -> None:
    page = window.page
    search(page, "rain")
    columns = page.evaluate(
        "getComputedStyle(document.querySelector('#results')).gridTemplateColumns.split(' ').length"
    )
    focused = "[...document.querySelectorAll('#results .clip')].indexOf(document.activeElement)"
    for key, wanted in (("ArrowDown", 0), ("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowLeft", columns)):
        page.keyboard.press(key)
        assert page.evaluate(focused) == wanted, key
    page.keyboard.press("Space")
    until(lambda: page.evaluate("document.activeElement.querySelector('audio').currentTime > 0.1"))
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.querySelector('audio').paused")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("a / b")
    assert page.get_by_role("searchbox").input_value() == "a / b"


def test_what_goes_wrong_is_said(window: Watched, page_server: Server, searcher: Searcher, tmp_path: Path) -> None:
    page, message = window.page, window.page.locator("#message")
    (tag, _), *_ = searcher.tags()
    page.goto(f"{page_server.url}/?text=rain&tags={tag}&without={tag}")
    expect(message).to_contain_text("No clip fits")
    page.goto(f"{page_server.url}/?text=rain&tags=No+such+tag")
    expect(message).to_contain_text("no clip has this tag")
    page.goto(f"{page_server.url}/?clip=none")
    expect(message).to_contain_text("No clip has the id 'none'")
    page.goto(f"{page_server.url}/?tags={tag}")
    expect(message).to_contain_text("Type some words first")
    for name, content, words in (
        ("a.txt", b"text" * 99, "the bytes are no audio"),
        ("b.wav", bytes(2_000_000), "1 MB"),
    ):
        (tmp_path / name).write_bytes(content)
        page.get_by_label("Sound file to search with").set_input_files(tmp_path / name)
        expect(message).to_contain_text(words)
    assert not page.locator("#results .clip").count()


def test_a_server_that_has_gone_is_said_and_tried_again(browser: Browser, search_index: str) -> None:
    with served(search_index) as server, opened(browser, server.url) as window:
        search(window.page, "rain")
        server.process.kill()
        server.process.wait()
        window.page.get_by_role("searchbox").fill("a bell")
        expect(window.page.locator("#message")).to_contain_text("The server does not answer")
        with served(search_index, "--port", str(server.port)):
            window.page.get_by_role("button", name="Try again").click()
            expect(window.page.locator("#status")).to_contain_text("“a bell”")

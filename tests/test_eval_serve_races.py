"""The search page while something is on its way: typed words, answers, the list of tags. The clock of the page stands."""

from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from pipeline.dataset.clip_index import ClipIndex
from tests.support.browser import Watched, search, until
from tests.support.serving import flac_of

TYPED = "**/api/search?text=rain*"


@pytest.fixture
def page(window: Watched) -> Page:
    """The page, whose clock stands: what is typed is not searched before `run_for`."""
    window.page.clock.install(time=0)
    window.page.clock.pause_at(3_600_000)
    return window.page


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that the page refuses."""
    file = tmp_path / "large.wav"
    file.write_bytes(bytes(2_000_000))
    return file


def hold(page: Page, address: str) -> list[Route]:
    """Hold requests back; returns those that have come."""
    held: list[Route] = []
    page.route(address, lambda route: held.append(route))
    return held


def comes(page: Page, held: list[Route], number: int) -> None:
    """Wait for so many requests; Playwright sees them while it is asked."""
    until(lambda: page.evaluate("true") and len(held) == number)


def choose(page: Page, file: Path) -> Locator:
    field = page.get_by_label("Sound file to search with")
    field.set_input_files(file)
    return field


def test_words_typed_before_the_tags_have_come_are_searched(page: Page) -> None:
    held = hold(page, "**/api/tags")
    page.reload()
    page.get_by_role("searchbox").press_sequentially("a bell")
    comes(page, held, 1)
    held[0].continue_()
    until(lambda: page.locator("#names option").count() > 0)
    page.clock.run_for(1000)
    expect(page.locator("#status")).to_contain_text("20 clips for “a bell”")


def test_the_tags_that_come_late_are_suggested_and_repeat_nothing(window: Watched, page: Page) -> None:
    held = hold(page, "**/api/tags")
    page.goto(f"{page.url}?text=rain&tags=No+such+tag")
    expect(page.locator("#message")).to_contain_text("no clip has this tag")
    before = len(window.asked)
    held[0].continue_()
    until(lambda: page.locator("#names option").count() > 0)
    expect(page.locator("#message .tags")).to_be_hidden()
    assert len(window.asked) == before
    page.get_by_role("searchbox").fill("")
    page.clock.run_for(1000)
    expect(page.locator("#message .tags li").first).to_be_visible()


def test_a_filter_chosen_while_typing_narrows_the_words(window: Watched, page: Page) -> None:
    search(page, "rain")
    page.get_by_role("searchbox").press_sequentially(" on a roof")
    before = len(window.asked)
    tag = page.locator("#results .tags button").first
    name = tag.inner_text()
    tag.click()
    expect(page.locator("#status")).to_contain_text("“rain on a roof”")
    expect(page.locator("#filters li")).to_have_text([f"{name}×"])
    page.clock.run_for(1000)
    assert len([address for address in window.asked[before:] if "/api/search" in address]) == 1
    page.go_back()
    expect(page.locator("#status")).to_contain_text("“rain”")


def test_a_link_followed_while_typing_stays_followed(page: Page) -> None:
    search(page, "rain")
    page.get_by_role("searchbox").press_sequentially(" on a roof")
    page.get_by_role("link", name="Link to this clip").first.click()
    page.clock.run_for(1000)
    expect(page.locator("#status")).to_have_text("One clip")
    address = page.url
    page.get_by_role("searchbox").fill("rain on a roof of tin")
    page.clock.run_for(1000)
    expect(page.locator("#status")).to_contain_text("“rain on a roof of tin”")
    page.go_back()
    expect(page.locator("#status")).to_have_text("One clip")
    assert page.url == address


def test_the_way_back_while_typing(page: Page) -> None:
    search(page, "a bell")
    search(page, "rain")
    page.get_by_role("searchbox").press_sequentially(" on a roof")
    page.go_back()
    page.clock.run_for(1000)
    expect(page.locator("#status")).to_contain_text("“a bell”")
    assert page.get_by_role("searchbox").input_value() == "a bell" and page.url.endswith("?text=a+bell")


def test_an_answer_that_comes_late_shows_nothing(page: Page) -> None:
    held = hold(page, TYPED)
    page.get_by_role("searchbox").fill("rain")
    page.keyboard.press("Enter")
    comes(page, held, 1)
    search(page, "a bell")
    shown = page.locator("#results").inner_html()
    held[0].continue_()
    page.go_back()
    comes(page, held, 2)
    page.go_back()
    expect(page.locator("#message")).to_contain_text("Describe a sound")
    held[1].continue_()
    search(page, "a bell")
    assert page.locator("#results").inner_html() == shown


def test_a_file_chosen_while_a_search_runs_is_searched(page: Page, dataset: str, tmp_path: Path) -> None:
    held = hold(page, TYPED)
    page.get_by_role("searchbox").fill("rain")
    page.keyboard.press("Enter")
    comes(page, held, 1)
    page.get_by_role("searchbox").press_sequentially(" on a roof")
    (tmp_path / "my.flac").write_bytes(flac_of(dataset, ClipIndex(dataset).keys[0]))
    field = choose(page, tmp_path / "my.flac")
    expect(page.locator("#status")).to_contain_text("“rain on a roof” and the sound of my.flac")
    assert field.input_value() == "", "the same file can be chosen again"
    held[0].continue_()
    page.clock.run_for(1000)
    expect(page.locator("#status")).to_contain_text("the sound of my.flac")


def test_a_refused_file_ends_the_search_that_runs(page: Page, large: Path) -> None:
    held = hold(page, TYPED)
    page.get_by_role("searchbox").fill("rain")
    page.keyboard.press("Enter")
    comes(page, held, 1)
    choose(page, large)
    expect(page.locator("#message")).to_contain_text("1 MB")
    held[0].continue_()
    page.clock.run_for(1000)
    expect(page.locator("#message")).to_contain_text("1 MB")
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")


def test_the_tags_that_come_late_leave_the_message_on_a_refused_file(page: Page, large: Path) -> None:
    held = hold(page, "**/api/tags")
    page.reload()
    choose(page, large)
    held[0].continue_()
    until(lambda: page.locator("#names option").count() > 0)
    expect(page.locator("#message")).to_contain_text("1 MB")

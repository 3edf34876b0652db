"""A real browser for tests: Debian's Chromium, driven by Playwright."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

VARIABLE = "BLAT_CHROMIUM"
PATIENCE_S = 60
TIMEOUT_MS = 60_000  # many times what it takes on a machine with nothing else to do
PLAYED = "[...document.querySelectorAll('audio')].some(sound => sound.currentTime > 0.2)"
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def program() -> str:
    """Return the browser's path; skips the test where there is none."""
    found = os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, NAMES)), "")
    if not found:
        pytest.skip(f"no browser: install chromium, or set {VARIABLE} to its path")
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    """Run the browser without a window."""
    path = program()
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A page, what it wrote to the console as an error, and the addresses that it asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: (self.errors.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))


@contextmanager
def opened(
    browser: Browser, url: str, width: int = 1280, height: int = 900, scheme: str = "light"
) -> Iterator[Watched]:
    """Open an address in a window without memory of others."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.set_default_timeout(TIMEOUT_MS)
    watched = Watched(context.new_page())
    watched.page.goto(url)
    yield watched
    context.close()


@contextmanager
def checked(browser: Browser, url: str) -> Iterator[Watched]:
    """Open an address; at the end it has written no error but of refused requests, and has asked nobody else."""
    with opened(browser, url) as window:
        yield window
        assert not [error for error in window.errors if "status of 4" not in error]
        assert all(address.startswith((url, "blob:")) for address in window.asked)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; Playwright's own waiting is forbidden by the policy of the page."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def search(page: Page, text: str) -> None:
    page.get_by_role("searchbox").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text(f"“{text}”")

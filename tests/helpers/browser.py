"""The system's Chromium, without a screen, a sandbox (CI runs as root) or requests of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Playwright

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """Start it with a profile of its own, and stop it at the end."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found is not None, "the tests of the page need Debian's chromium: make browser"
    browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
    try:
        yield browser
    finally:
        browser.close()

"""A picture of a night's page, by the system's chromium: `python jobs/page_picture.py report/index.html page.webp`."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from PIL import Image

from patchead.cli import run_command
from patchead.errors import SettingsError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """Start the system's Chromium, without a screen, a sandbox (CI runs as root) or requests of its own; stop it.

    Raises:
        SettingsError: it is not installed.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise SettingsError("the page is looked at by Debian's chromium, which is not installed: make browser")
    browser = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
    try:
        yield browser
    finally:
        browser.close()


def draw_page(page: Path, out: Path, width: int = 1360, height: int = 1500, *, dark: bool = False) -> None:
    """Open a page as a person does, choose the images, and write what is seen as WebP.

    Raises:
        SettingsError: there is no such page, or chromium is not installed.
    """
    from playwright.sync_api import sync_playwright

    if not page.is_file():
        raise SettingsError(f"page: {page} does not exist. `patchead report` writes index.html into its folder.")
    with sync_playwright() as playwright, chromium(playwright) as browser:
        scheme = "dark" if dark else "light"
        shown = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
        shown.goto(page.resolve().as_uri())
        shown.wait_for_load_state("load")
        for picture in shown.locator("#grid img, #stack img").all()[:20]:
            picture.evaluate("(picture) => picture.decode()")
        seen = shown.screenshot()
    Image.open(io.BytesIO(seen)).save(out, "WEBP", quality=80, method=6)


def main(
    page: Annotated[Path, typer.Argument(help="index.html of a report.")],
    out: Annotated[Path, typer.Argument(help="The picture, .webp.")],
    width: Annotated[int, typer.Option(min=200)] = 1360,
    height: Annotated[int, typer.Option(min=200)] = 1500,
    dark: Annotated[bool, typer.Option("--dark", help="As it is at night.")] = False,
) -> None:
    """Draw a picture of a report's page."""
    draw_page(page, out, width, height, dark=dark)


if __name__ == "__main__":
    job = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    job.command()(main)
    run_command(job)

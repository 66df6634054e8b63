"""The page in a real browser, from a disk: nothing is asked of a network, nothing is written to the console."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from page_picture import chromium
from playwright.sync_api import Browser, Page, Route, sync_playwright

from patchead.printed import plain
from patchead.report.write import ReportRequest, write_report
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.report_lakes import BIDI, HOSTILE, NIGHT, feedback_rows, lake_of_nights

pytestmark = pytest.mark.slow  # a browser, and 5,000 pictures

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as started:
        yield started


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Open a page; at the end it must have asked for files alone, and its console must be empty."""
    faults: list[str] = []
    contexts = []

    def open_page(file: str, width: int = 1360, height: int = 900, scheme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)

        def route(asked: Route) -> None:
            if asked.request.url.startswith(("file:", "data:", "blob:")):
                asked.continue_()
            else:
                faults.append(f"asked for {asked.request.url}")
                asked.abort()

        context.route("**/*", route)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        page.goto(Path(file).as_uri())
        page.wait_for_selector("#grid button")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    return lake_of_nights(
        tmp_path_factory.mktemp("nights"), [HOSTILE, "nut"], images=40, flagged=3, hostile=True, failed=2,
        stations=(HOSTILE, BIDI), repeats=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(lake: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    request = ReportRequest(lake, str(tmp_path_factory.mktemp("report")))
    return write_report(request, Storage(), lambda line: None).uri


def shown(page: Page) -> int:
    return int((page.text_content("#count") or "").split()[0])


def test_filters(opened: Open, report: str) -> None:
    page = opened(report)
    assert shown(page) == 84
    page.select_option("#by-verdict", "flagged")
    assert shown(page) == page.locator("#grid button").count() == 6
    page.select_option("#by-group", label="nut")
    assert shown(page) == 3
    page.select_option("select[data-key=station]", index=1)
    assert 0 < shown(page) < 3
    page.click("text=Clear")
    page.locator("#count", has_text="84 of 84").wait_for()
    page.fill("#by-name", "00007")
    assert shown(page) == 2
    page.select_option("#by-verdict", "lacking")
    assert page.locator("#viewer").is_hidden()
    page.click("text=Clear")
    page.locator("#count", has_text="84 of 84").wait_for()
    page.click("a.choose[data-repeat]")
    page.locator("#count", has_text="family 1").wait_for()
    assert shown(page) == 3
    page.click(".places a.choose >> nth=0")
    page.locator("#count", has_text="42 of 84").wait_for()
    assert page.input_value("select[data-key=station]") in (HOSTILE, plain(BIDI))
    page.fill("#by-name", "there is none")
    assert page.text_content("#grid") == "No image is like this."


def test_pages_and_keys_go_through_all_images(opened: Open, report: str) -> None:
    page = opened(report)
    first = page.text_content("#chosen")
    for _ in range(60):
        page.keyboard.press("j")
    assert page.text_content("#where") == "page 2 of 2"
    assert page.text_content("#chosen") != first
    for _ in range(70):
        page.keyboard.press("k")
    assert page.text_content("#chosen") == first
    page.focus("#by-name")
    page.keyboard.type("jk")  # a letter in a field is a letter
    assert page.input_value("#by-name") == "jk"
    page.click("text=Clear")
    page.locator("#count", has_text="84 of 84").wait_for()
    page.uncheck("#listening")
    page.keyboard.press("j")
    assert page.text_content("#chosen") == first
    page.check("#listening")
    page.focus("#grid button >> nth=0")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.dataset.at") == "1"  # what has the focus keeps it


def test_the_heatmap_fades_and_regions_can_be_hidden(opened: Open, report: str) -> None:
    page = opened(report)
    for name in (".photo", ".heat"):
        page.locator(name).evaluate("(picture) => picture.decode()")
    assert page.locator("#regions rect.over").count() == 2
    page.fill("#fade", "30")
    assert page.evaluate("getComputedStyle(document.getElementById('heat')).opacity") == "0.3"
    page.keyboard.press("h")
    assert page.evaluate("getComputedStyle(document.getElementById('heat')).opacity") == "0"
    page.keyboard.press("r")
    assert page.locator("#regions").is_hidden()
    boxes = "['#heat', '.photo'].map((name) => JSON.stringify(document.querySelector(name).getBoundingClientRect()))"
    heat, photo = page.evaluate(boxes)
    assert heat == photo


def test_names_are_shown_as_they_are_and_do_nothing(opened: Open, report: str) -> None:
    page = opened(report)
    assert page.locator("#groups tbody th").first.text_content() in (HOSTILE, "nut")
    assert HOSTILE in (page.locator("#by-keys option").all_text_contents())
    assert page.locator("main img[src=x]").count() == 0
    assert "\\u202egnp.exe" in (page.text_content("#chosen") or "")


def test_verdicts_are_saved_as_feedback_takes_them(opened: Open, report: str, lake: str, tmp_path: Path) -> None:
    page = opened(report)
    page.keyboard.press("f")  # a defect
    page.keyboard.press("j")
    page.keyboard.press("f")
    page.keyboard.press("f")  # good
    page.keyboard.press("j")
    page.click("#say-defect")
    page.click("#say-defect")  # no verdict after all
    assert page.text_content("#save") == "Save 2 verdicts"
    with page.expect_download() as download:
        page.click("#save")
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert saved.name == f"verdicts-{NIGHT}.csv"
    done = patchead("feedback", str(saved), "--lake", lake)
    assert done.code == 0, done.err
    recorded = feedback_rows(lake)
    assert sorted(row["verdict"] for row in recorded) == ["defect", "good"]
    assert all("\u202e" in row["image_id"] for row in recorded)  # the very name, not what is shown of it
    assert {row["run_id"] for row in recorded} == {f"run-{NIGHT}"}


def test_themes(opened: Open, report: str) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = opened(report), opened(report, scheme="dark")
    assert light.evaluate(colour) != dark.evaluate(colour)
    before = light.evaluate(colour)
    light.click("#theme")  # light
    light.click("#theme")  # dark
    assert light.evaluate(colour) == dark.evaluate(colour)
    light.click("#theme")
    assert light.evaluate(colour) == before


@pytest.mark.parametrize("width", [390, 768, 1360])
def test_it_fits_and_everything_has_a_name(opened: Open, report: str, width: int) -> None:
    page = opened(report, width, 844)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    unnamed = """[...document.querySelectorAll("img, button, select, input, svg[role=img], [role=region]")].filter(
        (e) => !e.closest("[hidden]") && e.getAttribute("alt") === null && !e.getAttribute("aria-label") &&
        !e.getAttribute("aria-labelledby") && !e.textContent.trim() && !(e.labels && e.labels.length)).length"""
    assert page.evaluate(unnamed) == 0
    assert page.evaluate("document.querySelectorAll('h1').length") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(opened: Open, report: str, scheme: str) -> None:
    """At least 4.5 to 1 for every colour of text on every colour that lies under text."""
    page = opened(report, scheme=scheme)
    names = ["ink", "muted", "hot", "link", "paper", "card", "press", "tint"]
    style = "getComputedStyle(document.documentElement)"
    colours = {name: page.evaluate(f"{style}.getPropertyValue('--{name}').trim()") for name in names}
    for text in ("ink", "muted", "hot", "link"):
        for under in ("paper", "card", "press") if text != "hot" else ("paper", "card", "tint"):
            assert contrast(colours[text], colours[under]) >= 4.5, (text, under)


def contrast(one: str, other: str) -> float:
    first, second = sorted((luminance(one), luminance(other)), reverse=True)
    return (first + 0.05) / (second + 0.05)


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_it_prints_without_its_controls(opened: Open, report: str) -> None:
    page = opened(report)
    page.emulate_media(media="print")
    assert page.locator("#filters").is_hidden()
    assert page.locator("#charts svg").first.is_visible()


def test_five_thousand_images(opened: Open, tmp_path: Path) -> None:
    """They are a page at a time; how long the first picture takes is printed, as a busy machine may be slow."""
    lake = lake_of_nights(tmp_path, [f"part-{number:02d}" for number in range(20)], images=250, flagged=12)
    started = time.perf_counter()
    done = write_report(ReportRequest(lake, f"{tmp_path}/out"), Storage(), lambda line: None)
    written = time.perf_counter() - started
    started = time.perf_counter()
    page = opened(done.uri)
    page.locator("#grid img").first.evaluate("(picture) => picture.decode()")
    first = time.perf_counter() - started
    size = sum(file.stat().st_size for file in Path(done.uri).parent.rglob("*") if file.is_file())
    print(f"5,000 images: written in {written:.1f} s, {size / 1e6:.1f} MB, first picture after {first:.2f} s")
    assert page.text_content("#where") == "page 1 of 84"
    assert page.locator("#grid img").count() == 60
    asked = page.evaluate(
        "performance.getEntriesByType('resource').filter((e) => e.name.includes('thumbnails')).length"
    )
    assert asked <= 60
    page.select_option("#by-group", label="part-07")
    assert page.text_content("#count") == "250 of 5000 images, 12 flagged"

"""Nothing that a name says becomes a part of the page: what a reader of HTML finds there is ours."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from patchead.report.page import as_data
from patchead.report.write import Report, ReportRequest, write_report
from patchead.storage import Storage
from tests.helpers.report_lakes import BIDI, HOSTILE, lake_of_nights

STEERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"


class Reader(HTMLParser):
    """The elements of a page with their attributes, and the text of each script."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str, Reader]:
    folder = tmp_path_factory.mktemp("hostile")
    lake = lake_of_nights(
        folder, [HOSTILE, BIDI], images=6, hostile=True, failed=2, stations=(HOSTILE, BIDI), repeats=True
    )
    done = write_report(ReportRequest(lake, f"{folder}/out"), Storage(), lambda line: None)
    text = Path(done.uri).read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    return done, text, reader


def test_names_become_no_elements_and_no_attributes(made: tuple[Report, str, Reader]) -> None:
    _, _, reader = made
    assert [tag for tag, _ in reader.elements if tag in ("script", "img", "iframe", "object", "base", "form")] == [
        "form", "script", "script",
    ]  # fmt: skip
    handlers = [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]
    assert handlers == []


def test_the_data_are_what_was_given_and_cannot_end_their_element(made: tuple[Report, str, Reader]) -> None:
    _, _, reader = made
    data = json.loads(reader.scripts[0])
    assert HOSTILE in data["keys"]["station"]
    named = [image for image in data["images"] if BIDI.replace("/", "_") in image["id"]]
    assert len(named) == 8
    assert all("\\u202e" in image["name"] and "\u202e" not in image["name"] for image in named)
    assert not set(reader.scripts[0]) & set("<>&'")


def test_nothing_steers_the_eyes_of_a_reader(made: tuple[Report, str, Reader]) -> None:
    assert not set(made[1]) & set(STEERING)
    assert "\\u202egnp.exe" in made[1]


def test_addresses_are_of_this_folder_alone_and_hold_no_name(made: tuple[Report, str, Reader]) -> None:
    done, text, reader = made
    found = [a[name] for _, a in reader.elements for name in ("href", "src", "xlink:href") if a.get(name)]
    assert found
    assert [address for address in found if not (address or "").startswith(("#", "data:,"))] == []
    files = [file for image in json.loads(reader.scripts[0])["images"] for file in image.get("files", {}).values()]
    assert all((Path(done.uri).parent / file).is_file() for file in files)
    assert all(set(file) <= set("abcdefghijklmnopqrstuvwxyz0123456789/.-") for file in files)
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text
    assert "@import" not in text


def test_the_policy_allows_this_script_alone(made: tuple[Report, str, Reader]) -> None:
    (policy,) = [a["content"] or "" for tag, a in made[2].elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "&amp;", "\u2028", "\ud800", "it's", '"', "\\u003c"])
def test_any_text_comes_back_out_of_the_data(text: str) -> None:
    written = str(as_data({"name": text}))
    assert written.isascii()
    assert not set(written) & set("<>&'")
    assert json.loads(written) == {"name": text}

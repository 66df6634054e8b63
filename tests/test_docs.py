"""What the documents say is there: generated pages are current, sections and links resolve, commands exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from write_pages import DOCS, PAGES

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", PAGES)
def test_a_page_made_from_the_code_is_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run `make pages` and commit what it writes"

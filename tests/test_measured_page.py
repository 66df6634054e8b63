"""A page of figures: a command replaces its machine's section and no other; the repository's own pages are so made."""

from __future__ import annotations

from pathlib import Path

import benchmark
import pytest
import study
from measured_page import Origin, machine, section, sections, write_page

from patchead.scoring.precision_probe import processor

HERE, THERE = "AMD EPYC (AVX2), 2 CPUs, Linux", "Intel Xeon (AMX), 2 CPUs, Linux"
DOCS = Path(__file__).parent.parent / "docs"
PAGES = {"results.md": study.INTRODUCTION, "performance.md": benchmark.INTRODUCTION}


def test_a_section_says_machine_command_and_day() -> None:
    origins = [Origin(HERE, "jobs/study.py", "2026-11-24")] * 2 + [Origin(HERE, "jobs/study.py --only a", "2026-11-25")]
    assert section(HERE, origins, "\n| a |\n").splitlines() == [
        f"## {HERE}",
        "",
        "By `jobs/study.py` on 2026-11-24, `jobs/study.py --only a` on 2026-11-25.",
        "",
        "| a |",
    ]


def test_the_section_of_another_machine_stays_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    first = section(THERE, [Origin(THERE, "jobs/a.py", "2026-11-22")], "### A table\n\n| 1 |\n\n### Another\n\n| 2 |")
    write_page(page, "# Title\n\nHow to read it.", {THERE: first})
    write_page(page, "# Title\n\nHow to read it.", {HERE: section(HERE, [], "old")})
    write_page(page, "# Title\n\nHow to read it.", {HERE: section(HERE, [], "new")})
    text = page.read_text()
    assert text.startswith("# Title\n\nHow to read it.\n\n## ")
    assert first in text
    assert list(sections(text)) == [THERE, HERE]
    assert "new" in text
    assert "old" not in text
    write_page(page, "# Title", {})
    assert sections(page.read_text()) == sections(text)


def test_the_machine_is_named_by_its_processor() -> None:
    assert machine().startswith(f"{processor()}, ")
    assert Origin.here().machine == machine()


def test_a_command_is_told_without_the_places_it_writes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sys.argv", ["/home/me/jobs/study.py", "--only", "elpv", "--output", "/here.json", "--write=p.md"]
    )
    assert Origin.here().command == "jobs/study.py --only elpv"


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_of_the_repository_are_what_their_commands_would_leave(name: str, tmp_path: Path) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    copy = tmp_path / name
    copy.write_text(text, encoding="utf-8")
    write_page(copy, PAGES[name], {})
    assert copy.read_text(encoding="utf-8") == text
    for found in sections(text).values():
        heading, _, origin = found.splitlines()[:3]
        assert "CPUs" in heading
        assert origin.startswith("By `jobs/")

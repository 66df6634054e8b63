"""A page of figures: a command replaces the tables that it made, and no other; the repository's own are so made."""

from __future__ import annotations

from pathlib import Path

import benchmark
import pytest
import study
from measured_page import Origin, machine, tables, with_origins, write_page

from patchead.scoring.precision_probe import processor

HERE, THERE = "AMD EPYC (AVX2), 2 CPUs, Linux", "Intel Xeon (AMX), 2 CPUs, Linux"
DOCS = Path(__file__).parent.parent / "docs"
PAGES = {"results.md": study.INTRODUCTION, "performance.md": benchmark.INTRODUCTION}


def test_a_table_says_by_what_command_and_when_it_was_measured() -> None:
    origins = [Origin(HERE, "jobs/study.py", "2026-11-24")] * 2 + [Origin(HERE, "jobs/study.py --only a", "2026-11-25")]
    assert with_origins(origins, "\n| a |\n").splitlines() == [
        "By `jobs/study.py` on 2026-11-24, `jobs/study.py --only a` on 2026-11-25.",
        "",
        "| a |",
    ]


def test_other_tables_and_other_machines_stay_as_they_are(tmp_path: Path) -> None:
    page, title = tmp_path / "page.md", "# Title\n\nHow to read it."
    write_page(page, title, THERE, {"first": "By them.\n\n| 1 |", "second": "| 2 |"})
    write_page(page, title, HERE, {"first": "old", "third": "kept"})
    write_page(page, title, HERE, {"first": "new"})
    assert page.read_text() == (
        f"{title}\n\n## {THERE}\n\n### first\n\nBy them.\n\n| 1 |\n\n### second\n\n| 2 |\n\n"
        f"## {HERE}\n\n### first\n\nnew\n\n### third\n\nkept\n"
    )
    before = tables(page.read_text())
    assert before[HERE] == {"first": "new\n", "third": "kept\n"}
    write_page(page, "# Another title", HERE, {})
    assert page.read_text().startswith("# Another title\n\n## ")
    assert tables(page.read_text()) == before


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
    write_page(copy, PAGES[name], machine(), {})
    assert copy.read_text(encoding="utf-8") == text
    found = tables(text)
    assert len(found) > 1 or name == "results.md"
    for heading, parts in found.items():
        assert "CPUs" in heading
        for below in parts.values():
            assert below.startswith("By `jobs/")
            assert "\n| " in below

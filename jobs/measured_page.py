"""A page of figures, a section for each machine: a command replaces the section of the machine it runs on alone."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from patchead.files import write_atomically
from patchead.scoring.precision_probe import processor

_SECTION = "## "


@dataclass(frozen=True)
class Origin:
    """Where a figure comes from: the machine, the command that printed it, and the day (YYYY-MM-DD)."""

    machine: str
    command: str
    date: str

    @classmethod
    def here(cls) -> Origin:
        """This process, now; where it writes to is no part of the command."""
        words = " ".join([f"jobs/{Path(sys.argv[0]).name}", *sys.argv[1:]])
        command = re.sub(r" --(output|write)[ =]\S+", "", words)
        return cls(machine(), command, dt.datetime.now(dt.timezone.utc).date().isoformat())


def machine() -> str:
    """Name the processor with what makes it fast, its logical CPUs and the operating system."""
    return f"{processor()}, {os.cpu_count()} CPUs, {platform.system()}"


def section(name: str, origins: Iterable[Origin], body: str) -> str:
    """Put the heading of a machine, and by which commands and when it was measured, above ``body`` (Markdown)."""
    told = dict.fromkeys(f"`{origin.command}` on {origin.date}" for origin in origins)
    return f"{_SECTION}{name}\n\nBy {', '.join(told)}.\n\n{body.strip()}\n"


def sections(page: str) -> dict[str, str]:
    """Split a page into its sections, by machine; what stands above the first is left out."""
    parts = f"\n{page}".split(f"\n{_SECTION}")[1:]
    return {part.partition("\n")[0]: f"{_SECTION}{part.strip()}\n" for part in parts}


def write_page(path: Path, introduction: str, found: dict[str, str]) -> None:
    """Write ``introduction`` and the sections in ``found``; those of other machines stay as they are on the page.

    Args:
        path: the page; it need not exist.
        introduction: the title and how to read the figures, Markdown without a heading of the second level.
        found: sections by machine, from `section`.
    """
    kept = sections(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_atomically(path, "\n".join([f"{introduction.strip()}\n", *(kept | found).values()]))

"""A page of figures: machines, and of each machine tables. A command replaces the tables that it made, and no other."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from patchead.atomic_files import write_atomically
from patchead.scoring.precision_probe import processor

_MACHINE, _TABLE = "## ", "### "


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
    """Name the GPU, if any, the processor with what makes it fast, its logical CPUs and the operating system."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{processor()}, {os.cpu_count()} CPUs, {platform.system()}"


def with_origins(origins: Iterable[Origin], body: str) -> str:
    """Put by which commands and when it was measured above a table's ``body`` (Markdown)."""
    told = dict.fromkeys(f"`{origin.command}` on {origin.date}" for origin in origins)
    return f"By {', '.join(told)}.\n\n{body.strip()}\n"


def tables(page: str) -> dict[str, dict[str, str]]:
    """Split a page into its machines and their tables, by title; what stands above the first machine is left out."""
    return {name: _parts(text, _TABLE) for name, text in _parts(page, _MACHINE).items()}


def write_page(path: Path, introduction: str, name: str, found: Mapping[str, str]) -> None:
    """Write the tables of a machine into a page; its other tables and those of other machines stay as they are.

    Args:
        path: the page; it need not exist.
        introduction: the title and how to read the figures, Markdown without further headings.
        name: of the machine.
        found: tables by title, from `with_origins`; none: only the introduction is written anew.
    """
    known = tables(path.read_text(encoding="utf-8")) if path.exists() else {}
    if found:
        known[name] = known.get(name, {}) | dict(found)
    lines = [introduction.strip()]
    for heading, parts in known.items():
        lines += [f"{_MACHINE}{heading}", *(f"{_TABLE}{title}\n\n{text.strip()}" for title, text in parts.items())]
    write_atomically(path, "\n\n".join(lines) + "\n")


def _parts(text: str, mark: str) -> dict[str, str]:
    """What stands below each heading of one level."""
    found = (part.partition("\n") for part in f"\n{text}".split(f"\n{mark}")[1:])
    return {heading: f"{below.strip()}\n" for heading, _, below in found}

"""`patchead runs --gaps`: nights of the archive that nobody has published."""

from __future__ import annotations

from rich.console import Console

from patchead.nightly.backfill import gaps
from patchead.printed import say
from patchead.settings.model import Config


def print_gaps(config: Config, console: Console) -> None:
    """Print the nights of the archive without a published run, one a line, and how many they are."""
    missing, nights = gaps(config)
    for night in missing:
        say(console, str(night))
    say(console, f"{len(missing)} of {nights} nights of the archive have no published run")

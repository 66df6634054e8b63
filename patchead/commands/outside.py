"""What the world does to a command, and nothing that is a fault of this package."""

from __future__ import annotations


def errors_from_outside() -> tuple[type[Exception], ...]:
    """List what ends a command with one line instead of a traceback, besides the errors of this package."""
    from pyarrow import ArrowException

    from patchead.storage import storage_errors

    return MemoryError, ArrowException, *storage_errors()

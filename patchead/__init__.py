"""patchead: nightly patch-level defect scoring of image archives with frozen vision encoders, on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchead.notebook import Scored, score

__all__ = ["Scored", "score"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``patchead.score``, imported when it is asked for: it takes torch with it."""
    if name in __all__:
        from patchead import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'patchead' has no attribute {name!r}")

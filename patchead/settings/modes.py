"""What a run's images are compared with, by its settings."""

from __future__ import annotations

from patchead.settings.model import Config


def few_shot(config: Config) -> bool:
    """Tell whether images are compared with prompts instead of each other."""
    return config.scoring.mode == "few_shot"


def accepted_references(config: Config) -> bool:
    """Tell whether images are compared with those of an accepted run instead of each other."""
    return config.scoring.references == "accepted"

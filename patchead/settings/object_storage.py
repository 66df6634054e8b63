"""From the settings to the object storage that they name, without what embeds and scores."""

from __future__ import annotations

from patchead.settings.model import Config
from patchead.storage import Storage


def storage(config: Config) -> Storage:
    """Make the object storage of the settings."""
    return Storage(**config.storage.model_dump())

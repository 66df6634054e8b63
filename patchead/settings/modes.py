"""What a run's images are compared with, by its settings."""

from __future__ import annotations

from patchead.settings.model import Config


def few_shot(config: Config) -> bool:
    """Tell whether images are compared with prompts instead of each other."""
    return config.scoring.mode == "few_shot"


def accepted_references(config: Config) -> bool:
    """Tell whether images are compared with those of an accepted run instead of each other."""
    return config.scoring.references == "accepted"


def fewest_images(config: Config) -> int:
    """Count the images that a group must have to be scored: whoever has prompts or accepted images needs no others."""
    return 1 if few_shot(config) or accepted_references(config) else config.scoring.min_batch


def names_by_words(config: Config) -> bool:
    """Tell whether regions are named by words."""
    return bool(config.naming.keywords) or config.naming.words is not None


def words_encoder(config: Config) -> tuple[str, str]:
    """Give name and weights of the encoder that names by words: its own, or the one that embeds."""
    if config.naming.encoder is None:
        return config.encoder.name, config.encoder.weights
    return config.naming.encoder, config.naming.weights

"""Settings of what regions are called: none of them changes a score, a verdict or a region."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from patchead.settings.section import Positive, Section

_RESERVED = "unknown"


class NamingConfig(Section):
    """Families of regions, and their names by example and by words."""

    families: bool = True
    """Describe the regions of flagged images by their patches, gather those that are alike into families that later
    nights find again, and name them by the examples that people have named, where there are any."""
    references: Positive = 64
    """Unflagged images of its group, at most, in which the normal patches of a region are looked for."""
    distance: Annotated[float, Field(gt=0, le=2)] = 0.5
    """Mean cosine distance, 0 to 2, up to which regions are of one family."""
    remember_nights: Positive = 90
    """Families of this many newest nights are found again; one that was not seen for longer is new when it comes."""
    level: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """By example a type is offered where its p-value is above this; by words where good places score as high in at most
    this share of cases. Where none is, the region is called unknown."""
    keywords: dict[str, tuple[str, ...]] = Field(default={})
    """Phrases for each type of defect, e.g. {scratch: [a scratch, a long thin line]}, for names by words."""

    encoder: str | None = None
    """CLIP of open_clip that names by words, e.g. clip-l14-336; default: encoder.name, where that is one."""
    weights: str = "hub"
    """Its weights, as encoder.weights; without naming.encoder those of encoder.weights."""
    words: str | None = None
    """File of tuned words (jobs/tune_names.py), in place of keywords; of the same encoder and weights."""
    control_words: bool = True
    """Name nothing whose words are no nearer than some of 325 that are no defects (violin, giraffe)."""

    @field_validator("keywords")
    @classmethod
    def _phrases_of_types(cls, keywords: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, phrases in keywords.items():
            if not name.strip() or name == _RESERVED:
                raise ValueError(f"{name!r} cannot be a type: give another word than {_RESERVED!r}, which is not empty")
            if not phrases or not all(phrase.strip() for phrase in phrases):
                raise ValueError(f"{name} needs at least one phrase, and none that is empty; got {list(phrases)}")
        return keywords

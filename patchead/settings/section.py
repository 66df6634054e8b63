"""What every section of the settings is made of: a frozen pydantic model, and numbers within bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
# Every float of the settings is bounded on both sides: no infinity, no NaN, and nothing made of one overflows.
Price = Annotated[float, Field(ge=0, le=1e9)]
Days = Annotated[float, Field(ge=0, le=36_500)]  # a date of so long ago exists
Seconds = Annotated[float, Field(gt=0, le=100_000)]


class Section(BaseModel):
    """Settings that belong together. Fields cannot be changed, an unknown one is refused by name.

    A field's docstring is its description: help texts and tables of settings are made from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, coerce_numbers_to_str=True)

"""An outcome of naming tells whether a type is offered."""

from __future__ import annotations

from patchead.naming.named import UNKNOWN, Named


def test_a_type_is_offered_unless_it_is_unknown() -> None:
    assert Named("scratch", 0.9, 0.4, "stain", "example").is_known
    assert not Named(UNKNOWN, 0.9, 0.01, "stain", "words").is_known

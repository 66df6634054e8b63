"""What an archive holds but images, and what of images cannot be read: counted, with examples, so that nothing is
passed over unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

NO_RANGES = "archives that cannot be read by ranges"
SYMBOLIC_LINKS = "symbolic links in tars"
NO_FILES = "devices and links to no image in tars"
NO_SUFFIX = "without a suffix"
OTHER_SUFFIXES = "of other suffixes"
NO_TIME = "captured_at that are no time"
_ARCHIVES = r"(?i)\.(tar\.[a-z0-9]+|t[gbx]z2?|tzst|taz|zip|7z|rar|gz|bz2|xz|zst)$"
_SUFFIX = r"\.(?P<suffix>[A-Za-z0-9_]{1,10})$"
_EXAMPLES = 3
_MOST = 40


@dataclass
class LeftOut:
    """Count what is no image, by suffix or by what it is, or values that are none, with first examples."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Count all of it."""
        return sum(self.counts.values())

    def add(self, what: str, example: str, count: int = 1) -> None:
        """Count more of ``what``, of which ``example`` is one."""
        self._join(what, [example], count)

    def add_paths(self, paths: pa.Array) -> None:
        """Count files by their suffix."""
        packed = pc.match_substring_regex(paths, _ARCHIVES)
        suffix = pc.utf8_lower(pc.struct_field(pc.extract_regex(paths, _SUFFIX), "suffix"))
        named = pc.fill_null(pc.binary_join_element_wise(".", suffix, ""), NO_SUFFIX)
        what = pc.if_else(packed, NO_RANGES, named)
        for found in pc.value_counts(what).to_pylist():
            examples = paths.filter(pc.equal(what, found["values"])).slice(0, _EXAMPLES).to_pylist()
            self._join(found["values"], examples, found["counts"])

    def join(self, other: LeftOut) -> None:
        """Count what another part of the archive holds."""
        for what, count in other.counts.items():
            self._join(what, other.examples[what], count)

    def lines(self) -> list[str]:
        """Write one line for each kind, the most frequent first: ``3 .txt: a.txt, b.txt, c.txt``."""
        ordered = sorted(self.counts.items(), key=lambda found: (-found[1], found[0]))
        return [f"{count} {what}: {self._some(what)}{_REMEDIES.get(what, '')}" for what, count in ordered]

    def as_json(self) -> dict[str, Any]:
        """Give plain JSON values: by suffix its count and examples."""
        return {what: {"count": self.counts[what], "examples": self.examples[what]} for what in sorted(self.counts)}

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> LeftOut:
        """Undo `as_json`."""
        counts = {what: value["count"] for what, value in found.items()}
        return cls(counts, {what: value["examples"] for what, value in found.items()})

    def _join(self, what: str, examples: list[str], count: int) -> None:
        if what not in self.counts and len(self.counts) >= _MOST:
            what = OTHER_SUFFIXES
        self.counts[what] = self.counts.get(what, 0) + count
        kept = self.examples.setdefault(what, [])
        kept += examples[: _EXAMPLES - len(kept)]

    def _some(self, what: str) -> str:
        more = ", …" if self.counts[what] > len(self.examples[what]) else ""
        return ", ".join(self.examples[what]) + more


_REMEDIES = {
    NO_RANGES: ". Unpack them, or write plain .tar",
    NO_TIME: ". They are null; write ISO 8601 (2026-11-21T02:00:00+01:00) or seconds since 1970",
    SYMBOLIC_LINKS: ". What they point to is scored under its own name",
}

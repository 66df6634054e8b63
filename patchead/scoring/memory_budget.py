"""What scoring holds in memory, part by part, and the schedule and block sizes that keep it within a budget.

One model for everybody: the kernels take their block sizes from it, the plan cuts groups by it, and the report of a
plan prints its sums. The budget covers all that scoring allocates above the float16 embeddings it is given: prepared
vectors, the similarity matrix of two blocks, the strip of maxima, candidates and scratch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from patchead.errors import PlanError, SettingsError, bad_argument
from patchead.scoring.aggregate import neighbours
from patchead.scoring.precision import PREPARE_VALUES, dtype_of, maxima_dtype

GIGABYTE = 10**9
SCHEDULES = ("auto", "symmetric", "row_stationary")
STORED_BYTES = 2  # a float16 value of an embedding file
SCORE_BYTES = 4  # a float32 distance or score
PATCHES_KEPT = 6
"""Patches per image that are kept as evidence of a repeated defect."""
_SHARE_TESTED = 0.25
_MOST_TESTED = 512


def matmul_bytes(memory_bytes: int) -> int:
    """Return the part of the budget that one similarity matrix may take: a sixteenth. Its maxima get as much again."""
    return memory_bytes // 16


def neighbours_tested(references: int) -> int:
    """Count the nearest images that the burn-out test looks behind: a quarter of the references, at most 512."""
    return max(1, min(_MOST_TESTED, int(_SHARE_TESTED * references)))


def evidence_bytes(references: int) -> int:
    """Count the bytes that one image's evidence of repeats takes, see `burn_out.Evidence`."""
    return PATCHES_KEPT * (4 + 8 + 4 + 4 * neighbours_tested(references))


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Describe the scoring of one group, as far as its memory goes."""

    images: int
    """N, the images that are scored."""
    patches: int
    """P of one sample."""
    dim: int
    """D."""
    references: int
    """Images that stream past a query block: the group, its panel, or the prompts."""
    precision: str = "fp32"
    fraction: float = 0.3
    """K as a fraction of the references."""
    repeats: bool = False
    """Whether repeated defects are looked for."""

    @property
    def stored_bytes(self) -> int:
        """Count the bytes of one image's embeddings as they are stored, float16 (P, D)."""
        return self.patches * self.dim * STORED_BYTES

    @property
    def vector_bytes(self) -> int:
        """Count the bytes of one image's prepared vectors and of the stored ones they are made from."""
        return self.patches * self.dim * dtype_of(self.precision).itemsize + self.stored_bytes

    @property
    def strip_bytes(self) -> int:
        """Count the bytes of the symmetric schedule's strip: one cosine per patch and image, (N, N, P)."""
        return self.images * self.images * self.patches * maxima_dtype(dtype_of(self.precision)).itemsize

    @property
    def distance_bytes(self) -> int:
        """Count the bytes of the distances float32 (P,) of one image's patches to one reference."""
        return self.patches * SCORE_BYTES

    @property
    def scratch_bytes(self) -> int:
        """Count the bytes that `precision.prepare` converts in: float16, float32, and for int8 the rotated copies."""
        values = min(PREPARE_VALUES, max(self.images, self.references) * self.patches * self.dim)
        if self.precision != "int8":
            return values * (STORED_BYTES + 4)
        return values * (STORED_BYTES + 4 + 4 + 1) + self.dim * self.dim * 4

    @property
    def candidates(self) -> int:
        """Count the candidates held per patch while references stream past: twice K, so that sorting is rare."""
        return min(self.references, 2 * int(neighbours(self.references, self.fraction)))

    def candidate_bytes(self, held: int) -> int:
        """Count the bytes of ``held`` candidates (and the one that `NearestMean` adds) for the patches of one image."""
        return (held + 1) * self.distance_bytes

    def burn_out_bytes(self, held: int) -> int:
        """Count the bytes of the burn-out test of one image's patches: ``held`` references as int64, and their means.

        0 where repeated defects are not looked for.
        """
        return (held * self.patches * 8 + self.images * SCORE_BYTES) if self.repeats else 0

    @property
    def tested(self) -> int:
        """Count the references that the burn-out test holds per patch."""
        return 2 * (neighbours_tested(self.references) + 1)

    def symmetric_bytes(self, block: int) -> int:
        """Count the bytes of the symmetric schedule in blocks of ``block`` images: strip, vectors, scratch."""
        matching = self.scratch_bytes + min(self.images, 2 * block) * self.vector_bytes
        return self.strip_bytes + max(matching, self.strip_reduction_bytes)

    @property
    def strip_reduction_bytes(self) -> int:
        """Count the bytes of reducing one image's part of the strip: its distances, as many candidates, the test.

        The test makes relative distances and keys of all the distances at once: 16 bytes each.
        """
        making = 2 * self.burn_out_bytes(self.images)
        return 2 * self.candidate_bytes(self.images) + self.burn_out_bytes(self.tested) + making

    def query_block_bytes(self, block: int, at_once: int) -> int:
        """Count the bytes of ``block`` query images and their candidates while ``at_once`` references are in hand."""
        held = self.candidate_bytes(self.candidates) + self.burn_out_bytes(self.tested)
        making = self.burn_out_bytes(2 * at_once)
        return (
            self.scratch_bytes
            + block * (self.vector_bytes + held + making)
            + at_once * (self.vector_bytes + block * self.distance_bytes)
        )

    def tile_bytes(self, block: int) -> int:
        """Count the bytes of one tile of two blocks, both directions, with its vectors."""
        return self.scratch_bytes + 2 * block * (self.vector_bytes + block * self.distance_bytes)

    def reduction_bytes(self, block: int) -> int:
        """Count the bytes of reducing the tiles of a query block: one tile at a time, twice while it is copied."""
        held = self.candidate_bytes(self.candidates) + self.burn_out_bytes(self.tested)
        return block * (held + 2 * block * self.distance_bytes + self.burn_out_bytes(2 * block))

    def choose_schedule(self, memory_bytes: int, schedule: str = "auto") -> str:
        """Choose ``symmetric``, half the work, where its strip takes up to 3/4 of the budget, else ``row_stationary``.

        Raises:
            SettingsError: unknown schedule.
            PlanError: ``symmetric`` was asked for and its strip does not fit.
        """
        if schedule not in SCHEDULES:
            raise SettingsError(bad_argument("schedule", schedule, f"one of {', '.join(SCHEDULES)}"))
        fits = 4 * self.strip_bytes <= 3 * memory_bytes
        if schedule == "symmetric" and not fits:
            raise PlanError(
                f"`schedule` symmetric needs a strip of {_gb(self.strip_bytes)} for {self.images} images of "
                f"{self.patches} patches, and takes at most 3/4 of `memory_bytes` ({_gb(memory_bytes)}). Set "
                f"`schedule` to auto, or `memory_bytes` to {self.strip_bytes * 4 / 3e9:.3g} GB or more."
            )
        if schedule == "auto":
            return "symmetric" if fits else "row_stationary"
        return schedule

    def block_images(self, memory_bytes: int, schedule: str) -> int:
        """Return the most images per block, 1 to N, that fit the budget with what goes with them.

        Args:
            memory_bytes: the budget.
            schedule: ``symmetric`` (with the strip) or ``row_stationary`` (as many references at once as queries).

        Raises:
            PlanError: not even one image fits.
        """
        if schedule == "symmetric":
            found = _largest(self.symmetric_bytes, self.images, usable_bytes(memory_bytes, schedule))
            least = self.symmetric_bytes(1)
        else:
            found = _largest(
                lambda block: self.query_block_bytes(block, block), self.images, usable_bytes(memory_bytes, schedule)
            )
            least = self.query_block_bytes(1, 1)
        if found < 1:
            wanted = least * memory_bytes / usable_bytes(memory_bytes, schedule) / GIGABYTE
            raise PlanError(
                f"`memory_bytes` ({_gb(memory_bytes)}) does not hold one image of {self.patches} patches and "
                f"{self.dim} dimensions of a group of {self.images} (schedule {schedule}). "
                f"Set it to {wanted:.3g} GB or more."
            )
        return found

    def references_at_once(self, memory_bytes: int, block: int) -> int:
        """Return how many references may be compared with ``block`` query images at a time.

        Raises:
            PlanError: not even one.
        """
        usable = usable_bytes(memory_bytes, "row_stationary")
        found = _largest(lambda at_once: self.query_block_bytes(block, at_once), max(1, self.references), usable)
        if found < 1:
            raise PlanError(
                f"`memory_bytes` ({_gb(memory_bytes)}) does not hold {block} query images and one reference. "
                "Use query blocks of Workload.block_images(...) images, or raise it."
            )
        return found


def usable_bytes(memory_bytes: int, schedule: str) -> int:
    """Return the budget without the similarity matrix and its maxima and, where references stream, a reserve.

    The reserve, as much again, is what the allocator keeps of blocks of changing size.
    """
    return memory_bytes - (2 if schedule == "symmetric" else 4) * matmul_bytes(memory_bytes)


def _largest(needed: Callable[[int], int], most: int, available: int) -> int:
    """The largest count up to ``most`` that needs no more than is available, 0 if none; ``needed`` grows with it."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= available else (low, middle - 1)
    return low


def _gb(size: int) -> str:
    return f"{size / GIGABYTE:.3g} GB"

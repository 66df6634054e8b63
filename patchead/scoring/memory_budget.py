"""What scoring holds in memory, and the schedule and block sizes that keep it within a budget.

The budget covers everything that scoring allocates above the float16 embeddings it is given: prepared vectors,
the product, the strip of maxima, candidates and scratch.
"""

from __future__ import annotations

from math import isqrt

from patchead.errors import PlanError, SettingsError, bad_value
from patchead.scoring.aggregate import neighbours
from patchead.scoring.precision import PREPARE_VALUES, dtype_of, maxima_dtype

GIGABYTE = 10**9
SCHEDULES = ("auto", "symmetric", "row_stationary")
STORED_BYTES = 2  # a float16 value of an embedding file
SCORE_BYTES = 4  # a float32 distance or score


def strip_bytes(n: int, p: int, precision: str = "fp32") -> int:
    """Bytes of the symmetric schedule's strip: one cosine per patch and reference, (N, N, P)."""
    return n * n * p * maxima_dtype(dtype_of(precision)).itemsize


def matmul_bytes(memory_bytes: int) -> int:
    """The part of the budget that one matrix product may take: a sixteenth. Its maxima get as much again."""
    return memory_bytes // 16


def usable_bytes(memory_bytes: int, schedule: str) -> int:
    """The budget without the product and its maxima and, where references stream, what the allocator keeps of them."""
    return memory_bytes - (2 if schedule == "symmetric" else 4) * matmul_bytes(memory_bytes)


def choose_schedule(n: int, p: int, memory_bytes: int, schedule: str = "auto", *, precision: str = "fp32") -> str:
    """``symmetric`` (half the work) where its strip takes at most 3/4 of the budget, else ``row_stationary``.

    Raises:
        SettingsError: unknown schedule.
        PlanError: ``symmetric`` was asked for and its strip does not fit.
    """
    if schedule not in SCHEDULES:
        raise SettingsError(bad_value("scoring.schedule", schedule, f"one of {', '.join(SCHEDULES)}"))
    strip = strip_bytes(n, p, precision)
    fits = 4 * strip <= 3 * memory_bytes
    if schedule == "symmetric" and not fits:
        raise PlanError(
            f"scoring.schedule symmetric needs a strip of {_gb(strip)} for {n} images of {p} patches, and takes "
            f"at most 3/4 of scoring.memory_gb ({_gb(memory_bytes)}). Set scoring.schedule to auto, or "
            f"scoring.memory_gb to {strip * 4 / 3e9:.3g} or more."
        )
    if schedule == "auto":
        return "symmetric" if fits else "row_stationary"
    return schedule


def block_images(
    n: int,
    p: int,
    d: int,
    memory_bytes: int,
    *,
    schedule: str,
    precision: str = "fp32",
    fraction: float = 0.3,
    references: int | None = None,
) -> int:
    """Images per block, 1 to n: two blocks at a time and what goes with them fit in the budget.

    Args:
        n, p, d: images in the group, patches, dimensions.
        memory_bytes: the budget.
        schedule: ``symmetric`` (beside the strip) or ``row_stationary`` (beside the candidates of a query block).
        precision: of the products.
        fraction: K as a fraction of the references.
        references: images that stream past a query block (the panel); default: all n.

    Raises:
        PlanError: not even one image fits.
    """
    free = usable_bytes(memory_bytes, schedule) - scratch_bytes(n, p, d, precision)
    vectors = vector_bytes(p, d, precision)
    if schedule == "symmetric":
        free -= strip_bytes(n, p, precision)
        images = n if n * vectors <= free else free // (2 * vectors)
        needed = 2 * max(vectors, candidate_bytes(n, p))
    else:
        # images² · distances + images · (query, reference, candidates) <= free
        distances = p * SCORE_BYTES
        streamed = n if references is None else references
        linear = 2 * vectors + candidate_bytes(candidates(streamed, fraction), p)
        images = (isqrt(linear * linear + 4 * distances * free) - linear) // (2 * distances) if free > 0 else 0
        needed = linear + distances
    if images < 1 or free < needed:
        usable = usable_bytes(memory_bytes, schedule)
        least = (usable - free + needed) * memory_bytes / usable / 1e9
        raise PlanError(
            f"scoring.memory_gb ({_gb(memory_bytes)}) does not hold one image of {p} patches and {d} dimensions of a "
            f"group of {n} (schedule {schedule}). Set it to {least:.3g} or more."
        )
    return min(images, n)


def candidates(n: int, fraction: float) -> int:
    """Candidates held per patch while n images stream past: twice K, so that forgetting the rest is rare."""
    return min(n, 2 * int(neighbours(n, fraction)))


def candidate_bytes(held: int, p: int) -> int:
    """Bytes of ``held`` candidates (and the one that `NearestMean` adds) for the patches of one image."""
    return p * (held + 1) * SCORE_BYTES


def vector_bytes(p: int, d: int, precision: str) -> int:
    """Bytes of one image's prepared vectors and of the stored ones they are made from."""
    return p * d * (dtype_of(precision).itemsize + STORED_BYTES)


def scratch_bytes(n: int, p: int, d: int, precision: str) -> int:
    """The copies of what `prepare` converts at a time: float16, float32, and for int8 the rotated ones."""
    if precision != "int8":
        return min(PREPARE_VALUES, n * p * d) * (STORED_BYTES + 4)
    return min(PREPARE_VALUES, n * p * d) * (STORED_BYTES + 4 + 4 + 1) + d * d * 4


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"

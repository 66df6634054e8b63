"""What one scoring actor holds at most, from the plan alone."""

from __future__ import annotations

from patchead.plan.group_plan import GroupPlan, Limits
from patchead.scoring.memory_budget import (
    SCORE_BYTES,
    STORED_BYTES,
    candidate_bytes,
    candidates,
    matmul_bytes,
    scratch_bytes,
    strip_bytes,
    vector_bytes,
)


def peak_bytes(group: GroupPlan, p: int, d: int, limits: Limits) -> int:
    """Bytes that an actor holds at most for one task of ``group``: embeddings, and what the kernels allocate.

    The kernels keep to ``limits.memory_bytes``, so their part is never more than that. Blocks and tiles that lie in
    the object store are mapped from there by every actor of a node; they are not counted here.
    """
    if group.schedule == "none":
        return 0
    n, block, references = group.images, min(group.block_images, group.images), group.references
    image = p * d * STORED_BYTES
    product = 2 * min(matmul_bytes(limits.memory_bytes), block * references * p * p * SCORE_BYTES)
    fixed = product + scratch_bytes(n, p, d, limits.precision)
    vectors = vector_bytes(p, d, limits.precision)
    held = candidate_bytes(candidates(references, limits.fraction), p)
    if group.schedule == "row_stationary":
        kernel = fixed + block * (vectors + held) + min(block, references) * (vectors + block * p * SCORE_BYTES)
        stored = (n + group.prompts if group.whole else block) * image
        return stored + min(limits.memory_bytes, kernel)
    if group.whole:
        kernel = fixed + strip_bytes(n, p, limits.precision) + n * vectors
        return n * image + min(limits.memory_bytes, kernel)
    tile = fixed + 2 * block * vectors + 2 * block * block * p * SCORE_BYTES
    reduction = block * (held + 2 * block * p * SCORE_BYTES)
    return max(tile, reduction)

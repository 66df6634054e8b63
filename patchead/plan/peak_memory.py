"""What one scoring actor holds at most, from the plan alone."""

from __future__ import annotations

from patchead.plan.group_plan import Limits, workload
from patchead.plan.planned import GroupPlan
from patchead.scoring.memory_budget import SCORE_BYTES, matmul_bytes
from patchead.search.score import BOUNDED, WINDOWED


def peak_bytes(group: GroupPlan, p: int, d: int, limits: Limits) -> int:
    """Return the bytes that an actor holds at most for one task of ``group``: embeddings, and what kernels allocate.

    The kernels keep to ``limits.memory_bytes``, so their part is never more than that. Blocks and tiles that lie in
    the object store are mapped from there by every actor of a node; they are not counted here.
    """
    if group.schedule == "none":
        return 0
    work = workload(group.images, group.references, p, d, limits)
    block = min(group.block_images, group.images)
    matmul = 2 * min(matmul_bytes(limits.memory_bytes), block * group.references * p * p * SCORE_BYTES)
    if group.schedule in (BOUNDED, WINDOWED):
        return (group.images + group.prompts if group.whole else block) * work.stored_bytes + limits.memory_bytes
    if group.schedule == "row_stationary":
        kernel = matmul + work.query_block_bytes(block, min(block, group.references))
        stored = (group.images + group.prompts if group.whole else block) * work.stored_bytes
        return stored + min(limits.memory_bytes, kernel)
    if group.whole:
        kernel = matmul + work.symmetric_bytes(group.images)
        return group.images * work.stored_bytes + min(limits.memory_bytes, kernel)
    return max(matmul + work.tile_bytes(block), work.reduction_bytes(block))

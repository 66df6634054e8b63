"""Stage 4: how each group will be scored and at what cost, decided before any actor is taken. Counts in, plan out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from patchead.errors import PlanError, SettingsError
from patchead.maps.shown import expected_share
from patchead.plan.planned import GroupPlan, Plan, PromptCounts
from patchead.samples.stand_ins import TOO_FEW, refuse_window
from patchead.scoring.memory_budget import Workload, evidence_bytes
from patchead.scoring.precision import dtype_of
from patchead.search.alike import night_sample
from patchead.search.bound_choice import MOST_SHOWN, SPEED_ON_A_GPU, affordable, pays_on
from patchead.search.bounded_memory import portions, window_portions
from patchead.search.score import BOUNDED, WINDOWED

_REDUCTION = {"symmetric": 2, BOUNDED: 20}
"""Of the work of all pairs, by schedule: symmetric does each once; bounded did a thirtieth on solar cells, and is
presumed to do a twentieth, and what the images take that will be shown. What it does is known when it has looked into
the group (`verdicts.search_share`)."""
_FULL = ("symmetric", "row_stationary")
_LARGEST_TASK = 0.1  # of an actor's share of the whole work
_TILES_PER_SHARE = 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Hold the settings that bound a plan; ``memory_bytes`` is per actor, above the embeddings it holds."""

    memory_bytes: int
    schedule: str = "auto"
    window: int | Literal["auto"] | None = None
    """See `Aggregation.window`."""
    precision: str = "fp32"
    fraction: float = 0.3
    repeats: bool = False
    min_batch: int = 5
    max_group_size: int = 20_000
    max_references: int | None = None
    actors: int = 1
    device: str = "cpu"
    """Of the scores: on a GPU bound and refine takes longer than the full search."""
    threads: int = 1
    """Of each actor: bound and refine, and a window, hold some memory for each."""
    shown: int | None = None
    """Images of each group that will be shown, flagged or not, and so searched fully; None: all."""
    bounded: frozenset[str] = frozenset()
    """Groups for which ``auto`` is ``bounded``, as a sample of them has shown."""
    full: Mapping[str, str] = field(default_factory=dict)
    """Groups that are searched fully though bounds were asked for, or a window auto, and why: as a sample has shown."""


def make_plan(
    sizes: Sequence[tuple[str, int]],
    n_patches: int,
    dim: int,
    limits: Limits,
    prompts: Mapping[str, PromptCounts] | None = None,
    refused: dict[str, str] | None = None,
) -> Plan:
    """Plan every ``(group id, images)``; few-shot where ``prompts`` says what each group has of them.

    A group is one task when its stored embeddings take no more than the memory again and it is no more than a tenth
    of what each actor has to do in all; otherwise it is cut into blocks whose tiles are smaller than that, so that
    the actors end together. With ``refused``, a group that cannot be planned ends nothing: it is planned as one that
    is not scored, and why is told there.

    Raises:
        PlanError: a group is larger than ``max_group_size`` and no ``max_references`` is set; or the memory cannot
            hold the smallest block.
    """
    few_shot = {} if prompts is None else prompts
    counted = [
        (name, n + few_shot[name].nulls, few_shot[name].references)
        if few_shot
        else (name, n, min(n, limits.max_references or n))
        for name, n in sizes
    ]
    whole = sum(_flops(n, references, n_patches, dim) for _, n, references in counted)
    share = max(1, whole // limits.actors)
    groups = []
    for name, n, references in counted:
        try:
            work = workload(n, references, n_patches, dim, limits)
            groups.append(_plan_group(name, work, limits, share, few_shot.get(name)))
        except PlanError as exc:
            if refused is None:
                raise
            refused[name] = str(exc)
            groups.append(GroupPlan(group_id=name, images=n, references=0, schedule="none", block_images=n))
    return Plan(tuple(sorted(groups, key=lambda g: (-g.flops, g.group_id))), n_patches, dim, limits.actors)


def workload(images: int, references: int, n_patches: int, dim: int, limits: Limits) -> Workload:
    """Describe the scoring of one group for `scoring.memory_budget`."""
    return Workload(
        images=images,
        patches=n_patches,
        dim=dim,
        references=references,
        precision=limits.precision,
        fraction=limits.fraction,
        repeats=limits.repeats,
    )


def _plan_group(
    name: str, work: Workload, limits: Limits, share: int, few_shot: PromptCounts | None = None
) -> GroupPlan:
    """One group, ``share`` being the FLOPs that each actor has to do in all."""
    n, references = work.images, work.references
    prompts, nulls, views_of = few_shot or PromptCounts(0, 0)
    if few_shot is None and n < limits.min_batch:
        return GroupPlan(group_id=name, images=n, references=0, schedule="none", block_images=n)
    _refuse_large(name, n - nulls, limits, few_shot=few_shot is not None)
    _refuse_few_prompts(name, limits, views_of)
    left_out = limits.window is not None or limits.schedule == BOUNDED or name in limits.bounded
    schedule = full = "row_stationary"  # prompts and panels are not symmetric
    if few_shot is None and references == n:
        schedule = full = work.choose_schedule(limits.memory_bytes, "auto" if left_out else limits.schedule)
    shown = _shown(n - nulls, limits) * (n - nulls) / n
    why_full = _why_full(name, limits, shown, full, views_of) if left_out else ""
    if left_out and not why_full:
        schedule = WINDOWED if isinstance(limits.window, int) else BOUNDED
        _refuse_small_memory(work, limits, measured=0 if few_shot is None else len(night_sample(n - nulls)))
    flops = _flops(n, references, work.patches, work.dim)
    fits = (n + prompts) * work.stored_bytes <= limits.memory_bytes
    straggler = limits.actors > 1 and flops / share > _LARGEST_TASK
    planned = GroupPlan(
        group_id=name,
        images=n,
        references=references,
        schedule=schedule,
        block_images=n if fits and not straggler else _block_images(work, limits, schedule, flops / share),
        prompts=prompts,
        nulls=nulls,
        window=limits.window if isinstance(limits.window, int) else 0,
        shown=shown,
        why_full=why_full,
        counted_as="" if schedule != BOUNDED or _saves(limits, shown, full) else full,
        pace=1.0 if pays_on(limits.device) or schedule != BOUNDED or limits.window else SPEED_ON_A_GPU,
        evidence_bytes=evidence_bytes(references) if limits.repeats else 0,
    )
    flops = flops_of(planned, n, work.patches, work.dim)
    return replace(planned, flops=flops, tries_bounds=_tries_bounds(planned, limits))


def _shown(images: int, limits: Limits) -> float:
    """Which share of a group's images will be shown."""
    return 1.0 if limits.shown is None else expected_share(images, limits.shown)


def _why_full(name: str, limits: Limits, shown: float, full: str, views_of: int) -> str:
    """Why a group is searched fully though patches were to be left out; empty where nothing is known against it."""
    if limits.window == "auto" and views_of:
        return TOO_FEW
    if limits.window is None and shown >= _share_of(full):
        return MOST_SHOWN
    return limits.full.get(name, "")


def _saves(limits: Limits, shown: float, full: str) -> bool:
    """Whether bound and refine, and what is searched to be shown, are presumed to take less than the full search."""
    return pays_on(limits.device) and _share_of(BOUNDED) + shown < _share_of(full)


def _tries_bounds(group: GroupPlan, limits: Limits) -> bool:
    """Whether bounds may cost less than the planned full search, and a sample that would tell is not dear."""
    if limits.schedule != "auto" or group.schedule not in _FULL or group.why_full or not pays_on(limits.device):
        return False
    if limits.shown is None or limits.repeats:
        return False
    full, dtype = _share_of(group.schedule), dtype_of(limits.precision)
    return affordable(group.images, group.references, full, dtype) != (0, 0)


def _share_of(schedule: str) -> float:
    """What a schedule multiplies, of all pairs."""
    return 1 / _REDUCTION.get(schedule, 1)


def _refuse_large(name: str, n: int, limits: Limits, *, few_shot: bool) -> None:
    if n <= limits.max_group_size or (limits.max_references and not few_shot):
        return
    found = f"group {name} has {n} images, more than `max_group_size`={limits.max_group_size}; "
    if few_shot:
        raise PlanError(
            found + "the maps of a group are held at once when it is finished. Cut it finer with `group_by`, or "
            "raise the limit."
        )
    raise PlanError(
        found + "its exact cost grows with the square of that. Set `max_references` (for example 200), cut the "
        "group finer with `group_by`, or raise `max_group_size`."
    )


def _refuse_few_prompts(name: str, limits: Limits, views_of: int) -> None:
    try:
        refuse_window(limits.window, views_of)
    except SettingsError as exc:
        raise PlanError(f"group {name}: {exc}") from exc


def _refuse_small_memory(work: Workload, limits: Limits, measured: int) -> None:
    if isinstance(limits.window, int):
        of = {"radius": limits.window, "width": math.isqrt(work.patches), "measured": measured}
        window_portions(work, work.images, limits.memory_bytes, limits.threads, **of)
    elif limits.window is None:  # auto does what the memory holds
        portions(work, work.images, limits.memory_bytes, limits.threads)


def _block_images(work: Workload, limits: Limits, schedule: str, shares: float) -> int:
    """As many images as the memory takes, and few enough that a tile is 1/20 of an actor's work (``shares`` of it)."""
    fitting = work.block_images(limits.memory_bytes, "row_stationary")
    if limits.actors == 1:
        return fitting
    pieces = shares * _TILES_PER_SHARE
    blocks = math.sqrt(2 * pieces) if schedule == "symmetric" else pieces
    return min(fitting, max(1, math.ceil(work.images / math.ceil(blocks))))


def flops_of(group: GroupPlan, queries: int, p: int, d: int) -> int:
    """Count what the first ``queries`` images of a group take by its schedule, with ``p`` patches, ``d`` dimensions."""
    if group.schedule == WINDOWED:
        return 2 * queries * group.references * p * min(p, (2 * group.window + 1) ** 2) * d
    every, schedule = _flops(queries, group.references, p, d), group.counted_as or group.schedule
    return every // _REDUCTION.get(schedule, 1) + (int(every * group.shown) if schedule == BOUNDED else 0)


def _flops(n: int, references: int, p: int, d: int) -> int:
    """Multiplications and additions of all patch pairs: 2 N R P² D."""
    return 2 * n * references * p * p * d

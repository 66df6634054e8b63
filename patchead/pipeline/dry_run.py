"""The plan of a run, printed without Ray, weights or a single write."""

from __future__ import annotations

from itertools import pairwise

from rich.console import Console
from rich.table import Table

from patchead.archive.catalog import catalog
from patchead.config import Config
from patchead.encoders import describe
from patchead.pipeline import translate
from patchead.pipeline.columns import run_boundaries
from patchead.pipeline.plan import GIGABYTE, Plan, make_plan


def print_plan(config: Config, console: Console) -> None:
    """List the archive, plan every group, print what a run would do.

    Raises:
        PatcheadError: the archive cannot be listed, the encoder is unknown, or a group cannot be planned.
    """
    config = translate.absolute(config)
    device = "cuda" if config.encoder.device == "cuda" else "cpu"
    shape = describe(translate.encoder_spec(config, device))
    found = catalog(translate.catalog_request(config))
    rows = found.manifest.select(["group_id", "status"]).sort_by("group_id")
    rows = rows.filter(rows["status"].is_null())
    edges = run_boundaries(rows, ["group_id"])
    sizes = [(rows["group_id"][a].as_py(), b - a) for a, b in pairwise(edges)]
    actors = config.resources.score_actors or 1
    plan = make_plan(sizes, shape.n_patches, shape.dim, translate.limits(config, actors, device))
    console.print(_groups(plan))
    for line in _totals(config, plan, found.manifest.num_rows, found.manifest.num_rows - rows.num_rows, found.ignored):
        console.print(line, highlight=False, soft_wrap=True)


def _groups(plan: Plan, most: int = 40) -> Table:
    table = Table("group", "images", "references", "schedule", "tasks", "TFLOP", "strip GB")
    for name in ("images", "references", "tasks", "TFLOP", "strip GB"):
        next(column for column in table.columns if column.header == name).justify = "right"
    for group in plan.groups[:most]:
        note = "too few images" if group.schedule == "none" else group.schedule
        counts = (group.images, group.references, note, group.tasks)
        sums = (f"{group.flops / 1e12:.3g}", f"{group.strip_bytes / GIGABYTE:.3g}")
        table.add_row(group.group_id, *map(str, counts), *sums)
    if len(plan.groups) > most:
        table.add_row(f"… and {len(plan.groups) - most} more groups")
    return table


def _totals(config: Config, plan: Plan, images: int, broken: int, ignored: int) -> list[str]:
    encoder = config.encoder
    return [
        f"archive  {config.archive.uri}: {images} images, {broken} of them unreadable already; "
        f"{ignored} other files ignored",
        f"encoder  {encoder.name}, weights {encoder.weights}, {encoder.image_size} px: "
        f"{plan.n_patches} patches x {plan.dim} dimensions per image",
        f"lake     {config.lake.uri}: {plan.embedding_bytes / GIGABYTE:.3g} GB of embeddings if none is there yet",
        f"scoring  {len(plan.scored)} of {len(plan.groups)} groups, {plan.flops / 1e12:.3g} TFLOP, "
        f"{config.scoring.memory_gb:g} GB per actor",
        "dry run: nothing was written, nothing was started",
    ]

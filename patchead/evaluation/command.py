"""The work of `patchead evaluate`: settings, dataset, evaluation, and the three forms of its table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from patchead.errors import SettingsError, bad_value
from patchead.evaluation.datasets import DATASETS, load
from patchead.evaluation.records import Setup, to_table, write_whole
from patchead.evaluation.report import markdown, print_rows
from patchead.evaluation.run import evaluate
from patchead.evaluation.variants import Loader, variants
from patchead.printed import say
from patchead.scoring.precision_probe import warning_here
from patchead.search.bound_choice import warning_on
from patchead.settings.argument_names import in_settings, named_as_settings
from patchead.settings.resolve import refuse_accepted


@named_as_settings()
def run_evaluation(
    load_settings: Loader,
    console: Console,
    *,
    dataset: str,
    root: Path | None,
    output: Path,
    classes: Sequence[str] = (),
    sweeps: Sequence[str] = (),
    plus: bool = False,
    seeds: int = 3,
    map_side: int = 256,
    name: str | None = None,
) -> pa.Table:
    """Evaluate on a labelled dataset; print the table and write ``output/NAME.md`` and ``output/NAME.parquet``.

    Args:
        load_settings: the checked settings, with more overrides; ``archive`` and ``lake`` are not used.
        console: for progress and the table.
        dataset: a name of `datasets.DATASETS`.
        root: where the dataset was unpacked; None where an installed package holds it.
        output: folder; ``records/`` in it holds every finished (variant, class), which a later call does not repeat.
        classes: these only; empty means all.
        sweeps: ``section.key=value,value,…``, see `variants.parse_sweep`; several give every combination.
        plus: PatchEAD+: mask and alignment on or off as the paper has them for this dataset.
        seeds: draws of the prompts in few-shot mode, from ``prompts.seed`` upwards.
        map_side: of the maps that pixel metrics compare, in pixels.
        name: of the two files; default: the dataset's.

    Returns:
        One row per variant, class and seed, with the columns of `records.Row`.

    Raises:
        SettingsError: an option or a setting cannot be used.
        PatcheadError: the dataset is not laid out as published, or an image, weights or a file cannot be read.
    """
    for option, value, least in (("--seeds", seeds, 1), ("--map-side", map_side, 32)):
        if value < least:
            raise SettingsError(bad_value(option, value, f"at least {least}"))
    found = load(dataset, root, list(classes) or None)
    paper = [f"mask.enabled={found.mask}", f"align.enabled={found.align}"] if plus else []
    place = root or (DATASETS[dataset].default_root or Path)()
    setup = Setup(dataset=dataset, root=place, output=output, seeds=seeds, map_side=map_side)

    tell = partial(say, console)
    asked = variants(load_settings, sweeps, paper)
    for variant in asked:
        refuse_accepted(variant.config, "a dataset")
    slow = [warning_here(variant.precision, variant.device) for variant in asked]
    slow += [warning_on(of.device, of.config.scoring.schedule, of.aggregation.window) for of in asked]
    for text in filter(None, dict.fromkeys(slow)):
        tell(f"warning: {in_settings(text)}")
    rows = evaluate(asked, found, setup, tell)
    table, stem = to_table(rows), name or dataset
    _write_parquet(table, output / f"{stem}.parquet")
    write_whole(output / f"{stem}.md", markdown(rows, setup))
    print_rows(rows, setup, console)
    tell(f"written: {output / stem}.md and {output / stem}.parquet")
    return table


def _write_parquet(table: pa.Table, path: Path) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_whole(path, sink.getvalue().to_pybytes())

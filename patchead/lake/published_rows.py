"""Rows of a run as its publication writes them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import set_column


def in_state(run: pa.Table, state: str) -> pa.Table:
    """Write another state into rows of RUNS."""
    place = run.column_names.index("state")
    return run.set_column(place, run.schema.field(place), pa.array([state] * run.num_rows, pa.string()))


def without_empty_product(rows: pa.Table) -> pa.Table:
    """Make an empty product null: a Delta partition value that is empty is."""
    product = pc.if_else(pc.equal(rows["product"], ""), None, rows["product"])
    return set_column(rows, "product", product)


def named(runs: frozenset[str]) -> str:
    """Name runs in a sentence."""
    return f"run {', '.join(sorted(runs))}"

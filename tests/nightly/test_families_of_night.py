"""The families of a night: the same in whatever order regions come, earlier ones again, new ids that stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from patchead.nightly.families_of_night import InFamily, families_of, of_product
from patchead.schema import REGION_VECTORS, table
from tests.naming.test_families import around


def regions(count: int) -> list[dict[str, Any]]:
    box = {"x": 1, "y": 2, "width": 3, "height": 4}
    return [{"product": "screw", "image_id": f"image{i}"} | box for i in range(count)]


def medoids(vectors: np.ndarray, *names: str, product: str | None = "screw", reach: float = 0.5) -> pa.Table:
    rows = [
        {"product": product, "family": name, "reach": reach, "vector": vector}
        for name, vector in zip(names, vectors.tolist(), strict=True)
    ]
    return table(rows, REGION_VECTORS).select(["product", "family", "reach", "vector"])


def test_the_order_of_the_regions_changes_nothing() -> None:
    vectors, rows = around(0, 1, 2, each=6, noise=0.15), regions(18)
    known = medoids(around(1, each=1, noise=0.0), "f1")
    order = np.random.default_rng(0).permutation(18)
    first = families_of(rows, vectors, known, 0.5)
    second = families_of([rows[i] for i in order], vectors[order], known, 0.5)
    assert [first[i] for i in order] == second
    assert len({of.family for of in first}) == 3
    assert {of.family for of in first if of.known} == {"f1"} == {of.family for of in first[6:12]}
    assert sum(of.medoid for of in first) == 3


def test_clusters_of_one_earlier_family_are_one_family() -> None:
    vectors = around(0, each=6, noise=0.3)
    apart = families_of(regions(6), vectors, medoids(vectors[:0]), 0.05)
    assert len({of.family for of in apart}) > 1 and not any(of.known for of in apart)
    again = families_of(regions(6), vectors, medoids(around(0, each=1, noise=0.0), "f1", reach=1.0), 0.05)
    assert {of.family for of in again} == {"f1"} and sum(of.medoid for of in again) == 1


def test_a_family_of_another_product_is_another() -> None:
    known = medoids(around(0, each=1, noise=0.0), "f1", product=None)
    assert of_product(known, "screw").num_rows == 0
    assert of_product(known, None).num_rows == of_product(known, "").num_rows == 1
    (alone,) = families_of(regions(1), around(0, each=1, noise=0.0), of_product(known, "screw"), 0.5)
    assert isinstance(alone, InFamily) and alone.family != "f1"

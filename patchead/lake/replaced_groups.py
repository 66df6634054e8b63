"""The SQL predicate of the groups that one run replaces in a table."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator
from urllib.parse import quote

import pyarrow as pa

Pair = tuple[dt.date | None, str | None]


def groups_predicate(scores: pa.Table) -> str:
    """Write the SQL that holds for exactly the groups of these rows; empty if there is no row.

    Where a group is a whole (night, product), both are named, so that what was there under a finer grouping goes as
    well. Otherwise the group id decides. Rows without a group (their keys are unknown)
    take the place of rows without a group of the same night and product.
    """
    rows = scores.select(["night", "product", "group_id"]).group_by(["night", "product", "group_id"]).aggregate([])
    whole: set[Pair] = set()
    nameless: set[Pair] = set()
    named: list[tuple[Pair, str]] = []
    for row in rows.to_pylist():
        pair, group_id = (row["night"], row["product"]), row["group_id"]
        if group_id is None:
            nameless.add(pair)
        elif _is_whole(group_id, *pair):
            whole.add(pair)
        else:
            named.append((pair, group_id))
    clauses = [f"{_among('night', n)} AND {_among('product', p)}" for n, p in _rectangles(whole)]
    clauses += [
        f"{_among('night', n)} AND {_among('product', p)} AND group_id IS NULL" for n, p in _rectangles(nameless)
    ]
    if named:
        nights, products = ({pair[i] for pair, _ in named} for i in range(2))
        ids = {group_id for _, group_id in named}
        clauses.append(f"{_among('night', nights)} AND {_among('product', products)} AND {_among('group_id', ids)}")
    return " OR ".join(f"({clause})" for clause in clauses)


def _is_whole(group_id: str, night: dt.date | None, product: str | None) -> bool:
    """Whether the group id names the night and the product and nothing else, in either order, quoted or not."""
    if night is None or product is None:
        return False
    keys = [(f"night={night}", f"product={name}") for name in (product, quote(product, safe=""), quote(product))]
    return group_id in {"/".join(pair) for key in keys for pair in (key, key[::-1])}


def _rectangles(pairs: Iterable[Pair]) -> Iterator[tuple[set[dt.date | None], frozenset[str | None]]]:
    """The pairs as few (nights x products) sets: a long chain of ORs takes time squared in the SQL parser."""
    products: dict[dt.date | None, set[str | None]] = defaultdict(set)
    for night, product in pairs:
        products[night].add(product)
    nights: dict[frozenset[str | None], set[dt.date | None]] = defaultdict(set)
    for night, names in products.items():
        nights[frozenset(names)].add(night)
    for names_of, nights_of in nights.items():
        yield nights_of, names_of


def _among(column: str, values: Iterable[dt.date | str | None]) -> str:
    """``column IN (…)`` that knows null."""
    known = sorted(sql_literal(value) for value in set(values) - {None})
    parts = [f"{column} IN ({', '.join(known)})"] if known else []
    parts += [f"{column} IS NULL"] if None in set(values) else []
    return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"


def sql_literal(value: dt.date | str | bool | None) -> str:
    """Write a date, a text, true or false as an SQL literal."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dt.date):
        return f"DATE '{value}'"
    return "'" + str(value).replace("'", "''") + "'"

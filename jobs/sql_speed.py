"""Make a lake of many nights, and print what each statement of docs/sql.md takes over it.

python jobs/sql_speed.py many-nights            # a million rows: 90 nights of 20 products
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
from deltalake import write_deltalake
from sql_page import PAGE, statements

from patchead.lake.query import connect
from patchead.lake.tables import create_table, table_uri, without_unused
from patchead.markdown import markdown_table
from patchead.result_tables import MAIN, TABLES_VERSION
from patchead.schema import OK, REGIONS, RUNS, SCORES, TABLES, VERDICTS, completed
from patchead.storage import Storage

_FIRST_NIGHT = dt.date(2026, 8, 24)
_FLAGGED = 0.03


def main(
    lake: Annotated[Path, typer.Argument(help="Folder of the lake; made where it is not there.")],
    rows: Annotated[int, typer.Option(min=1)] = 1_000_000,
    nights: Annotated[int, typer.Option(min=1)] = 90,
    products: Annotated[int, typer.Option(min=1)] = 20,
) -> None:
    """Make a lake of many nights, and print what each statement of docs/sql.md takes over it."""
    if not lake.exists():
        started = time.perf_counter()
        make(str(lake), rows, nights, products)
        print(f"made in {time.perf_counter() - started:.1f} s: {_size(lake)}")
    print(markdown_table(["question", "seconds", "CPU seconds", "rows"], times(str(lake))))


def times(lake: str) -> Iterator[list[str]]:
    """Yield what each statement takes, with opening the tables, the best of three."""
    for number, sql in enumerate(statements(PAGE.read_text(encoding="utf-8")), start=1):
        best = min(_taken(lake, sql) for _ in range(3))
        yield [str(number), f"{best[0]:.2f}", f"{best[1]:.2f}", str(best[2])]


def _taken(lake: str, sql: str) -> tuple[float, float, int]:
    started, worked = time.perf_counter(), time.process_time()
    with connect(lake, Storage()) as connection:
        connection.execute("SET threads = 2")
        found = connection.execute(sql).to_arrow_table().num_rows
    return time.perf_counter() - started, time.process_time() - worked, found


def make(lake: str, rows: int, nights: int, products: int) -> None:
    """Write the tables as so many runs leave them, one per night: a commit of each table per night."""
    for name in TABLES:
        create_table(lake, Storage(), name)
    rng = np.random.default_rng(0)
    per_group = -(-rows // (nights * products))
    for day in range(nights):
        night = _FIRST_NIGHT + dt.timedelta(days=day)
        scores = pa.concat_tables([_group(rng, night, f"product-{p:02d}", per_group) for p in range(products)])
        flagged = scores.filter(scores["is_anomalous"])
        for name, found in (
            ("scores", scores),
            ("regions", _regions(flagged)),
            ("verdicts", _verdicts(scores, night, products, per_group)),
            ("runs", _run(night, scores.num_rows, flagged.num_rows, products)),
        ):
            write_deltalake(table_uri(lake, name), without_unused(found), mode="append", schema_mode="merge")


def _group(rng: np.random.Generator, night: dt.date, product: str, n: int) -> pa.Table:
    """SCORES of one group: a normal null, and a few that stand apart."""
    z = rng.normal(0, 1, n)
    z[rng.random(n) < _FLAGGED] += 6
    order, group = np.argsort(np.argsort(-z)) + 1, f"night={night}/product={product}"
    names = [f"{group}/camera-{i % 4}/{i:06d}.png" for i in range(n)]
    columns = {
        "run_id": [f"run-{night}"] * n, "lane": [MAIN] * n, "image_id": names, "path": names, "night": [night] * n,
        "product": [product] * n, "group_id": [group] * n, "score": 0.2 + 0.02 * z, "rank": order,
        "group_size": [n] * n, "n_references": [n - 1] * n, "z": z, "is_anomalous": z > 3,
        "threshold_score": [0.26] * n, "verdict_rule": ["upper_fit"] * n, "max_patch": 0.3 + 0.02 * z,
        "heatmap_path": [f"heatmaps/{name}" if flag else None for name, flag in zip(names, z > 3, strict=True)],
        "width": [1024] * n, "height": [1024] * n, "content_hash": [f"{h:016x}" for h in rng.integers(0, 2**62, n)],
        "encoder_id": ["vit-small-patch14-dinov2-000000000000"] * n, "status": [OK] * n,
        "keys_json": [f'{{"camera":"{i % 4}"}}' for i in range(n)], "schema_version": [TABLES_VERSION] * n,
    }  # fmt: skip
    return completed(pa.table(columns), SCORES)


def _regions(flagged: pa.Table) -> pa.Table:
    n, kept = flagged.num_rows, ("run_id", "lane", "image_id", "night", "product", "group_id")
    places = np.arange(n) * 37 % 900
    shares = {"rel_x": places / 1024, "rel_y": places[::-1] / 1024, "rel_width": [0.1] * n, "rel_height": [0.1] * n}
    boxes = {"x": places, "y": places[::-1], "width": [102] * n, "height": [102] * n, "area_px": [8000] * n}
    values = {"region": [1] * n, "peak": [0.4] * n, "mean": [0.35] * n, "threshold": [0.3] * n}
    return completed(pa.table({name: flagged[name] for name in kept} | boxes | shares | values), REGIONS)


def _verdicts(scores: pa.Table, night: dt.date, products: int, per_group: int) -> pa.Table:
    first = scores.take(list(range(0, products * per_group, per_group)))
    kept = ("run_id", "lane", "night", "product", "group_id", "verdict_rule", "threshold_score", "encoder_id")
    counts = {"images": [per_group] * products, "scored": [per_group] * products, "flagged": [17] * products}
    values = {"centre": 0.2, "scale": 0.02, "threshold_z": 3.0, "median": 0.2 + 0.001 * (night.day % 7), "gap_z": 1.5}
    values |= {"skew": 0.1, "upper_ratio": 1.0, "region_threshold": 0.3}
    columns = {name: first[name] for name in kept} | counts | {name: [v] * products for name, v in values.items()}
    return completed(pa.table(columns | {"search": ["full"] * products}), VERDICTS)


def _run(night: dt.date, images: int, anomalous: int, groups: int) -> pa.Table:
    at = dt.datetime.combine(night, dt.time(3), dt.timezone.utc) + dt.timedelta(days=1)
    row = {
        "run_id": f"run-{night}", "lane": MAIN, "night": night, "started_at": at, "state": "published",
        "finished_at": at + dt.timedelta(minutes=40), "images": images, "ok": images, "failed": 0, "skipped": 0,
        "embedded": images, "reused": 0, "ignored": 0, "groups": groups, "anomalous": anomalous, "seconds": 2400.0,
        "archive_uri": "s3://factory/photos", "config_json": '{"scoring":{"fraction":0.3}}',
        "versions_json": '{"torch": "2.14.1"}', "seconds_json": "{}", "gpu_seconds": 2000.0, "cpu_seconds": 9000.0,
        "schema_version": TABLES_VERSION,
    }  # fmt: skip
    return completed(pa.Table.from_pylist([row]), RUNS)


def _size(lake: Path) -> str:
    files = list((lake / "tables/scores").rglob("*.parquet"))
    return f"{len(files)} files of scores, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB"


if __name__ == "__main__":
    typer.run(main)

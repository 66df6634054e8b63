from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from patchead.evaluation.records import METRICS, OK, TOO_FEW, Row, Setup
from patchead.evaluation.report import HEADER, markdown
from patchead.evaluation.summary import MEAN, notes, summarise

SETUP = Setup(dataset="made-up", root=Path("root"), output=Path("out"))


def settings_in(precision: str) -> str:
    return json.dumps({"encoder.dtype": "bf16", "scoring.precision": precision})


def row(variant: str, name: str, seed: int | None, auroc: float | None, **more: object) -> Row:
    base = Row(
        dataset="made-up", variant=variant, class_name=name, mode="batch" if seed is None else "few_shot", seed=seed,
        status=OK, **dict.fromkeys(METRICS), verdict_rule=None, images=12, anomalous=5, unscored=0, mapped=12,
        without_mask=0, aligned=None, embed_seconds=2.0, score_seconds=1.0, weights_digest="0",
        settings=settings_in("fp32"),
    )  # fmt: skip
    return replace(base, image_auroc=auroc, **more)  # type: ignore[arg-type]


def test_classes_and_their_mean_come_with_the_deviation_over_seeds() -> None:
    values = np.array([[0.90, 0.80, 0.85], [0.60, 0.70, 0.50]])
    rows = [row("a", name, seed, values[at, seed]) for at, name in enumerate(["nut", "bolt"]) for seed in range(3)]
    nut, bolt, mean = summarise(rows)
    assert [line.class_name for line in (nut, bolt, mean)] == ["nut", "bolt", MEAN]
    for line, expected in ((nut, values[0]), (bolt, values[1]), (mean, values.mean(axis=0))):
        figure = line.figures["image_auroc"]
        assert figure is not None and figure.std is not None
        assert figure.mean == pytest.approx(sum(expected) / 3)
        assert figure.std == pytest.approx(np.sqrt(sum((x - sum(expected) / 3) ** 2 for x in expected) / 2))
    # the classes' seeds go up and down together in part: not the mean of their deviations
    assert mean.figures["image_auroc"].std != pytest.approx((values.std(axis=1, ddof=1)).mean())  # type: ignore[union-attr]
    assert (mean.images, mean.anomalous, mean.seconds) == (24, 10, 6.0)
    assert notes(rows) == [
        f"a: {metric} is the mean of 0 of 2 classes." for metric in METRICS if metric != "image_auroc"
    ]


def test_one_seed_has_no_deviation_and_one_class_no_mean() -> None:
    (line,) = summarise([row("a", "nut", None, 0.5)])
    assert line.figures["image_auroc"].std is None  # type: ignore[union-attr]
    assert line.figures["pixel_auroc"] is None


def test_a_class_without_a_metric_is_left_out_of_the_mean_and_the_note_says_so() -> None:
    rows = [row("a", "nut", None, 0.9, pixel_pro=0.8), row("a", "bolt", None, 0.7)]
    mean = summarise(rows)[-1]
    assert mean.figures["pixel_pro"].mean == 0.8  # type: ignore[union-attr]
    assert mean.figures["image_auroc"].mean == pytest.approx(0.8)  # type: ignore[union-attr]
    assert "a: pixel_pro is the mean of 1 of 2 classes." in notes(rows)


def test_what_is_left_out_is_told() -> None:
    rows = [
        row("a", "nut", None, 0.9, without_mask=3),
        row("a", "bolt", None, 0.9, unscored=2),
        row("a", "cap", None, None, status=TOO_FEW, images=4),
        row("a", "pin", None, 0.9, aligned=9),
        row("a", "rod", None, 0.9, aligned=12),
    ]
    told = "\n".join(notes(rows))
    for part in (
        "nut, a: 3 anomalous images without a mask",
        "bolt, a: 2 images without a reference",
        "cap, a: 4 images are too few",
        "pin, a: 3 of 12 images could not be aligned",
    ):
        assert part in told
    assert "rod" not in told


def test_markdown_has_a_line_per_class_and_variant_in_percent() -> None:
    rows = [
        row(variant, name, seed, 0.5 + seed / 10) for variant in "ab" for name in ("nut", "bo|t") for seed in (0, 1)
    ]
    text = markdown(rows, SETUP)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == f"| {' | '.join(HEADER)} |"
    assert len(lines) == 2 + 2 * 3
    assert lines[2].startswith("| a | nut | 12 | 5 | 55.00 ± 7.07 | - |")
    assert r"bo\|t" in lines[3]
    assert "seeds 0, 1" in text
    assert "Arithmetic: bf16 encoder, fp32 scores." in text


def test_arithmetic_that_differs_is_told_of_each_variant() -> None:
    rows = [row(precision, "nut", None, 0.9, settings=settings_in(precision)) for precision in ("fp32", "int8")]
    assert "fp32: bf16 encoder, fp32 scores; int8: bf16 encoder, int8 scores." in markdown(rows, SETUP)

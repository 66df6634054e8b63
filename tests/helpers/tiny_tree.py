"""A labelled folder in MVTec AD's layout: two classes of small textures, with a planted square in the bad ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from patchead.settings.load import load_config
from patchead.settings.model import Config

SIDE = 72
GOOD, BAD, TRAIN = 7, 5, 4
CLASSES = ("cloth", "stone")

_PLACES = {"archive.uri": "unused://archive", "lake.uri": "unused://lake"}
_TINY = (
    "encoder.name=timm/test_vit",
    "encoder.weights=random",
    "encoder.image_size=64",
    "encoder.device=cpu",
    "encoder.dtype=fp32",
    "scoring.precision=fp32",  # on every processor: what is compared is compared to the last digit
    "encoder.layers=last",
)
FEW_SHOT = ("scoring.mode=few_shot", "prompts.uri=dataset://train", "prompts.k=2")


def plant(root: Path, classes: Sequence[str] = CLASSES) -> Path:
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        for folder, count in (("train/good", TRAIN), ("test/good", GOOD), ("test/square", BAD)):
            for index in range(count):
                image = _texture(rng, number)
                if folder == "test/square":
                    mask = np.zeros((SIDE, SIDE), np.uint8)
                    top, left = rng.integers(0, SIDE - 24, 2)
                    mask[top : top + 22, left : left + 22] = 255
                    image[mask > 0] = 255 - image[mask > 0]
                    _write(root / name / "ground_truth" / "square" / f"{index:03}_mask.png", mask)
                _write(root / name / folder / f"{index:03}.png", image)
    return root


def loader(*fixed: str) -> Any:
    """What the command gives `run_evaluation`: settings of a tiny encoder with random weights."""

    def load(overrides: Sequence[str]) -> Config:
        return load_config(None, [*_TINY, *fixed, *overrides], _PLACES, unused_ok=True)

    return load


def _texture(rng: np.random.Generator, number: int) -> np.ndarray:
    """Stripes or blotches, around a third of full brightness, never twice the same."""
    noise = rng.random((SIDE, SIDE, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.7, sigmaY=6 if number else 0.7)
    return np.clip(90 + 120 * (blurred - 0.5), 0, 255).astype(np.uint8)


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)

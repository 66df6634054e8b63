"""Twins: images that show the same pixels in different bytes, as a stuck frame that is encoded anew or a JPEG preview.

One would be the other's perfect reference and hide its defect, so they are no references of each other. Images are
compared as the encoder gets them, by some of their pixels, slightly smoothed: what encoding them again changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

LOOK = 1024
"""Pixels that are kept of an image."""
SAME = 0.3
"""Grey levels by which twins differ on average, at most: rounding, and a mild JPEG's loss at the encoder's size."""
NEARLY = 1.25
"""The same for a strong JPEG's loss, where no more than `FEW` others are as near: of many, it is noise between them."""
FEW = 3
EXACTLY = 0.05
"""The same where there are few references to lose: an image and its prompt in another lossless file."""
APART = 0.45
"""Of the distance to the other images, at most: where all are as near as that, they are alike and no twins."""
NOWHERE = 16
"""Grey levels by which no pixel differs: where one does, there may be the defect."""
_FIRST = 64
_OTHERS = 256
_FLAT = 2
_BLOCK = 128


def look(pixels: np.ndarray) -> np.ndarray:
    """Keep some pixels of each image: (n, S, S, 3) RGB uint8 to (n, `LOOK`) grey uint8, at the same places for all."""
    side = pixels.shape[1]
    places = np.random.default_rng(0).permutation(side * side)[:LOOK]
    found = np.zeros((len(pixels), LOOK), np.uint8)
    for image, row in zip(pixels, found, strict=True):
        row[: len(places)] = cv2.blur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (3, 3)).reshape(-1)[places]
    return found


def twins(looks: np.ndarray, within: float = NEARLY) -> np.ndarray:
    """Find for each image the first of those that it is a twin of, or itself: int64 (N,).

    Args:
        looks: uint8 (N, `LOOK`), of `look`.
        within: grey levels by which twins differ on average, at most.
    """
    n = len(looks)
    first = np.arange(n)
    if n < 2:
        return first
    order = np.argsort(looks.mean(axis=1), kind="stable")
    sorted_looks, means = looks[order], np.sort(looks.mean(axis=1))
    near = np.minimum(_apart(sorted_looks) * APART, within)
    near[np.ptp(sorted_looks, axis=1) <= _FLAT] = -1  # nothing in it to know it by: two photos of nothing
    pairs = list[tuple[int, int, bool]]()
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        end = int(np.searchsorted(means, means[stop - 1] + NEARLY, side="right"))
        pairs += _close(sorted_looks, start, stop, end, near)
    neighbours = np.bincount([image for a, b, _ in pairs for image in (a, b)], minlength=n)
    for a, b, same in pairs:
        if same or max(neighbours[a], neighbours[b]) <= FEW:
            _join(first, int(order[a]), int(order[b]))
    return np.array([_root(first, image) for image in range(n)])


def renamed(content: Sequence[str], looks: np.ndarray) -> list[str]:
    """Give twins one content: that of the first of them."""
    return [content[place] for place in twins(looks).tolist()]


def named_as_references(
    content: Sequence[str], looks: np.ndarray, references: Sequence[str], their_looks: np.ndarray
) -> list[str]:
    """Give every image that is a twin of a reference the content of that one; the others keep theirs."""
    first = twins(np.concatenate([their_looks, looks]), EXACTLY).tolist()
    r = len(references)
    return [references[place] if place < r else own for place, own in zip(first[r:], content, strict=True)]


def _apart(looks: np.ndarray) -> np.ndarray:
    """How far each image is from most others, in grey levels: float64 (N,)."""
    n = len(looks)
    others = looks[np.unique(np.linspace(0, n - 1, min(n, _OTHERS)).round().astype(int))]
    found = np.empty(n)
    for place, one in enumerate(looks):
        found[place] = np.quantile(_difference(one[None, :_FIRST], others[:, :_FIRST]), 0.9)
    return found


def _close(looks: np.ndarray, start: int, stop: int, end: int, near: np.ndarray) -> list[tuple[int, int, bool]]:
    """Pairs of an image from ``start`` to ``stop`` and a later one before ``end`` that are nearer than both allow.

    Each with whether they differ by no more than `SAME`.
    """
    pairs = []
    for a in range(start, stop):
        later = looks[a + 1 : end]
        maybe = np.flatnonzero(_difference(looks[a : a + 1, :_FIRST], later[:, :_FIRST]) <= 2 * near[a] + 0.02) + a + 1
        if len(maybe):
            apart = np.abs(looks[a].astype(np.int16) - looks[maybe])
            mean = apart.mean(axis=1)
            alike = (mean <= np.minimum(near[a], near[maybe])) & (apart.max(axis=1) <= NOWHERE)
            pairs += [(a, int(b), bool(d <= SAME)) for b, d in zip(maybe[alike], mean[alike], strict=True)]
    return pairs


def _difference(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(np.int16) - others).mean(axis=1)


def _root(first: np.ndarray, image: int) -> int:
    while first[image] != image:
        image = int(first[image])
    return image


def _join(first: np.ndarray, a: int, b: int) -> None:
    low, high = sorted((_root(first, a), _root(first, b)))
    first[high] = low

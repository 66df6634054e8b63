"""Twins: images that show the same pixels in different bytes, as a stuck frame that is encoded anew or a JPEG preview.

One would be the other's perfect reference and hide its defect, so they are no references of each other. Images are
compared as the encoder gets them, by some of their pixels, slightly smoothed: what encoding them again changes. Files
of one size whose JPEG losses differ are compared by what these leave of their blocks too.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from patchead.archive.blocks import beyond_losses, steps_in

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
APART_BY_LOSSES = 0.7
"""The same where the files' losses differ, and their blocks may be those of one frame."""
BEYOND_LOSSES = 0.003
"""Share of coefficients, at most, in which files of one frame differ by more than their losses."""
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


def twins(looks: np.ndarray, within: float = NEARLY, blocks: np.ndarray | None = None) -> np.ndarray:
    """Find for each image the first of those that it is a twin of, or itself: int64 (N,).

    Args:
        looks: uint8 (N, `LOOK`), of `look`.
        within: grey levels by which twins differ on average, at most.
        blocks: int16 (N, B), of `archive.blocks.blocks_of`: finds one frame under strong losses; default: they are not
            known.
    """
    n = len(looks)
    first = np.arange(n)
    if n < 2:
        return first
    order = np.argsort(looks.mean(axis=1), kind="stable")
    sorted_looks, means = looks[order], np.sort(looks.mean(axis=1))
    apart = _apart(sorted_looks)
    apart[np.ptp(sorted_looks, axis=1) <= _FLAT] = -np.inf  # nothing in it to know it by: two photos of nothing
    near = np.minimum(apart * APART, within)
    pairs = list[tuple[int, int, bool]]()
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        end = int(np.searchsorted(means, means[stop - 1] + NEARLY, side="right"))
        pairs += _close(sorted_looks, start, stop, end, near)
    neighbours = np.bincount([image for a, b, _ in pairs for image in (a, b)], minlength=n)
    for a, b, same in pairs:
        if same or max(neighbours[a], neighbours[b]) <= FEW:
            _join(first, int(order[a]), int(order[b]))
    if blocks is not None:
        for a, b in _one_frame(sorted_looks, apart * APART_BY_LOSSES, means, blocks[order]):
            _join(first, int(order[a]), int(order[b]))
    return np.array([_root(first, image) for image in range(n)])


def renamed(content: Sequence[str], looks: np.ndarray, blocks: np.ndarray | None = None) -> list[str]:
    """Give twins one content: that of the first of them; arguments as of `twins`."""
    return [content[place] for place in twins(looks, blocks=blocks).tolist()]


def named_as_references(
    content: Sequence[str], looks: np.ndarray, references: Sequence[str], their_looks: np.ndarray
) -> list[str]:
    """Give every image that is a twin of a reference the content of that one; the others keep theirs."""
    first = twins(np.concatenate([their_looks, looks]), EXACTLY).tolist()
    r = len(references)
    return [references[place] if place < r else own for place, own in zip(first[r:], content, strict=True)]


def renamed_prompts(content: Sequence[str], looks: np.ndarray, blocks: np.ndarray | None = None) -> list[str]:
    """Give prompts of one photo one content, as `renamed`; where all may be of one photo, they count as one.

    Twins are known by how far the others are, and here there may be none: taken for different photos, files of one
    would say that normal images do not differ at all.
    """
    if _one_photo(looks, blocks):
        return [content[0]] * len(content)
    return renamed(content, looks, blocks)


def told_of_copies(copies: int, prompts: int) -> str:
    """Write what a person is told of prompts that are copies of others; empty without any."""
    if not copies:
        return ""
    return f"{copies} of {prompts} prompts show the same photo as another one: {prompts - copies} different ones count"


def _one_photo(looks: np.ndarray, blocks: np.ndarray | None) -> bool:
    """Whether any two differ by no more than mild losses or, where they were saved differently, their files' losses."""
    if len(looks) < 2 or (np.ptp(looks, axis=1) <= _FLAT).any():
        return False
    for a in range(len(looks) - 1):
        apart = np.abs(looks[a].astype(np.int16) - looks[a + 1 :])
        alike = (apart.mean(axis=1) <= SAME) & (apart.max(axis=1) <= NOWHERE)
        if blocks is not None:
            otherwise = (steps_in(blocks[a + 1 :]) != steps_in(blocks[a : a + 1])).any(axis=1)
            alike |= otherwise & (beyond_losses(blocks[a], blocks[a + 1 :]) <= BEYOND_LOSSES)
        if not alike.all():
            return False
    return True


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


def _one_frame(looks: np.ndarray, near: np.ndarray, means: np.ndarray, blocks: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of one frame, saved with other losses; ``looks`` in order of their ``means``, all of the same images.

    Images that such pairs connect are one frame only if those among them that were saved alike look the same.
    """
    saved_as = np.unique(steps_in(blocks), axis=0, return_inverse=True)[1].reshape(-1)
    pairs = list[tuple[int, int]]()
    if not saved_as.any():  # all alike, as the files of a camera are
        return pairs
    ends = np.searchsorted(means, means + NEARLY, side="right")
    for a, end in enumerate(ends.tolist()):
        later = np.arange(a + 1, end)
        later = later[saved_as[later] != saved_as[a]]
        limit = np.minimum(near[a], near[later])
        later = later[_difference(looks[a : a + 1, :_FIRST], looks[later, :_FIRST]) <= 2 * limit]
        later = later[_difference(looks[a : a + 1], looks[later]) <= np.minimum(near[a], near[later])]
        if len(later):
            pairs += [(a, int(b)) for b in later[beyond_losses(blocks[a], blocks[later]) <= BEYOND_LOSSES]]
    first = np.arange(len(looks))
    for a, b in pairs:
        _join(first, a, b)
    roots = np.array([_root(first, image) for image in range(len(looks))])
    two_frames = {
        root for root in set(roots[[a for a, _ in pairs]].tolist()) if _differ(looks, saved_as, roots == root)
    }
    return [(a, b) for a, b in pairs if roots[a] not in two_frames]


def _differ(looks: np.ndarray, saved_as: np.ndarray, images: np.ndarray) -> bool:
    """Whether two of the ``images``, bool (N,), that were saved alike look different: they are not of one frame."""
    for saved in np.unique(saved_as[images]):
        alike = looks[images & (saved_as == saved)]
        if (_difference(alike[:1], alike) > SAME).any():
            return True
    return False


def _difference(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(np.int16) - others).mean(axis=1)


def _root(first: np.ndarray, image: int) -> int:
    while first[image] != image:
        image = int(first[image])
    return image


def _join(first: np.ndarray, a: int, b: int) -> None:
    low, high = sorted((_root(first, a), _root(first, b)))
    first[high] = low

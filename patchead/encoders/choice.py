"""Which layers and which image size are taken where the settings name them by a word."""

from __future__ import annotations

from collections.abc import Sequence

from patchead.encoders.spec import Architecture
from patchead.errors import SettingsError, bad_argument

#: Words for layers.
LAYER_WORDS = ("auto", "last", "quarters")
#: Side in pixels that ``auto`` aims at.
IMAGE_SIZE = 448

_CNN_STRIDES = (8, 16)


def layers_of(choice: str | Sequence[int], architecture: Architecture) -> tuple[int, ...]:
    """Name the blocks, or feature levels of a CNN, that a choice stands for.

    - ``auto``: of a transformer of L blocks the middle one, three quarters and the last: L/2, 3L/4 and L, rounded half
      up (6, 9, 12 of 12; 12, 18, 24 of 24). Of a CNN the last feature level of stride 8 and that of stride 16 (levels 3
      and 4 of a ResNet or an EfficientNet, 2 and 3 of a ConvNeXt); where it has neither, its last level.
    - ``last``: the last layer after the final norm.
    - ``quarters``: L/4, L/2, 3L/4 and L, rounded half up, of blocks or feature levels.
    - numbers: themselves.

    Returns:
        Counted from 1, ascending; empty for ``last``, as `EncoderSpec.layers`.

    Raises:
        SettingsError: another word.
    """
    if not isinstance(choice, str):
        return tuple(choice)
    if choice not in LAYER_WORDS:
        allowed = f"one of {', '.join(LAYER_WORDS)}, or numbers of blocks"
        raise SettingsError(bad_argument("layers", choice, allowed))
    if choice == "last":
        return ()
    if choice == "auto" and architecture.levels:
        strides = [stride for _, stride in architecture.levels]
        last = {stride: number for number, stride in enumerate(strides, start=1)}
        return tuple(last[stride] for stride in _CNN_STRIDES if stride in last) or (len(strides),)
    quarters = range(2 if choice == "auto" else 1, 5)
    return tuple(sorted({max(1, (quarter * architecture.depth + 2) // 4) for quarter in quarters}))


def image_size_of(choice: str | int, layers: Sequence[int], architecture: Architecture) -> int:
    """Choose the side in pixels: ``auto`` is 448, or where the model can't take that, the nearest side that it can.

    That is a multiple of the patch size; of a CNN a multiple of the coarsest stride among ``layers``. The larger of two
    that are as near.

    Raises:
        SettingsError: another word.
    """
    if isinstance(choice, int):
        return choice
    if choice != "auto":
        raise SettingsError(bad_argument("image_size", choice, "auto or a number of pixels"))
    stride = architecture.patch_size
    if architecture.levels:
        there = [layer for layer in layers if layer <= architecture.depth]  # of the others `shape_of` says so
        stride = max(architecture.levels[layer - 1][1] for layer in there or (architecture.depth,))
    return max(1, (2 * IMAGE_SIZE + stride) // (2 * stride)) * stride

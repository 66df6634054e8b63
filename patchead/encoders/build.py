"""From a spec to an encoder, or to the shape of its embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch

from patchead.encoders.base import Encoder
from patchead.encoders.choice import image_size_of, layers_of
from patchead.encoders.spec import Architecture, EncoderShape, EncoderSpec, check_spec, shape_of
from patchead.errors import SettingsError, bad_argument

_last: ContextVar[list[tuple[EncoderSpec, Encoder]] | None] = ContextVar("last", default=None)


@contextmanager
def built_once() -> Iterator[None]:
    """Have `build` return the encoder that it has built last, where it is the same, inside the block and its thread."""
    token = _last.set([])
    try:
        yield
    finally:
        _last.reset(token)


def build(spec: EncoderSpec) -> Encoder:
    """Build the encoder of ``spec`` with its weights, ready to embed.

    Raises:
        SettingsError: name, tag, image size, layers, dtype or device cannot be used.
        WeightsError: the weights cannot be found, verified, read or fitted to the model.
    """
    last = _last.get()
    if last is None:
        return _build(spec)
    if not last or last[0][0] != spec:
        last.clear()  # no two of them in memory
        last.append((spec, _build(spec)))
    return last[0][1]


def _build(spec: EncoderSpec) -> Encoder:
    describe(spec)  # everything that can be refused is refused before any weight is fetched
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(bad_argument("device", "cuda", "cpu on a machine without a GPU", "Set it to cpu or auto."))
    if spec.library == "timm":
        from patchead.encoders import timm_encoder

        return timm_encoder.build(spec)
    from patchead.encoders import open_clip_encoder

    return open_clip_encoder.build(spec)


def describe(spec: EncoderSpec) -> EncoderShape:
    """Tell the shape of the embeddings; checks ``spec`` as `build` does, without weights, network or a GPU.

    Raises:
        SettingsError: see `build`.
        WeightsError: ``weights`` names a file of a kind that cannot be read.
    """
    check_spec(spec)
    return shape_of(spec, _architecture(spec.name, spec.weights))


def chosen(name: str, weights: str, layers: str | Sequence[int], image_size: str | int) -> tuple[tuple[int, ...], int]:
    """Choose layers and image size of a model whose settings may name them by a word; see `choice`.

    Args:
        name: library and model, as in `EncoderSpec`.
        weights: as in `EncoderSpec`; they are not read.
        layers: numbers from 1, or a word.
        image_size: pixels, or auto.

    Raises:
        SettingsError: the model or a word is not known.
    """
    if not isinstance(layers, str) and not isinstance(image_size, str):
        return tuple(layers), image_size
    check_spec(EncoderSpec(name, weights))
    architecture = _architecture(name, weights)
    taken = layers_of(layers, architecture)
    return taken, image_size_of(image_size, taken, architecture)


@lru_cache(maxsize=64)
def _architecture(name: str, weights: str) -> Architecture:
    """What the library knows of a model; building it without memory takes a tenth of a second, so it is kept."""
    spec = EncoderSpec(name, weights)
    if spec.library == "timm":
        from patchead.encoders import timm_encoder

        return timm_encoder.architecture(spec)
    from patchead.encoders import open_clip_encoder

    return open_clip_encoder.architecture(spec)

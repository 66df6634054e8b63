"""From a spec to an encoder, or to the shape of its embeddings."""

from __future__ import annotations

import torch

from patchead.encoders.base import Encoder
from patchead.encoders.spec import Architecture, EncoderShape, EncoderSpec, check_spec, shape_of
from patchead.errors import SettingsError, bad_value


def build(spec: EncoderSpec) -> Encoder:
    """The encoder of ``spec`` with its weights, ready to embed.

    Raises:
        SettingsError: name, tag, image size, layers, dtype or device cannot be used.
        WeightsError: the weights cannot be found, verified, read or fitted to the model.
    """
    describe(spec)  # everything that can be refused is refused before any weight is fetched
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            bad_value("encoder.device", "cuda", "cpu on a machine without a GPU", "Set it to cpu or auto.")
        )
    if spec.library == "timm":
        from patchead.encoders import timm_encoder

        return timm_encoder.build(spec)
    from patchead.encoders import open_clip_encoder

    return open_clip_encoder.build(spec)


def describe(spec: EncoderSpec) -> EncoderShape:
    """The shape of the embeddings; checks ``spec`` as `build` does, without weights, network or a GPU.

    Raises:
        SettingsError: see `build`.
        WeightsError: ``weights`` names a file of a kind that cannot be read.
    """
    check_spec(spec)
    return shape_of(spec, _architecture(spec))


def _architecture(spec: EncoderSpec) -> Architecture:
    if spec.library == "timm":
        from patchead.encoders import timm_encoder

        return timm_encoder.architecture(spec)
    from patchead.encoders import open_clip_encoder

    return open_clip_encoder.architecture(spec)

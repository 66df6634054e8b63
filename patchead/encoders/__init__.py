"""Encoders: a name to a frozen vision model with one interface; weights from a hub, a file or a package."""

from __future__ import annotations

from patchead.encoders.base import Encoder
from patchead.encoders.build import build, built_once, describe
from patchead.encoders.embedded import EmbeddedImages
from patchead.encoders.spec import EncoderShape, EncoderSpec

__all__ = ["EmbeddedImages", "Encoder", "EncoderShape", "EncoderSpec", "build", "built_once", "describe"]

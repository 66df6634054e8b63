"""From the settings to the rules of the method and to the encoder; the nightly job and the evaluation share it."""

from __future__ import annotations

import torch

from patchead.encoders import EncoderSpec
from patchead.encoders.registry import resolve
from patchead.samples.align import Alignment
from patchead.samples.mask import ForegroundMask
from patchead.scoring.aggregate import Aggregation
from patchead.settings.model import Config
from patchead.storage import Storage


def storage(config: Config) -> Storage:
    return Storage(**config.storage.model_dump())


def this_device(asked: str) -> str:
    """A device that may be ``auto``: that is a GPU where this machine has one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def settled(asked: str, device: str) -> str:
    """An arithmetic that may be ``auto``: that is fp16 on a GPU and fp32 on a CPU."""
    return ("fp16" if device == "cuda" else "fp32") if asked == "auto" else asked


def encoder_spec(config: Config, device: str, *, attention: bool | None = None) -> EncoderSpec:
    """``device`` is where it runs; ``attention`` as the mask needs it unless it is given."""
    encoder = config.encoder
    return EncoderSpec(
        name=resolve(encoder.name),
        weights=encoder.weights,
        image_size=encoder.image_size,
        layers=encoder.layers,
        fit=encoder.fit,
        bit_depth=config.archive.bit_depth,
        storage=storage(config),
        dtype=settled(encoder.dtype, device),
        device=device,
        attention=config.mask.enabled if attention is None else attention,
    )


def precision(config: Config, device: str) -> str:
    """Arithmetic of the similarity products."""
    return settled(config.scoring.precision, device)


def few_shot(config: Config) -> bool:
    return config.scoring.mode == "few_shot"


def aggregation_of(config: Config) -> Aggregation:
    """Of the batch; few-shot mode takes its `Aggregation.few_shot`."""
    scoring = config.scoring
    return Aggregation(scoring.aggregate, scoring.fraction, scoring.image_top_fraction)


def alignment_of(config: Config) -> Alignment | None:
    """None where alignment_of is off."""
    align = config.align
    return Alignment(align.ratio, align.min_inliers, align.max_scale) if align.enabled else None


def foreground_mask_of(config: Config) -> ForegroundMask | None:
    """None where the mask is off."""
    return ForegroundMask(config.mask.threshold, config.mask.background) if config.mask.enabled else None

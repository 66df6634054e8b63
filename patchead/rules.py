"""From the settings to the rules of the method and to the encoder; the nightly job and the evaluation share it."""

from __future__ import annotations

import torch

from patchead.config import Config
from patchead.encoders import EncoderSpec
from patchead.encoders.registry import resolve
from patchead.numerics.aggregate import Rule
from patchead.numerics.align import AlignRule
from patchead.numerics.mask import MaskRule
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


def score_rule(config: Config) -> Rule:
    """Of the batch; few-shot mode takes its `Rule.few_shot`."""
    scoring = config.scoring
    return Rule(scoring.aggregate, scoring.fraction, scoring.image_top_fraction)


def align_rule(config: Config) -> AlignRule | None:
    """None where alignment is off."""
    align = config.align
    return AlignRule(align.ratio, align.min_inliers, align.max_scale) if align.enabled else None


def mask_rule(config: Config) -> MaskRule | None:
    """None where the mask is off."""
    return MaskRule(config.mask.threshold, config.mask.background) if config.mask.enabled else None

"""From the settings to the arguments of encoder and method: one translation for job, notebook and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from scipy.special import ndtr

from patchead.encoders import EncoderSpec
from patchead.encoders.build import chosen
from patchead.encoders.registry import resolve
from patchead.errors import SettingsError
from patchead.samples.align import Alignment
from patchead.samples.mask import ForegroundMask
from patchead.scoring.aggregate import Aggregation
from patchead.scoring.precision_probe import choose, probe
from patchead.scoring.verdict import VerdictSettings
from patchead.settings.model import Config
from patchead.settings.modes import accepted_references
from patchead.settings.object_storage import storage


def this_device(asked: str) -> str:
    """Settle a device where it is ``auto``: a GPU where this machine has one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def settled(asked: str, device: str) -> str:
    """Settle the encoder's arithmetic where it is ``auto``: fp16 on a GPU and fp32 on a CPU.

    No probe of the processor has a say in it: the dtype is part of `Encoder.encoder_id`, so what one processor embeds
    tonight in bfloat16 would be of no use to another tomorrow in fp32.
    """
    return ("fp16" if device == "cuda" else "fp32") if asked == "auto" else asked


def settled_precision(asked: str, device: str, probes: Sequence[Mapping[str, float]] = ()) -> str:
    """Settle the arithmetic of the scores where it is ``auto``: fp16 on a GPU, on a CPU what its probe finds fastest.

    Args:
        asked: ``scoring.precision``.
        device: where the scores are computed.
        probes: what `precision_probe.probe` gave on each worker, one arithmetic for all of them; default: this
            process's own, for what is scored or planned here.
    """
    if asked != "auto":
        return asked
    return "fp16" if device == "cuda" else choose(probes or [probe(device)])


def layers_and_size(config: Config) -> tuple[tuple[int, ...], int]:
    """Name the layers (none for the last one) and the image size that the settings mean for their encoder.

    Raises:
        SettingsError: the encoder is not known.
    """
    encoder = config.encoder
    return chosen(resolve(encoder.name), encoder.weights, encoder.layers, encoder.image_size)


def concrete(config: Config) -> Config:
    """Replace the words in ``encoder.layers`` and ``encoder.image_size`` by the numbers that they mean.

    What is recorded of a run says then what was computed, whatever a word will mean one day.
    """
    layers, image_size = layers_and_size(config)
    encoder = config.encoder.model_copy(update={"layers": layers, "image_size": image_size})
    return config.model_copy(update={"encoder": encoder})


def encoder_spec(config: Config, device: str, *, attention: bool | None = None) -> EncoderSpec:
    """Say which encoder to build; ``device`` is where it runs, ``attention`` as the mask needs it unless given."""
    encoder, (layers, image_size) = config.encoder, layers_and_size(config)
    return EncoderSpec(
        name=resolve(encoder.name),
        weights=encoder.weights,
        image_size=image_size,
        layers=layers,
        fit=encoder.fit,
        bit_depth=config.archive.bit_depth,
        storage=storage(config),
        dtype=settled(encoder.dtype, device),
        device=device,
        attention=config.mask.enabled if attention is None else attention,
    )


def with_precision(config: Config, device: str, probes: Sequence[Mapping[str, float]] = ()) -> Config:
    """Put the settled arithmetic of the scores in the place of ``auto``: the same for plan, workers and identity.

    Args:
        config: of the run; it is not changed.
        device: where the scores are computed.
        probes: see `settled_precision`.
    """
    scoring = config.scoring.model_copy(update={"precision": precision(config, device, probes)})
    return config.model_copy(update={"scoring": scoring})


def precision(config: Config, device: str, probes: Sequence[Mapping[str, float]] = ()) -> str:
    """Settle the arithmetic of the similarities; see `settled_precision`."""
    return settled_precision(config.scoring.precision, device, probes)


def aggregation_of(config: Config) -> Aggregation:
    """Make the batch's rule from distances to scores; few-shot mode takes its `Aggregation.few_shot`."""
    scoring = config.scoring
    window = None if scoring.window == "off" else scoring.window
    repeats = scoring.repeats and not accepted_references(config)  # among which no image of the night hides
    return Aggregation(
        scoring.aggregate,
        scoring.fraction,
        scoring.image_top_fraction,
        repeats=repeats,
        window=window,
        position_level=scoring.position_level,
    )


def verdict_of(config: Config, product: str | None = None) -> VerdictSettings:
    """Make the rule of verdicts: of a product, which may have its own threshold, or of all that have none."""
    scoring = config.scoring
    own = scoring.thresholds.get(product or "")
    return VerdictSettings(
        verdict="reference" if scoring.by_accepted else scoring.verdict,
        threshold_z=scoring.threshold_z if own is None else own.z,
        alpha=scoring.alpha,
        flag_top=scoring.flag_top,
    )


def needs_accepted(config: Config) -> bool:
    """Tell whether a night needs an accepted run: for its references, or for its verdict."""
    return accepted_references(config) or verdict_of(config).verdict == "reference"


def refuse_accepted(config: Config, where: str) -> None:
    """Refuse settings that need an accepted run where there is no lake to find it in.

    Raises:
        SettingsError: naming the settings and ``where``.
    """
    if needs_accepted(config):
        raise SettingsError(
            f"scoring.verdict reference and scoring.references accepted are for nights of a lake: {where} has no "
            "accepted run. Take another verdict, or give normal images as prompts."
        )


def level_of(config: Config, product: str | None) -> float:
    """Give the level of p-values below which a product's images are flagged, or may be by the false-discovery rule."""
    rule = verdict_of(config, product)
    if rule.verdict != "reference":
        return 1.0  # p-values flag nothing
    if config.scoring.false_discovery is not None:
        return config.scoring.false_discovery
    return rule.alpha if rule.threshold_z is None else float(ndtr(-rule.threshold_z))


def level_setting(config: Config, product: str | None) -> str:
    """Name the setting that gave `level_of` a product's images."""
    scoring = config.scoring
    if scoring.false_discovery is not None:
        return "scoring.false_discovery"
    if product in scoring.thresholds:
        return f"scoring.thresholds.{product}.z"
    return "scoring.alpha" if scoring.threshold_z is None else "scoring.threshold_z"


def alignment_of(config: Config) -> Alignment | None:
    """Make the limits of an alignment; None where it is off."""
    align = config.align
    return Alignment(align.ratio, align.min_inliers, align.max_scale) if align.enabled else None


def foreground_mask_of(config: Config) -> ForegroundMask | None:
    """Make the weights of the foreground mask; None where it is off."""
    return ForegroundMask(config.mask.threshold, config.mask.background) if config.mask.enabled else None

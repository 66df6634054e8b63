"""What is evaluated side by side: settings, and every combination of the values that are swept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from patchead.encoders import EncoderSpec
from patchead.errors import SettingsError, bad_value
from patchead.evaluation.encoder_probe import with_arithmetic
from patchead.samples.align import Alignment
from patchead.samples.mask import ForegroundMask
from patchead.scoring.aggregate import Aggregation
from patchead.settings import modes, resolve
from patchead.settings.identity import Decides, identity
from patchead.settings.model import Config
from patchead.settings.without_use import without_use

PROMPTS_URI = "dataset://train"  # the value of prompts.uri that stands for a class's own training images
AS_CONFIGURED = "as configured"

Loader = Callable[[Sequence[str]], Config]
"""Checked settings with these ``section.key=value`` overrides on the user's own; unused ones may be among them."""


@dataclass(frozen=True)
class Variant:
    """Hold one column of settings; ``label`` names what was swept, e.g. ``scoring.fraction=0.1, encoder.layers=[12]``.

    The arithmetic of ``config`` is settled: nothing in it is ``auto``.
    """

    label: str
    config: Config

    @property
    def few_shot(self) -> bool:
        """Tell whether prompts are the references."""
        return modes.few_shot(self.config)

    @property
    def device(self) -> str:
        """Choose the torch device."""
        return resolve.this_device(self.config.encoder.device)

    @property
    def precision(self) -> str:
        """Settle the arithmetic of the scores."""
        return resolve.precision(self.config, self.device)

    @property
    def aggregation(self) -> Aggregation:
        """Say how distances become scores."""
        return resolve.aggregation_of(self.config)

    @property
    def mask(self) -> ForegroundMask | None:
        """Say how attention becomes weights; None where the mask is off."""
        return resolve.foreground_mask_of(self.config)

    @property
    def align(self) -> Alignment | None:
        """Say when photos count as aligned; None where alignment is off."""
        return resolve.alignment_of(self.config)

    def encoder_spec(self, *, attention: bool) -> EncoderSpec:
        """Name the encoder, with ``attention`` as it is asked for."""
        return resolve.encoder_spec(self.config, self.device, attention=attention)

    @property
    def encoder_key(self) -> str:
        """Name the encoder: equal for variants that one serves.

        Attention is no part of it: the mask is applied after matching, so variants with and without one share their
        embeddings (which then differ by a rounding from those of a variant that is evaluated alone: attention is read
        from other kernels).
        """
        return repr(self.encoder_spec(attention=False))

    @property
    def settings(self) -> dict[str, Any]:
        """Collect every setting that the figures depend on, by dotted name, ``auto`` resolved.

        The device is none of them, nor how memory is shared.
        """
        return identity(self.config, Decides.VERDICTS, self.device)


def variants(load: Loader, sweeps: Sequence[str], fixed: Sequence[str] = ()) -> list[Variant]:
    """List every combination of the swept values, the last sweep fastest; one variant where nothing is swept.

    Where the arithmetic of encoder or scores is ``auto``, it is what this processor is clearly faster in.

    Args:
        load: see `Loader`.
        sweeps: each ``section.key=value,value,…``; see `parse_sweep`.
        fixed: overrides below the sweeps.

    Raises:
        SettingsError: a key or a value cannot be used, or two variants would give the same figures.
    """
    parsed = [parse_sweep(sweep) for sweep in sweeps]
    keys = [key for key, _ in parsed]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise SettingsError(
            f"--sweep names {', '.join(twice)} twice; give all its values at once, separated by commas."
        )
    found = []
    for values in itertools.product(*(values for _, values in parsed)):
        overrides = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
        found.append(Variant(", ".join(overrides) or AS_CONFIGURED, with_arithmetic(load([*fixed, *overrides]))))
    for variant in found:
        _check(variant)
    for first, second in itertools.combinations(found, 2):
        if first.settings == second.settings:
            raise SettingsError(
                f"--sweep: {first.label!r} and {second.label!r} give the same figures: what differs is not used here."
            )
    _refuse_unused(found)
    return found


def parse_sweep(text: str) -> tuple[str, list[str]]:
    """Read ``section.key=a,b,c`` as a key and its values. Only commas outside of brackets and quotes separate values.

    ``encoder.layers=[12],[6,9,12]`` has two values, ``encoder.layers=[6,9,12]`` has one.

    Raises:
        SettingsError: no key, no value, or brackets or quotes that are not closed.
    """
    key, separator, rest = (part.strip() for part in text.partition("="))
    allowed = "section.key=value,value,…, e.g. scoring.fraction=0.1,0.3 or encoder.layers=[12],[6,9,12]"
    if not separator or not key:
        raise SettingsError(bad_value("--sweep", text, allowed))
    values, depth, quote, start = [], 0, "", 0
    for at, character in enumerate(rest):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and depth == 0:
            values.append(rest[start:at].strip())
            start = at + 1
    values.append(rest[start:].strip())
    if depth or quote or not all(values):
        raise SettingsError(bad_value("--sweep", text, allowed, "A value is empty, or a bracket or quote is open."))
    return key, values


def _refuse_unused(found: Sequence[Variant]) -> None:
    """Refuse a setting that has no effect in any of the variants; what one of them uses may be given to all."""
    unused = [without_use(variant.config) for variant in found]
    if everywhere := [why.told(key) for key, why in unused[0].items() if all(key in other for other in unused)]:
        raise SettingsError("\n".join(everywhere))


def _check(variant: Variant) -> None:
    prompts = variant.config.prompts
    if variant.config.scoring.subspace and not variant.few_shot:
        remedy = "It fills a second column of the nightly job, which an evaluation has not."
        raise SettingsError(bad_value("scoring.subspace", True, "false in an evaluation", remedy))
    if variant.few_shot and (prompts.uri != PROMPTS_URI or prompts.manifest is not None):
        got = prompts.manifest if prompts.uri == PROMPTS_URI else prompts.uri
        remedy = "An evaluation draws its prompts from each class's own training images, without a manifest."
        raise SettingsError(bad_value("prompts.uri", got, f"{PROMPTS_URI} in an evaluation", remedy))

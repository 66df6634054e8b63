"""The stages of a night as lines: how much work, how long, and where each figure comes from."""

from __future__ import annotations

from math import ceil

from patchead.encoders import EncoderSpec
from patchead.forecast.feed import encoder_key
from patchead.forecast.stages import ASSUMED, UNITS, Known, Night, Stage
from patchead.maps.shown import FLAGGED

WITHOUT = "what lists the archive, judges groups and publishes is not in it"


def night_lines(night: Night, spec: EncoderSpec) -> list[str]:
    """Say what each stage other than scoring takes, all of it undisturbed."""
    decode, embed = night.each.decode, night.each.embed
    told = _line(night.embed) + _cores_for_an_actor(decode, embed) if embed else _no_pace(night, spec)
    return [_line(night.read), _line(night.decode), told, f"{_line(night.explain)}, {FLAGGED:.0%} flagged {ASSUMED}"]


def total_line(night: Night, scoring: float | None) -> list[str]:
    """Say what the whole night takes, with ``scoring`` seconds as simulated; nothing where a stage has no figure."""
    total = None if scoring is None else night.seconds(scoring)
    if total is None or night.fed is None or night.cluster is None:
        return []
    return [
        f"night    about {total:.3g} s: {night.cluster.figures.start_seconds:.3g} s to start, then to read, decode and "
        f"embed at once, of which {night.fed.name} takes longest ({night.fed.seconds:.3g} s), then to score, then to "
        f"explain; {WITHOUT}"
    ]


def _line(stage: Stage) -> str:
    seconds = "" if stage.seconds is None else f", {stage.seconds:.3g} s"
    return f"{stage.name:8} {stage.images} images, {stage.work:.3g} {UNITS[stage.name]}{seconds}: {stage.source}"


def _cores_for_an_actor(decode: Known, embed: Known) -> str:
    cores = max(1, ceil(decode.value / embed.value))
    return f"; {cores} CPU {'core keeps' if cores == 1 else 'cores keep'} an actor busy, with fewer it waits for images"


def _no_pace(night: Night, spec: EncoderSpec) -> str:
    remedy = f"run `patchead calibrate --embed` for {encoder_key(spec)}, or name a registered encoder and a --device"
    return f"embed    {night.images} images, no estimate: {remedy}"

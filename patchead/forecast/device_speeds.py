"""Speeds that an estimate is made from: measured by `patchead calibrate`, or of a named GPU from its data sheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patchead.atomic_files import write_atomically
from patchead.errors import SettingsError, bad_value, nearest_name

DEFAULT_FILE = Path("~/.cache/patchead/calibration.json")
DATA_SHEET = "data sheet, not measured"
MEASURED = "measured"
NO_FIGURES = "no estimate: run `patchead calibrate`, or name a device with --device"

EFFICIENCY = 0.25
"""Assumed share of a data sheet's dense rate: the kernel also reads what it multiplies back to take its maxima. An H100
was measured once, without Ray: 0.22 and 0.37 in fp16, 0.18 and 0.33 in int8 for groups of 200 and 1,000 images of 1,024
patches, D = 1,152 (`jobs/benchmark.py gpu --full`)."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rates = Annotated[Mapping[str, Positive], Field(min_length=1)]


class DeviceFigures(BaseModel):
    """Hold what one actor and one node do per second; a calibration file as it is. Rates are of whole calls."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[2] = 2
    """Of the file's fields."""
    name: str
    source: str
    """A measurement, or `DATA_SHEET`."""
    device: Literal["cpu", "cuda"]
    flops: Rates
    """FLOP/s of one actor while all actors of its node work, per precision; counted as `plan.tasks` counts."""
    flops_alone: Rates
    """The same while it is the only one; equal to ``flops`` where actors do not disturb each other."""
    actors_per_node: Annotated[int, Field(gt=0)]
    threads: Annotated[int, Field(gt=0)]
    """CPU threads of one actor."""
    read_bytes: Positive
    """Bytes/s that a node reads from the lake."""
    network_bytes: Positive
    """Bytes/s between a node's actors and the object store."""
    task_seconds: Seconds
    """What a call costs above its work: scheduling, opening files, staging."""
    start_seconds: Seconds
    """From asking for the actors to their first call."""
    embed: Mapping[str, Positive] = Field(default_factory=dict)
    """Images/s of one actor's encoder while all actors work, by `feed.encoder_key`; empty where none was measured."""

    @property
    def speeds(self) -> dict[str, float]:
        """Give each precision's speed over that of fp32, while all actors work, as a probe does; {} without fp32."""
        exact = self.flops.get("fp32")
        return {} if exact is None else {precision: rate / exact for precision, rate in self.flops.items()}

    def rate(self, precision: str, actors_on_node: int) -> float:
        """Estimate the FLOP/s of one of ``actors_on_node`` actors; between alone and all, in a straight line.

        Raises:
            SettingsError: there is no figure for this precision.
        """
        if precision not in self.flops:
            known = ", ".join(self.flops)
            remedy = f"Run `patchead calibrate --precision {precision}`." if self.source.startswith(MEASURED) else ""
            raise SettingsError(
                bad_value("scoring.precision", precision, f"one that {self.name} has a figure for ({known})", remedy)
            )
        together, alone = self.flops[precision], self.flops_alone.get(precision, self.flops[precision])
        if self.actors_per_node < 2:
            return together
        crowding = min(1.0, (actors_on_node - 1) / (self.actors_per_node - 1))
        return alone + (together - alone) * crowding


def _data_sheet(name: str, tera: Mapping[str, float]) -> DeviceFigures:
    """A GPU's dense TFLOP/s (TOP/s for int8) times `EFFICIENCY`, and assumed rates of a common cloud node of eight."""
    rates = {precision: value * 1e12 * EFFICIENCY for precision, value in tera.items()}
    return DeviceFigures(
        name=name,
        source=DATA_SHEET,
        device="cuda",
        flops=rates,
        flops_alone=rates,
        actors_per_node=8,
        threads=1,
        read_bytes=1e9,
        network_bytes=3e9,  # 25 Gbit/s
        task_seconds=0.05,
        start_seconds=30.0,
    )


NAMED = {
    figures.name: figures
    for figures in (
        # Dense rates without sparsity; fp32 outside of the tensor cores, as torch multiplies by default.
        _data_sheet("H200", {"fp32": 67, "fp16": 989, "bf16": 989, "int8": 1979}),
        _data_sheet("H100", {"fp32": 67, "fp16": 989, "bf16": 989, "int8": 1979}),
        _data_sheet("A100", {"fp32": 19.5, "fp16": 312, "bf16": 312, "int8": 624}),
        _data_sheet("L40S", {"fp32": 91.6, "fp16": 362, "bf16": 362, "int8": 733}),
        _data_sheet("A10", {"fp32": 31.2, "fp16": 125, "bf16": 125, "int8": 250}),
        _data_sheet("L4", {"fp32": 30.3, "fp16": 121, "bf16": 121, "int8": 242}),
        _data_sheet("T4", {"fp32": 8.1, "fp16": 65, "int8": 130}),
    )
}


def find_figures(device: str | None, calibration: Path | None) -> DeviceFigures | None:
    """Find the speeds: the named device, else the calibration file, else the default one; None where there is none.

    Raises:
        SettingsError: an unknown name, both at once, a file that is not there, or one that `load_figures` refuses.
    """
    if device is not None and calibration is not None:
        raise SettingsError("--device and --calibration are two sources of the same figures; give one of them.")
    if device is not None:
        return named(device)
    if calibration is not None:
        return load_figures(calibration)
    default = DEFAULT_FILE.expanduser()
    return load_figures(default) if default.exists() else None


def named(device: str) -> DeviceFigures:
    """Look up the data-sheet figures of a GPU, e.g. ``H100``, in any case.

    Raises:
        SettingsError: unknown name.
    """
    found = NAMED.get(device.upper())
    if found is None:
        hint = nearest_name(device.upper(), NAMED).strip()
        remedy = f"{hint} For other devices run `patchead calibrate` on one.".strip()
        raise SettingsError(bad_value("--device", device, f"one of {', '.join(NAMED)}", remedy))
    return found


def save_figures(figures: DeviceFigures, path: Path) -> None:
    """Write a calibration file, JSON.

    Raises:
        SettingsError: the file cannot be written.
    """
    try:
        write_atomically(path, figures.model_dump_json(indent=2) + "\n")
    except OSError as exc:
        raise SettingsError(
            bad_value("--output", str(path), "a file that can be written", f"It cannot: {exc.strerror}.")
        ) from exc


def load_figures(path: Path) -> DeviceFigures:
    """Read what `save_figures` wrote.

    Raises:
        SettingsError: there is no such file, it is not JSON, or a field of it is missing, unknown or out of range.
    """
    try:
        return DeviceFigures.model_validate_json(path.read_bytes())
    except OSError as exc:
        reason = f"{exc.strerror}."
        cause: Exception = exc
    except ValidationError as exc:
        faults = [(".".join(map(str, fault["loc"])), fault["msg"]) for fault in exc.errors()]
        reason = "; ".join(f"{place}: {message}" if place else message for place, message in faults) + "."
        cause = exc
    remedy = f"{reason} Run `patchead calibrate --output {path}`."
    raise SettingsError(bad_value("--calibration", str(path), "a file of `patchead calibrate`", remedy)) from cause

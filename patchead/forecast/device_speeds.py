"""Speeds that an estimate is made from: measured by `patchead calibrate`, or of a named GPU from its data sheet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from patchead.errors import SettingsError, bad_value, nearest_name
from patchead.files import write_atomically

SCHEMA = 1
DEFAULT_FILE = Path("~/.cache/patchead/calibration.json")
DATA_SHEET = "data sheet, not measured"
MEASURED = "measured"
NO_FIGURES = "no estimate: run `patchead calibrate`, or name a device with --device"

EFFICIENCY = 0.25
"""Assumed share of a data sheet's dense rate: the kernel also reads every product back to take its maxima."""


@dataclass(frozen=True)
class DeviceFigures:
    """What one actor and one node do per second. Rates are of whole calls, nothing subtracted."""

    name: str
    source: str
    kind: str  # cpu | cuda
    flops: Mapping[str, float]
    """FLOP/s of one actor while all actors of its node work, per precision; counted as `plan.tasks` counts."""
    flops_alone: Mapping[str, float]
    """The same while it is the only one; equal to ``flops`` where actors do not disturb each other."""
    actors_per_node: int
    threads: int
    """CPU threads of one actor."""
    read_bytes: float
    """Bytes/s that a node reads from the lake."""
    network_bytes: float
    """Bytes/s between a node's actors and the object store."""
    task_seconds: float
    """What a call costs beside its work: scheduling, opening files, staging."""
    start_seconds: float
    """From asking for the actors to their first call."""
    encoder_images: float | None = None
    """Images/s of one embedding actor, where known."""

    def rate(self, precision: str, actors_on_node: int) -> float:
        """FLOP/s of one of ``actors_on_node`` actors; between alone and all, in a straight line.

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
        kind="cuda",
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
    """The named device, else the calibration file, else the default one; None where that was never written.

    Raises:
        SettingsError: an unknown name, both at once, a file that is not there, or one of another schema.
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
    """Data-sheet figures of a GPU, e.g. ``H100``, in any case.

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
    """Write ``figures`` as JSON.

    Raises:
        SettingsError: the file cannot be written.
    """
    try:
        write_atomically(path, json.dumps({"schema": SCHEMA, **asdict(figures)}, indent=2) + "\n")
    except OSError as exc:
        raise SettingsError(
            bad_value("--output", str(path), "a file that can be written", f"It cannot: {exc.strerror}.")
        ) from exc


def load_figures(path: Path) -> DeviceFigures:
    """Read what `save_figures` wrote.

    Raises:
        SettingsError: there is no such file, it is not JSON, or it is of another schema.
    """
    allowed, remedy = "a file written by `patchead calibrate`", f"Run `patchead calibrate --output {path}`."
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SettingsError(bad_value("--calibration", str(path), allowed, f"{exc.strerror}. {remedy}")) from exc
    except ValueError as exc:
        raise SettingsError(bad_value("--calibration", str(path), allowed, f"It is not JSON. {remedy}")) from exc
    found = values.pop("schema", None) if isinstance(values, dict) else None
    if found != SCHEMA:
        raise SettingsError(
            bad_value("--calibration", str(path), allowed, f"Its schema is {found!r}, not {SCHEMA}. {remedy}")
        )
    if fault := _fault(values):
        raise SettingsError(bad_value("--calibration", str(path), allowed, f"{fault} {remedy}"))
    return DeviceFigures(**values)


def _fault(values: dict[str, Any]) -> str:
    names = {field.name for field in fields(DeviceFigures)}
    if names != set(values):
        return f"Its fields differ: {', '.join(sorted(names ^ set(values)))}."
    if not all(isinstance(values[name], str) for name in ("name", "source", "kind")):
        return "name, source and kind must be text."
    numbers = {name: values[name] for name in ("actors_per_node", "threads", "read_bytes", "network_bytes")}
    for name in ("flops", "flops_alone"):
        if not isinstance(values[name], dict) or not values[name]:
            return f"{name} must give a rate for each precision."
        numbers |= {f"{name}.{precision}": rate for precision, rate in values[name].items()}
    wrong = [name for name, number in numbers.items() if not _positive(number)]
    wrong += [name for name in ("task_seconds", "start_seconds") if not _number(values[name]) or values[name] < 0]
    return f"{', '.join(wrong)} must be positive numbers." if wrong else ""


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0

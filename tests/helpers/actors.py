"""Actors for the tests of executors; a module of its own, as Ray's workers import it by name."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from patchead.errors import LakeError


class Adder:
    """Adds what it was set up with."""

    setups = 0

    def setup(self, spec: int) -> None:
        if spec < 0:
            raise LakeError(f"cannot add {spec}")
        self.amount = spec
        self.setups += 1

    def add(self, value: int) -> int:
        return value + self.amount

    def both(self, value: int) -> tuple[int, int]:
        return value + self.amount, value - self.amount

    def total(self, values: Sequence[int]) -> int:
        return sum(values[i] for i in range(len(values)))

    def fail(self, text: str) -> None:
        raise LakeError(text)

    def nothing(self) -> None:
        """Return nothing."""

    def imports(self, module: str) -> bool:
        return module in sys.modules

    def who(self) -> tuple[int, int]:
        return os.getpid(), self.setups

    def __call__(self, unit: pa.Table) -> pa.Table:
        return unit.append_column("sum", pc.add(unit["value"], self.amount))


class Slow(Adder):
    """Takes its time, and says where it is."""

    def where(self) -> str:
        time.sleep(0.5)
        return ray.get_runtime_context().get_node_id()

    def __call__(self, unit: pa.Table) -> pa.Table:
        return unit.append_column("node", pa.array([self.where()] * unit.num_rows))


def doubled(unit: pa.Table) -> pa.Table:
    return unit.set_column(0, "value", pc.multiply(unit["value"], 2))


def twice(value: Any) -> Any:
    return value * 2


def but_one(value: int) -> int:
    if value == 1:
        raise LakeError("no such item")
    return value


def reserved_bytes(_: int) -> float:
    """The memory that this task of Ray has reserved."""
    return ray.get_runtime_context().get_assigned_resources().get("memory", 0.0)

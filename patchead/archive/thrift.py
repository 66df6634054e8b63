"""Thrift's compact form, in which Parquet writes its footer and the headers of its pages.

Only what is needed to look at sizes before Arrow reads on: of damaged footers Arrow's own view ends the process.
"""

from __future__ import annotations

from typing import Any

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_DEEPEST = 16

Struct = dict[int, Any]
"""Values by the number of the field: whole numbers, bytes, lists and structs."""


def read_struct(data: bytes) -> tuple[Struct, int]:
    """Read the struct that ``data`` begin with, and how many bytes it takes.

    Raises:
        ValueError: they do not begin with a whole one.
    """
    reader = _Reader(data)
    try:
        return reader.struct(0), reader.place
    except IndexError as exc:
        raise ValueError("cut off, or no struct of Thrift") from exc


class _Reader:
    """Raises IndexError where the data end too early, or are no such value."""

    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def struct(self, depth: int) -> Struct:
        found, field = Struct(), 0
        while head := self._byte():
            kind, step = head & 15, head >> 4
            field = field + step if step else self._zigzag()
            found[field] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind < _DOUBLE:
            return self._zigzag()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BINARY:
            return self._bytes(self._number())
        if kind in (_LIST, _SET):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._number()
            return [self._value(head & 15, depth) for _ in range(min(size, len(self._data)))]
        if kind == _STRUCT and depth < _DEEPEST:
            return self.struct(depth + 1)
        raise IndexError(kind)  # Parquet has no other

    def _byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]

    def _bytes(self, size: int) -> bytes:
        self.place += size
        if self.place > len(self._data):
            raise IndexError(size)
        return self._data[self.place - size : self.place]

    def _number(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise IndexError(value)

    def _zigzag(self) -> int:
        value = self._number()
        return (value >> 1) ^ -(value & 1)

"""Models without the random values that libraries fill them with, which take half of the time to build one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, init
from torch.overrides import TorchFunctionMode

from patchead.encoders.weights import Source

# What torch.nn.init asks to be told of as a whole is done inside without asking again.
_DRAWS = {Tensor.uniform_, Tensor.normal_, init.uniform_, init.normal_, init.kaiming_uniform_}
_AFTER_A_DRAW = {Tensor.erfinv_}
_SCALING = {Tensor.mul_, Tensor.add_, Tensor.sub_, Tensor.div_, Tensor.clamp_}
_CONSTANTS = {Tensor.fill_, Tensor.zero_, init.constant_}
_FILLS = _DRAWS | _AFTER_A_DRAW | _SCALING | _CONSTANTS


def without_memory() -> ExitStack:
    """Build models inside the block on the device ``meta``: shapes alone; what fills a tensor there does nothing."""
    stack = ExitStack()
    stack.enter_context(torch.device("meta"))
    stack.enter_context(_Filling(_nothing_without_memory))
    return stack


def to_be_loaded() -> TorchFunctionMode:
    """Build models inside the block whose parameters are all loaded afterwards.

    Instead of random numbers a parameter has NaN: one that is not loaded shows in every vector.
    """
    return _Filling(_no_draws)


def as_loaded(source: Source) -> AbstractContextManager[Any]:
    """Build models inside the block for weights of ``source``: see `to_be_loaded`, unless they are drawn themselves."""
    return nullcontext() if source.origin == "random" else to_be_loaded()


class _Filling(TorchFunctionMode):
    """Has ``instead`` look at every operation in place; it returns None where the operation is done as it is."""

    def __init__(self, instead: Callable[[Any, Tensor], Tensor | None]) -> None:
        super().__init__()
        self._instead = instead

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _FILLS:
            filled = self._instead(func, args[0] if args else (kwargs or {})["tensor"])
            if filled is not None:
                return filled
        return func(*args, **(kwargs or {}))


def _nothing_without_memory(func: Any, tensor: Tensor) -> Tensor | None:
    return tensor if tensor.is_meta else None


def _no_draws(func: Any, tensor: Tensor) -> Tensor | None:
    if func not in _DRAWS | _AFTER_A_DRAW or not isinstance(tensor, Parameter):
        return None  # a buffer may be computed and not loaded, a checkpoint converted
    if func in _DRAWS:
        tensor.data.fill_(torch.nan)
    return tensor

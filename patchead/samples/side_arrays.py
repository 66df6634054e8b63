"""What is kept with the embeddings of samples: for the mask, the alignment and twins. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class SideArrays:
    """Hold what is known of N samples but their embeddings; None where it was not asked for."""

    attention: np.ndarray | None = None
    """float16 (N, V · P), from 0 to 1."""
    valid: np.ndarray | None = None
    """bool (N, V, P): patches that the warp has filled. Batch alignment only."""
    motions: np.ndarray | None = None
    """float32 (N, V, 2, 3), from the sample's square to the view's. Batch alignment only."""
    own: np.ndarray | None = None
    """float32 (N, P): distances to the prompts that were warped onto each query; infinity where none was."""
    aligned: np.ndarray | None = None
    """bool (N,): whether at least one view could be made. Alignment only."""
    look: np.ndarray | None = None
    """uint8 (N, K): some pixels of each image, see `samples.twins`."""
    blocks: np.ndarray | None = None
    """int16 (N, B): some blocks of each image, see `archive.blocks`."""

    def of(self, images: slice | np.ndarray) -> SideArrays:
        """Take some of the samples: a slice of them, or places."""
        there = {f.name: getattr(self, f.name) for f in fields(self)}
        return SideArrays(**{name: None if value is None else value[images] for name, value in there.items()})

    @classmethod
    def joined(cls, parts: Sequence[SideArrays]) -> SideArrays:
        """Join several portions of samples, one after the other."""
        values = ((f.name, [getattr(part, f.name) for part in parts]) for f in fields(cls))
        return cls(**{name: np.concatenate(found) for name, found in values if found[0] is not None})

    def columns(self) -> dict[str, np.ndarray]:
        """Give what there is by name, as arrays (N, …) of at least two dimensions."""
        there = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return {name: value.reshape(len(value), -1) if value.ndim == 1 else value for name, value in there.items()}

    @classmethod
    def of_columns(cls, columns: Mapping[str, np.ndarray]) -> SideArrays:
        """Undo `columns`."""
        return cls(**{name: value[:, 0] if name == "aligned" else value for name, value in columns.items()})

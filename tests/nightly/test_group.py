"""Embeddings of a group that lie in several files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from patchead.errors import LakeError
from patchead.lake.embeddings import EmbeddingStore
from patchead.nightly.group import Group, load
from patchead.schema import OK, RECEIPTS, table
from patchead.storage import Storage

FILES, IMAGES = 9, 4  # of each file


def test_images_of_many_files_come_in_the_order_in_which_they_are_asked_for(tmp_path: Path) -> None:
    store, rng = EmbeddingStore(str(tmp_path), Storage(), "encoder"), np.random.default_rng(0)
    vectors = rng.standard_normal((FILES, IMAGES, 3, 2)).astype(np.float16)
    written = [store.write_unit(f"u{n}", _receipts(n), vectors[n]) for n in range(FILES)]
    receipts = pa.concat_tables(written).append_column("part_id", pa.nulls(FILES * IMAGES, pa.string()))
    shuffled = rng.permutation(FILES * IMAGES)
    group = Group.of("g", receipts.take(shuffled))
    for wanted in (np.arange(FILES * IMAGES), rng.permutation(FILES * IMAGES)[:7], np.array([5])):
        assert (load(store, group, wanted) == vectors.reshape(-1, 3, 2)[shuffled][wanted]).all()
    Path(written[4]["embedding_uri"][0].as_py()).unlink()
    with pytest.raises(LakeError, match=r"u4-.*is gone"):
        load(store, group, np.arange(FILES * IMAGES))


def _receipts(file: int) -> pa.Table:
    known = {"etag": "", "size": 1, "status": OK}
    return table([{"image_id": f"{file}-{i}", "content_hash": f"{file}-{i}"} | known for i in range(IMAGES)], RECEIPTS)

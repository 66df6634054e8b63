"""The manifest and the receipts that a run keeps in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from patchead.errors import LakeError
from patchead.lake.staging import RunFolder
from patchead.schema import MANIFEST
from tests.helpers.sample_rows import NIGHT, group, rows_of


def folder_of(lake: Any, run_id: str = "run-1") -> RunFolder:
    return RunFolder(lake.uri, lake.storage, run_id)


def manifest() -> pa.Table:
    return rows_of("run-1", [group(NIGHT, "screw", "a", "b"), group(None, "ü", "c#1\n")]).manifest


def test_the_manifest_comes_back_for_the_same_listing_alone(lake: Any) -> None:
    folder = folder_of(lake)
    assert folder.read_manifest("listing") is None
    folder.write_manifest(manifest(), 3, listing="listing")
    assert folder.read_manifest("listing") == (manifest(), 3)
    assert folder.read_manifest("other") is None
    assert folder_of(lake, "run-2").read_manifest("listing") is None
    folder.write_manifest(manifest().slice(0, 1), 0, listing="other")
    assert folder.read_manifest("other") == (manifest().slice(0, 1), 0)
    assert folder.read_manifest("listing") is None
    folder.forget_manifest()
    assert folder.read_manifest("other") is None
    folder.forget_manifest()


@pytest.mark.parametrize("size", [0, 9, -9])
def test_a_damaged_manifest_is_named_with_the_remedy(local: Any, size: int) -> None:
    folder = folder_of(local)
    folder.write_manifest(manifest(), 3, listing="listing")
    path = Path(local.uri) / "runs" / "run-1" / "manifest.parquet"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LakeError, match=r"manifest\.parquet is damaged.*Delete it"):
        folder.read_manifest("listing")


def test_a_table_of_another_version_is_none_and_one_with_other_columns_is_refused(local: Any) -> None:
    folder, path = folder_of(local), Path(local.uri) / "runs" / "run-1" / "manifest.parquet"
    folder.write_manifest(manifest(), 3, listing="listing")
    kept = pq.read_table(path)
    pq.write_table(kept.replace_schema_metadata({"listing": "listing", "ignored": "3", "schema_version": "0"}), path)
    assert folder.read_manifest("listing") is None
    pq.write_table(kept.drop_columns(["etag"]), path)
    with pytest.raises(LakeError, match=r"manifest\.parquet is damaged: it does not have the columns that it should"):
        folder.read_manifest("listing")
    assert kept.replace_schema_metadata(None).schema.equals(MANIFEST)


def test_a_manifest_of_before_a_column_came_has_null_there(local: Any) -> None:
    folder, path = folder_of(local), Path(local.uri) / "runs" / "run-1" / "manifest.parquet"
    folder.write_manifest(manifest(), 3, listing="listing")
    pq.write_table(pq.read_table(path).drop_columns(["keys_json"]), path)
    assert folder.read_manifest("listing") == (manifest(), 3)

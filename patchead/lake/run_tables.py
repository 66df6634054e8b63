"""What the stages of a run hand on as tables: the manifest and the receipts, as Parquet files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from patchead.arrow_columns import redacted_column
from patchead.errors import DamagedFileError
from patchead.files import Folder, undamaged
from patchead.schema import LATER_COLUMNS, SCHEMA_VERSION, completed

MANIFEST_FILE, RECEIPTS_FILE = "manifest.parquet", "receipts.parquet"
_REMEDY = "Delete it and run again: its stage is then done anew."


def write_table(folder: Folder, name: str, rows: pa.Table, made_for: Mapping[str, str]) -> None:
    """Write a table; another file of that name is replaced.

    Args:
        folder: of the run.
        name: of the file, with its suffix.
        rows: any.
        made_for: what the rows hold for, as plain texts; in the file's metadata, so that both come at once.

    Raises:
        LakeError: the file cannot be written.
    """
    noted = redacted_column(rows, "error").replace_schema_metadata({**made_for, "schema_version": str(SCHEMA_VERSION)})
    folder.write(name, lambda sink: pq.write_table(noted, sink, compression="zstd", write_page_checksum=True))


def read_table(folder: Folder, name: str, schema: pa.Schema) -> tuple[pa.Table, dict[str, str]] | None:
    """Read what `write_table` wrote, with what it holds for; None where there is none, or of another version.

    Raises:
        DamagedFileError: the file is damaged, or has other columns than its version says.
        LakeError: it cannot be read.
    """
    try:
        file = folder.open(name)
    except FileNotFoundError:
        return None
    uri = folder.uri_of(name)
    with undamaged(uri, _REMEDY), file:
        rows = pq.ParquetFile(file, page_checksum_verification=True).read()
        if set(schema.names) - set(rows.column_names) <= LATER_COLUMNS and set(rows.column_names) < set(schema.names):
            rows = completed(rows, schema).replace_schema_metadata(rows.schema.metadata)
    made_for = {key.decode(): value.decode() for key, value in (rows.schema.metadata or {}).items()}
    if made_for.pop("schema_version", None) != str(SCHEMA_VERSION):
        return None
    if not rows.schema.equals(schema):
        raise DamagedFileError(f"{uri} is damaged: it does not have the columns that it should. {_REMEDY}", uri)
    return rows.replace_schema_metadata(None), made_for

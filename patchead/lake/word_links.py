"""What names by words rest on: patches of a region and the phrases they are linked to, one file per run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from patchead.files import Folder
from patchead.lake.run_tables import read_table, write_table
from patchead.lake.staging import RunFolder
from patchead.schema import WORD_LINKS

FILE = "word_links.parquet"


def stage_names(
    folder: RunFolder, name: str, outcomes: Sequence[dict[str, Any]], links: pa.Table, *, made_of: str
) -> None:
    """Stage what some regions were named, and the links, so that nobody does it again; removed with the run's groups.

    Args:
        folder: of the run.
        name: of these regions together.
        outcomes: plain values, in order of the regions.
        links: `WORD_LINKS`.
        made_of: digest of all that decides both.

    Raises:
        LakeError: the file cannot be written.
    """
    made_for = {"made_of": made_of, "outcomes": json.dumps(list(outcomes))}
    write_table(folder.explained, f"words-{name}.parquet", links, made_for)


def staged_names(folder: RunFolder, name: str, *, made_of: str) -> tuple[list[dict[str, Any]], pa.Table] | None:
    """Read what `stage_names` staged: None where there is nothing, or it was made of something else.

    Raises:
        DamagedFileError: the file is damaged.
        LakeError: it cannot be read.
    """
    found = read_table(folder.explained, f"words-{name}.parquet", WORD_LINKS)
    if found is None or found[1].get("made_of") != made_of:
        return None
    return json.loads(found[1]["outcomes"]), found[0]


def write_links(folder: RunFolder, links: pa.Table) -> None:
    """Write the links of a whole run; they stay as long as its folder.

    Raises:
        LakeError: the file cannot be written.
    """
    write_table(folder.files, FILE, links, {})


def read_links(folder: Folder) -> pa.Table:
    """Read the links of a run from its folder; empty where it has none.

    Raises:
        DamagedFileError: the file is damaged.
        LakeError: it cannot be read.
    """
    found = read_table(folder, FILE, WORD_LINKS)
    return WORD_LINKS.empty_table() if found is None else found[0]

"""What a night is published without: verdicts that could not be made, regions, heatmaps and names that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from patchead.arrow_columns import set_column
from patchead.errors import DamagedFileError, FullDiskError, PatcheadError
from patchead.lake.staged_pictures import FILES
from patchead.nightly.run_record import shortened
from patchead.schema import INCOMPLETE, OK, table
from patchead.settings.argument_names import in_settings


def of_the_group(error: PatcheadError) -> str:
    """Say why, of an error that concerns one group; raise one that does not.

    Raises:
        DamagedFileError: the error: the file is set aside and made again.
        FullDiskError: the error: nothing that follows could be written, either.
    """
    if isinstance(error, (DamagedFileError, FullDiskError)):
        raise error
    return shortened(in_settings(str(error)))


def together(*reasons: str | None) -> str:
    """Join reasons, each said once; "" where there is none."""
    return "; ".join(dict.fromkeys(why for why in reasons if why))


@dataclass
class Lacking:
    """Collect what could not be done for which groups."""

    unjudged: dict[str, str] = field(default_factory=dict)
    """Why, by the id of each group whose scores got no verdict."""
    incomplete: dict[str, str] = field(default_factory=dict)
    """What is missing and why, by the id of each group that has scores and verdict."""
    unsearched: set[str] = field(default_factory=set)
    """Of these, groups of which no image is explained, as some that would be shown have bounds for scores."""
    files: list[pa.Table] = field(default_factory=list)
    """Columns of `FILES`: the images that are not explained, with the reason."""

    def no_verdict(self, group_id: str, error: PatcheadError) -> None:
        """Note that a group could not be judged."""
        self.unjudged.setdefault(group_id, f"its scores could not be judged: {of_the_group(error)}")

    def not_searched(self, group_id: str, error: PatcheadError) -> None:
        """Note that images of a group could not be searched fully, as those are that are shown."""
        self.unsearched.add(group_id)
        self._note(group_id, error)

    def not_drawn(self, group_id: str, images: pa.Table, error: PatcheadError) -> None:
        """Note that images of a group have neither regions nor heatmaps."""
        self._note(group_id, error)
        self.unexplained(group_id, images)

    def unexplained(self, group_id: str, images: pa.Table) -> None:
        """Note which images of an incomplete group have neither regions nor heatmaps."""
        note = f"scored, but {self.incomplete[group_id]}"
        self.files.append(table([{"image_id": each, "note": note} for each in images["image_id"].to_pylist()], FILES))

    def _note(self, group_id: str, error: PatcheadError) -> None:
        self.incomplete.setdefault(group_id, f"regions and heatmaps could not be made: {of_the_group(error)}")


def with_lacking(verdicts: pa.Table, incomplete: Mapping[str, str]) -> pa.Table:
    """Say in VERDICTS what is missing of which groups; of one that already lacks something, both."""
    if not incomplete:
        return verdicts
    columns: dict[str, list[str | None]] = {"status": [], "error": []}
    for row in verdicts.select(["group_id", "status", "error"]).to_pylist():
        why = incomplete.get(row["group_id"])
        columns["error"].append(together(row["error"], why) or None)
        columns["status"].append(INCOMPLETE if why and row["status"] == OK else row["status"])
    for name, column in columns.items():
        verdicts = set_column(verdicts, name, pa.array(column, pa.string()))
    return verdicts

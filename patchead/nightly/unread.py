"""Images that the storage did not give: they say nothing of the picture, and an archive that is gone ends the run."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import set_column
from patchead.errors import UnreadError
from patchead.schema import FAILED, RECEIPTS, UNREAD

_IN_A_ROW = 200  # images of whole units that were all unread: the archive is away, not one object


class Outage:
    """Collect the unread receipts of one pass, and tell when the archive as a whole is away."""

    def __init__(self) -> None:
        self.unread = RECEIPTS.empty_table()
        self._in_a_row = 0

    def add(self, receipts: pa.Table) -> None:
        """Take the RECEIPTS of a finished unit.

        Raises:
            UnreadError: it is the last of many units of which nothing could be read.
        """
        missing = receipts.filter(pc.equal(receipts["status"], UNREAD))
        self.unread = pa.concat_tables([self.unread, missing])
        self._in_a_row = self._in_a_row + missing.num_rows if missing.num_rows == receipts.num_rows else 0
        if self._in_a_row >= _IN_A_ROW:
            raise UnreadError(
                f"the archive cannot be read any more: of the last {self._in_a_row} images none, e.g. "
                f"{missing['error'][0].as_py()} Run again under the same run id: what was embedded is kept."
            )


def as_failed(unread: pa.Table) -> pa.Table:
    """Turn unread receipts into failed ones, which say so."""
    status = pa.array([FAILED] * unread.num_rows, pa.string())
    told = pc.binary_join_element_wise("not read, tried twice:", unread["error"], " ")
    return set_column(set_column(unread, "status", status), "error", told)

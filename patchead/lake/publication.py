"""How a run's rows become what readers see: a few commits in an order that leaves a whole night after each of them.

Regions and verdicts of a run are added to those that are there. The one commit of ``scores`` that replaces the run's
groups is the moment of publication: a group has rows of one run there, and whoever joins the other tables by run id
sees the earlier night before it and the new one after it. What was replaced is removed behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, QueryBuilder, write_deltalake

from patchead.arrow_columns import redacted_column
from patchead.errors import LakeError
from patchead.lake.migration import migrate
from patchead.lake.published_rows import in_state, named, without_empty_product
from patchead.lake.replaced_groups import groups_predicate, sql_literal
from patchead.lake.tables import (
    OF_A_RUN,
    committed,
    create_table,
    delta_errors,
    delta_uri,
    open_table,
    read_rows,
    repeated,
    without_unused,
)
from patchead.lake.validation import validate
from patchead.schema import LATER_TABLES, TABLES
from patchead.storage import Storage

PUBLISHED, PUBLISHING = "published", "publishing"
"""Tables in which rows of a replaced run may lie for a while; those that ``scores`` names count."""


class ReplacedError(LakeError):
    """Another run has published the same groups meanwhile: this one must not undo that."""


def publish(
    lake_uri: str,
    storage: Storage,
    manifest: pa.Table,
    scores: pa.Table,
    regions: pa.Table,
    verdicts: pa.Table,
    run: pa.Table,
    vectors: pa.Table | None = None,
    *,
    before_commit: Callable[[], None] = lambda: None,
) -> bool:
    """Validate the rows of one run, then replace exactly the groups that they belong to.

    Args:
        lake_uri, storage: the lake; its tables are created if they are not there, and get the columns that an earlier
            version did not have.
        manifest: MANIFEST rows of every image of the run.
        scores: SCORES, one row per image.
        regions: REGIONS of those images; may be empty, which removes the groups' earlier regions.
        verdicts: VERDICTS, one row per group.
        run: RUNS, one row per night.
        vectors: REGION_VECTORS of the regions that have a family; default: none has.
        before_commit: is called at first and before each commit, and raises where this process must not write any more.

    Returns:
        False if this run is already published (nothing is done then), else True.

    Raises:
        ValidationError: the rows contradict the manifest; no table was touched.
        ReplacedError: another run published some of these groups after this one began to, or after it had.
        LakeError: a table cannot be written. A run that got stuck between two commits is completed by publishing
            it again; readers see the earlier night or this one.
    """
    validate(scores, manifest, regions=regions, verdicts=verdicts, run=run)
    before_commit()
    run_id = run["run_id"][0].as_py()
    if published(lake_uri, storage, run_id):
        return False
    migrate(lake_uri, storage, before_commit)
    for name in TABLES:
        create_table(lake_uri, storage, name)
    scores, regions, verdicts = (without_empty_product(rows) for rows in (scores, regions, verdicts))
    run, everywhere = redacted_column(run, "reason"), groups_predicate(scores)
    groups = f"({everywhere}) AND lane = {sql_literal(run['lane'][0].as_py())}" if everywhere else ""
    writer = _Writer(lake_uri, storage, run_id, before_commit)
    fence = writer.owners("scores", groups)
    if not writer.left_of_an_earlier_try(fence):
        writer.put("regions", regions)
        writer.put("verdicts", verdicts)
        if vectors is not None:
            writer.put_later("region_vectors", without_empty_product(vectors))
        writer.put("runs", in_state(run, PUBLISHING))
        writer.replace_scores(scores, groups, fence)
    writer.put("runs", run, only_if=lambda: writer.refuse_if_replaced(groups))
    writer.remove_replaced(everywhere, fence)
    return True


def published(lake_uri: str, storage: Storage, run_id: str) -> bool:
    """Tell whether the run ``run_id`` is complete in the tables.

    Raises:
        LakeError: the table of runs cannot be read.
    """
    return bool(published_settings(lake_uri, storage, run_id))


def published_settings(lake_uri: str, storage: Storage, run_id: str | None = None) -> list[str]:
    """Read ``config_json`` of every published run, or of the one that is named.

    Raises:
        LakeError: the table of runs cannot be read.
    """
    filters = [("state", "=", PUBLISHED)] + ([] if run_id is None else [("run_id", "=", run_id)])
    return list(
        dict.fromkeys(read_rows(lake_uri, storage, "runs", ["config_json"], filters)["config_json"].to_pylist())
    )


def remove_replaced(lake_uri: str, storage: Storage, run_id: str) -> None:
    """Remove what a published run has replaced and its process, which was ended right after it had, could not.

    Raises:
        LakeError: a table cannot be read or written.
    """
    columns = ["night", "product", "group_id"]
    groups = groups_predicate(read_rows(lake_uri, storage, "scores", columns, [("run_id", "=", run_id)]))
    _Writer(lake_uri, storage, run_id).remove_replaced(groups, frozenset())


def record_failure(lake_uri: str, storage: Storage, run: pa.Table) -> bool:
    """Add the row of a run that failed to the table of runs; another one of that run is replaced.

    Args:
        lake_uri, storage: the lake; the table is made if it is not there.
        run: RUNS of one run.

    Returns:
        False if the run is published, which it stays; else True.

    Raises:
        LakeError: the table cannot be written.
    """
    run_id = run["run_id"][0].as_py()
    if published(lake_uri, storage, run_id):
        return False
    migrate(lake_uri, storage)
    create_table(lake_uri, storage, "runs")
    _Writer(lake_uri, storage, run_id).put("runs", redacted_column(run, "reason"), f" AND state <> '{PUBLISHED}'")
    return True


@dataclass(frozen=True)
class _Writer:
    """Write the rows of one run."""

    lake_uri: str
    storage: Storage
    run_id: str
    before_commit: Callable[[], None] = lambda: None

    @property
    def _own(self) -> str:
        return f"run_id = {sql_literal(self.run_id)}"

    def owners(self, name: str, predicate: str) -> frozenset[str]:
        """The runs whose rows a table holds where ``predicate`` does; none where that is empty."""
        return repeated(lambda: self._owners(self._open(name), predicate))

    def put(self, name: str, rows: pa.Table, only_where: str = "", only_if: Callable[[], None] = lambda: None) -> None:
        """Add the rows of this run to a table; those that an earlier try of it left there are replaced.

        ``only_where`` says more of the rows that are; ``only_if`` raises where there is nothing more to write.
        """
        clean = redacted_column(rows, "error")

        def add() -> None:
            only_if()
            table = self._open(name)
            there = bool(self._owners(table, self._own))
            if there:
                self._write(table, clean, mode="overwrite", predicate=self._own + only_where)
            elif clean.num_rows:
                self._write(table, clean, mode="append")

        self._commit(name, add)

    def put_later(self, name: str, rows: pa.Table) -> None:
        """Do the same with one of `LATER_TABLES`, which is made for the first row."""
        if rows.num_rows:
            create_table(self.lake_uri, self.storage, name)
        if rows.num_rows or name in self._of_a_run():
            self.put(name, rows)

    def replace_scores(self, scores: pa.Table, groups: str, fence: frozenset[str]) -> None:
        """Replace the groups' rows, if those that are there are of ``fence`` or this run."""
        clean = redacted_column(scores, "error")

        def replace() -> None:
            table = self._open("scores")
            # Delta refuses the commit where another one wrote to these groups after this version of the table.
            if others := self._owners(table, groups) - fence - {self.run_id}:
                raise ReplacedError(
                    f"{named(others)} has published groups of run {self.run_id} since it began to publish them; they "
                    f"are as {named(others)} left them. Run again under the same run id to replace them on purpose."
                )
            self._write(table, clean, mode="overwrite", predicate=groups)

        if not groups:
            return
        try:
            self._commit("scores", replace)
        except ReplacedError:
            self._withdraw()
            raise

    def left_of_an_earlier_try(self, fence: frozenset[str]) -> bool:
        """Whether an earlier try of this run published its scores, and another run replaced some of them since.

        Then none is written again; ``refuse_if_replaced`` says whether any is left.
        """
        if not fence - {self.run_id} or not self.owners("runs", self._own):
            return False
        table = self._open("scores")
        with delta_errors("read", table.table_uri):
            return any(commit.get("run_id") == self.run_id for commit in table.history())

    def refuse_if_replaced(self, groups: str) -> None:
        """Refuse to end as published where another run has replaced all that this one has just written."""
        found = self.owners("scores", groups)
        if found and self.run_id not in found:
            self._withdraw()
            raise ReplacedError(
                f"{named(found)} has replaced what run {self.run_id} had published before it could end; its groups "
                f"are as {named(found)} left them. Give a run that is to replace them a run id of its own."
            )

    def remove_replaced(self, groups: str, fence: frozenset[str]) -> None:
        """Remove regions and verdicts of these groups that belong to runs which were published and are no more there.

        A run that is published, or that was replaced before it could say so, never writes again: what another run that
        is under way has added stays.
        """
        there = frozenset[str]().union(*(self.owners(name, groups) for name in self._of_a_run()))
        if not (strangers := there - self.owners("scores", groups)):
            return
        done = [("state", "=", PUBLISHED), ("run_id", "in", sorted(strangers))]
        ended = read_rows(self.lake_uri, self.storage, "runs", ["run_id"], done)["run_id"].to_pylist()
        if gone := strangers & {*ended, *fence}:
            self._remove(f"({groups}) AND run_id IN ({', '.join(map(sql_literal, sorted(gone)))})")

    def _withdraw(self) -> None:
        """Remove what this run has added for scores that are not there, so that nobody sees it."""
        if not self.owners("scores", self._own):
            self._remove(self._own)

    def _remove(self, predicate: str) -> None:
        for name in self._of_a_run():

            def remove(name: str = name) -> None:
                table = self._open(name)
                if self._owners(table, predicate):
                    table.delete(predicate, commit_properties=self._properties)

            self._commit(name, remove)

    def _of_a_run(self) -> list[str]:
        later = [name for name in LATER_TABLES if open_table(self.lake_uri, self.storage, name)]
        return [*OF_A_RUN, *later]

    def _owners(self, table: DeltaTable, predicate: str) -> frozenset[str]:
        if not predicate:
            return frozenset()
        with delta_errors("read", table.table_uri):
            asked = f"SELECT DISTINCT run_id FROM asked WHERE {predicate}"
            found = pa.table(QueryBuilder().register("asked", table).execute(asked))
            return frozenset(found["run_id"].to_pylist())

    def _open(self, name: str) -> DeltaTable:
        uri = delta_uri(self.lake_uri, self.storage, name)
        with delta_errors("read", uri):
            return DeltaTable(uri, storage_options=self.storage.patient_delta_options(uri))

    @property
    def _properties(self) -> CommitProperties:
        return CommitProperties(custom_metadata={"run_id": self.run_id})

    def _write(self, table: DeltaTable, rows: pa.Table, **how: str) -> None:
        said = without_unused(rows, [field.name for field in table.schema().fields])
        write_deltalake(table, said, schema_mode="merge", commit_properties=self._properties, **how)

    def _commit(self, name: str, commit: Callable[[], None]) -> None:
        self.before_commit()
        committed(commit, delta_uri(self.lake_uri, self.storage, name))

"""What few-shot mode scores to know how normal images score: the prompts, or views of one or two (method.md §7.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import by_group, codes, values
from patchead.nightly.group import GroupPrompts
from patchead.nightly.units import view_role
from patchead.samples.stand_ins import ENOUGH, STAND_INS, NullChoice
from patchead.schema import TO_EMBED


@dataclass(frozen=True)
class NullSamples:
    """Hold the samples that are scored besides the night's, of every group of prompts."""

    to_embed: pa.Table
    """`TO_EMBED` rows, in order of their group."""
    views_of: Mapping[str, int]
    """By group of prompts, see `NullChoice`."""

    @classmethod
    def of(cls, upright: pa.Table, references: Mapping[str, pa.Table]) -> NullSamples:
        """Choose them.

        Args:
            upright: `TO_EMBED` rows of the prompts as they are.
            references: the embedded prompts by group, with image_id, turn and content_hash.
        """
        chosen, views_of = [TO_EMBED.empty_table()], dict[str, int]()
        for name, rows in by_group(upright).items():
            choice = NullChoice.of(codes(contents(rows, references[name])), codes(rows["part_id"]))
            views_of[name], of = choice.views_of, rows.take(choice.places)
            chosen += [_as_view(of, number) for number in range(STAND_INS)] if choice.views_of else [of]
        return cls(pa.concat_tables(chosen), views_of)

    def with_references(self, references: Mapping[str, pa.Table], receipts: pa.Table) -> dict[str, GroupPrompts]:
        """Put together what each group is compared with, from the receipts of `to_embed`, all of them ok."""
        taken = ["image_id", "part_id", "role", "group_id"]
        found = receipts.select(["embedding_uri", "row"])
        rows = pa.table([*self.to_embed.select(taken).columns, *found.columns], names=[*taken, *found.column_names])
        prompts = {}
        for name, rows_of in by_group(rows).items():
            nulls, own = (
                rows_of.append_column("content_hash", contents(rows_of, references[name])),
                self.views_of[name] == 1,
            )
            prompts[name] = GroupPrompts(references[name], _comparable(nulls) if own else nulls, self.views_of[name])
        return prompts


def contents(rows: pa.Table, references: pa.Table) -> pa.ChunkedArray:
    """Look up the content of prompts by their image ids, among a group's embedded prompts: equal for one photo."""
    known = references.filter(pc.is_null(references["turn"]))
    return known["content_hash"].take(pc.index_in(rows["image_id"], value_set=values(known["image_id"])))


def null_count(prompts: int) -> int:
    """Count the images that are scored with each group, of so many prompts that are all different."""
    return prompts if prompts >= ENOUGH else prompts * STAND_INS


def _comparable(views: pa.Table) -> pa.Table:
    """The views as images of other parts: each is compared with the prompt that it is of."""
    content = pa.array([f"view {number}" for number in range(views.num_rows)])
    views = views.set_column(views.column_names.index("content_hash"), "content_hash", content)
    return views.set_column(views.column_names.index("part_id"), "part_id", pa.nulls(views.num_rows, pa.string()))


def _as_view(rows: pa.Table, number: int) -> pa.Table:
    place = TO_EMBED.get_field_index("role")
    return rows.set_column(place, "role", pa.repeat(view_role(number), rows.num_rows))

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from patchead.archive.members import number_duplicates


def numbered(*ids: str) -> list[tuple[str, bool]]:
    table = pa.table({"image_id": pa.array(ids, pa.string()), "error": pa.nulls(len(ids), pa.string())})
    return [(row["image_id"], row["error"] is not None) for row in number_duplicates(table).to_pylist()]


def test_the_first_stays_and_later_ones_are_numbered_in_place() -> None:
    assert numbered("b", "a", "b", "c", "b") == [("b", False), ("a", False), ("b~2", True), ("c", False), ("b~3", True)]
    assert numbered() == []


def test_an_earlier_error_is_kept() -> None:
    table = pa.table({"image_id": ["a", "a", "a"], "error": pa.array([None, "broken", None], pa.string())})
    errors = number_duplicates(table)["error"].to_pylist()
    assert errors[0] is None
    assert errors[1] == "broken"
    assert "duplicate key" in errors[2]


@given(st.lists(st.sampled_from(["a", "a~2", "a~2~2", "a~3", "b", ""]), max_size=12))
def test_ids_end_up_unique_and_first_ones_untouched(ids: list[str]) -> None:
    result = numbered(*ids)
    assert len({name for name, _ in result}) == len(ids)
    for place, (given_id, (name, failed)) in enumerate(zip(ids, result, strict=True)):
        first = given_id not in ids[:place]
        assert failed is not first
        assert (name == given_id) is first

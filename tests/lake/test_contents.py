"""Finding a sample by the content of its image."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

from patchead.hashing import text_digest
from patchead.lake import contents as module
from patchead.lake import index_part
from patchead.lake.contents import Contents
from patchead.schema import PROMPT, PROMPT_VIEW
from tests.lake.conftest import Lake
from tests.lake.test_receipt_index import index_of, night, opened, receipts

__all__ = ["opened"]


def test_an_image_is_known_by_its_content_under_any_name(lake: Lake) -> None:
    index = index_of(lake)
    rows = receipts(index, ["a/1.png", "a/2.png"])
    index.add("run", rows)
    contents = pickle.loads(pickle.dumps(Contents(index)))
    assert contents.find(text_digest("a/2.png"), None) == rows.to_pylist()[1]
    assert contents.find(text_digest("a/3.png"), None) is None
    assert contents.find(text_digest("a/2.png")[:8] + "0" * 24, None) is None  # begins alike


def test_a_turned_image_is_another_sample(local: Lake) -> None:
    index = index_of(local)
    index.add("run", receipts(index, ["a"], turn=90))
    contents = Contents(index)
    assert contents.find(text_digest("a"), None) is None
    assert contents.find(text_digest("a"), 180) is None
    assert (contents.find(text_digest("a"), 90) or {})["image_id"] == "a"


def test_a_view_of_a_prompt_is_another_sample(local: Lake) -> None:
    index = index_of(local)
    rows = receipts(index, ["a"])
    view = rows.set_column(rows.schema.get_field_index("role"), "role", pa.array([f"{PROMPT_VIEW} 1"]))
    index.add("run", view)
    contents = Contents(index)
    assert contents.find(text_digest("a"), None) is None
    assert contents.find(text_digest("a"), None, PROMPT) is None
    assert contents.find(text_digest("a"), None, f"{PROMPT_VIEW} 2") is None
    assert (contents.find(text_digest("a"), None, f"{PROMPT_VIEW} 1") or {})["image_id"] == "a"
    index.add("next", rows)
    assert (Contents(index).find(text_digest("a"), None, PROMPT) or {})["role"] is None  # as it is: an image like any


def test_an_image_whose_embedding_file_is_gone_is_not_known(local: Lake) -> None:
    index = index_of(local)
    index.add("first", receipts(index, ["a", "b"], "gone"))
    index.add("again", receipts(index, ["a"], "there"))
    index.units.delete("gone.arrow")
    contents = Contents(index)
    assert (contents.find(text_digest("a"), None) or {})["embedding_uri"] == index.units.uri_of("there.arrow")
    assert contents.find(text_digest("b"), None) is None
    index.units.delete("there.arrow")
    assert Contents(index).find(text_digest("a"), None) is None  # the next run does not trust what this one has seen


def test_a_question_opens_the_hashes_once_and_receipts_only_where_they_match(lake: Lake, opened: list[str]) -> None:
    index = index_of(lake)
    for day in range(10, 15):
        index.add(f"run{day}", receipts(index, night(f"2026-11-{day}"), f"u{day}"))
    contents = Contents(index)
    for number in range(50):
        assert contents.find(text_digest(f"new {number}"), None) is None
    assert sorted(name.partition("-")[0] for name in opened) == [f"run{day}" for day in range(10, 15)]
    assert {name.rpartition(".")[2] for name in opened} == {"arrow"}
    opened.clear()
    for name in night("2026-11-12"):
        assert (contents.find(text_digest(name), None) or {})["image_id"] == name
    (receipts_file,) = opened
    assert receipts_file.startswith("run12")


def test_row_groups_and_hashes_that_are_kept_are_bounded(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_part, "GROUP_ROWS", 1)
    monkeypatch.setattr(module, "_ROW_GROUPS", 3)
    index = index_of(local)
    for day in range(10, 13):
        index.add(f"run{day}", receipts(index, night(f"2026-11-{day}"), f"u{day}"))
    names = [name for day in range(10, 13) for name in night(f"2026-11-{day}")]
    contents = Contents(index)
    assert all(contents.find(text_digest(name), None) for name in names)
    assert len(module._loaded(contents)._groups) == 3
    monkeypatch.setattr(module, "_HASHES_BYTES", 2 * 9 * 6)  # two parts of nine receipts
    assert sum(Contents(index).find(text_digest(name), None) is not None for name in names) <= 18

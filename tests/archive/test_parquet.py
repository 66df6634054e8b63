from __future__ import annotations

import datetime as dt
import io
import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchead.archive.parquet import list_parquet, read_parquet
from patchead.errors import ArchiveError
from tests.helpers.sample_files import AWKWARD, parquet, png

IMAGES = [png(seed) for seed in range(4)]


def listed(data: bytes, *columns: str, image: str = "image", id: str | None = None) -> tuple[list[dict], str | None]:
    result = list_parquet(io.BytesIO(data), columns, image_column=image, id_column=id)
    return result.members.to_pylist(), result.broken


def read(data: bytes, *keys: str, **options: Any) -> dict[str, bytes | ArchiveError]:
    options = {"image_column": "image", "id_column": None} | options
    return {keys[index]: content for index, content in read_parquet(io.BytesIO(data), keys, **options)}


def test_keys_are_listed_and_images_read_across_row_groups() -> None:
    ids = [*AWKWARD[:3], "x/y=z"]
    data = parquet({"id": ids, "image": IMAGES}, row_group_size=2)
    members, broken = listed(data)
    assert [member["key"] for member in members] == ids
    assert {member["size"] for member in members} == {-1}
    assert broken is None
    assert read(data, ids[3], ids[1], "no") == {ids[3]: IMAGES[3], ids[1]: IMAGES[1]}


@pytest.mark.parametrize("name", ["image_id", "id", "key", "filename", "path"])
def test_the_id_column_is_found_by_name_or_set(name: str) -> None:
    data = parquet({"other": list("wxyz"), name: list("abcd"), "image": IMAGES})
    assert [member["key"] for member in listed(data)[0]] == list("abcd")
    assert [member["key"] for member in listed(data, id="other")[0]] == list("wxyz")
    assert read(data, "y", id_column="other") == {"y": IMAGES[2]}


@pytest.mark.parametrize(
    ("kind", "values", "texts"),
    [
        (pa.int64(), [1, -2], ["1", "-2"]),
        (pa.date32(), [dt.date(2026, 1, 2), dt.date(2026, 1, 3)], ["2026-01-02", "2026-01-03"]),
        (pa.dictionary(pa.int32(), pa.string()), ["a", "b"], ["a", "b"]),
        (pa.large_string(), ["a", "b"], ["a", "b"]),
        (pa.binary(), [b"a", b"b"], ["a", "b"]),
    ],
)
def test_row_keys_of_any_plain_type(kind: pa.DataType, values: list[Any], texts: list[str]) -> None:
    data = parquet({"id": pa.array(values, kind), "image": IMAGES[:2]})
    assert [member["key"] for member in listed(data)[0]] == texts
    assert read(data, texts[1]) == {texts[1]: IMAGES[1]}


@pytest.mark.parametrize("with_id", [True, False])
def test_hugging_face_structs_may_give_the_key(with_id: bool) -> None:
    pictures = [{"bytes": image, "path": f"{place}.png"} for place, image in enumerate(IMAGES)]
    data = parquet({"image": pictures} | ({"key": list("abcd")} if with_id else {}))
    expected = list("abcd") if with_id else ["0.png", "1.png", "2.png", "3.png"]
    assert [member["key"] for member in listed(data)[0]] == expected
    assert read(data, expected[2]) == {expected[2]: IMAGES[2]}


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.binary_view()])
def test_large_binary_images(kind: pa.DataType) -> None:
    data = parquet({"id": list("abcd"), "image": pa.array(IMAGES, kind)})
    assert read(data, "b") == {"b": IMAGES[1]}


def test_columns_beside_the_image_are_text() -> None:
    time = dt.datetime(2026, 11, 21, 10, tzinfo=dt.timezone.utc)
    columns = {"night": [time, None], "captured_at": [time] * 2, "line": [4, 5], "unused": [1, 2]}
    data = parquet({"id": ["a", "b"], "image": IMAGES[:2], **columns})
    members, _ = listed(data, "night", "captured_at", "line", "absent")
    assert [member["column:night"] for member in members] == ["2026-11-21", None]
    assert [member["column:line"] for member in members] == ["4", "5"]
    assert members[0]["column:captured_at"].startswith("2026-11-21 10:00:00")
    assert "column:absent" not in members[0]


def test_a_null_key_and_a_null_image_fail_alone() -> None:
    data = parquet({"id": ["a", None, "c"], "image": [IMAGES[0], IMAGES[1], None]})
    members, broken = listed(data)
    assert broken is None
    assert [member["error"] for member in members] == [None, "the row key in column 'id' is null", None]
    contents = read(data, "a", "c")
    assert contents["a"] == IMAGES[0]
    assert "no image bytes" in str(contents["c"])


def test_the_first_of_two_equal_keys_is_read() -> None:
    for size in (1, 2):
        data = parquet({"id": ["a", "a"], "image": IMAGES[:2]}, row_group_size=size)
        assert read(data, "a") == {"a": IMAGES[0]}


@pytest.mark.parametrize(
    ("columns", "options", "parts"),
    [
        ({"id": ["a"], "picture": [b"1"]}, {}, ["image column 'image'", "archive.image_column", "id, picture"]),
        ({"id": ["a"], "image": ["text"]}, {}, ["'image' (archive.image_column) has type string", "binary"]),
        ({"id": ["a"], "image": [{"path": "x"}]}, {}, ["has type struct", "binary field 'bytes'"]),
        ({"name": ["a"], "image": [b"1"]}, {}, ["image_id, id, key, filename, path", "archive.id_column", "name"]),
        ({"id": ["a"], "image": [b"1"]}, {"id": "row"}, ["no id column 'row'", "archive.id_column", "id, image"]),
        ({"id": [[1]], "image": [b"1"]}, {}, ["column 'id' has type list", "text, a number or a date"]),
    ],
)
def test_a_file_without_its_columns_says_what_was_looked_for(
    columns: dict[str, Any], options: dict[str, str], parts: list[str]
) -> None:
    members, broken = listed(parquet(columns), **options)
    assert members == []
    for part in parts:
        assert part in (broken or "")
    with pytest.raises(ArchiveError):
        read(parquet(columns), "a", id_column=options.get("id"))


@pytest.mark.parametrize("data", [b"", b"no parquet at all", parquet({"id": ["a"], "image": [b"1"]})[:-20]])
def test_an_unreadable_file_is_told(data: bytes) -> None:
    members, broken = listed(data)
    assert members == []
    assert "not a readable Parquet file" in (broken or "")
    with pytest.raises(ArchiveError, match="not a readable Parquet file"):
        read(data, "a")


def test_keys_that_are_no_text_are_told() -> None:
    latin = pa.array([b"a", b"caf\xe9"], pa.binary())
    for ids in (latin, pa.Array.from_buffers(pa.string(), 2, latin.buffers())):
        members, broken = listed(parquet({"id": ids, "image": IMAGES[:2]}))
        assert members == []
        assert "column 'id' holds text that is not valid UTF-8" in (broken or "")


def test_rows_before_damaged_pages_stay() -> None:
    ids = [f"key {number}" for number in range(4)]
    whole = parquet({"id": ids, "image": IMAGES}, row_group_size=2, compression="gzip", use_dictionary=False)
    data = bytearray(whole)
    start = pa.parquet.ParquetFile(io.BytesIO(whole)).metadata.row_group(1).column(0).data_page_offset
    data[start : start + 30] = bytes(30)
    members, broken = listed(bytes(data))
    assert [member["key"] for member in members] == ids[:2]
    assert "not a readable Parquet file" in (broken or "")
    got = []
    with pytest.raises(ArchiveError):
        got += [index for index, _ in read_parquet(io.BytesIO(data), ids[2:], image_column="image", id_column=None)]
    assert read(bytes(data), *ids[:2]) == dict(zip(ids[:2], IMAGES[:2], strict=True))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(4, 900), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_never_escapes_as_another_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(parquet({"id": ["a", "b"], "image": [b"12", b"34"]}, compression="gzip"))
    for place, value in changes:
        data[place % len(data)] = value
    members, broken = listed(bytes(data))
    assert all(isinstance(member["key"], str) for member in members)
    assert broken is None or re.match(r"not a readable Parquet file|no image column|no id column|column ", broken)
    try:
        read(bytes(data), "a", "b")
    except ArchiveError as exc:
        assert str(exc)

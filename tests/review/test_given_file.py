"""Files that people give: whatever is wrong with one is told in a line that names it, and nothing is recorded."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from patchead.errors import SettingsError
from patchead.lake.publication import publish
from patchead.lake.tables import read_rows
from patchead.review.given_file import given_rows
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.sample_rows import NIGHT, group, rows_of

HEADER = "image_id,verdict,note\n"
GOOD = [{"image_id": "a", "verdict": "good", "note": None}]


def parquet(*arrays: pa.Array, names: tuple[str, ...] = ("image_id", "verdict")) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(list(arrays), names=list(names)), sink)
    return sink.getvalue()


def rows(folder: Path, name: str, data: bytes) -> list[dict[str, str | None]]:
    (folder / name).write_bytes(data)
    return given_rows(str(folder / name), Storage(), ("image_id", "verdict"), ("note",))


TWICE = ("image_id", "verdict", "verdict")
TEXT, TEXTS = pa.array(["good"]), pa.array(["a"])
BAD_UTF8 = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "a quotation mark before 128 KB": ("f.csv", (HEADER + 'a,good,"x\n' + "b,good,\n" * 20_000).encode(), "in line 2 "),
    "a quotation mark at the end": ("f.csv", (HEADER + 'a,good,\nb,good,"x\nc,good,\n').encode(), "in line 3 "),
    "a text after a closed one": ("f.csv", (HEADER + 'a,good,"x" y\n').encode(), "in line 2 "),
    "a comma in a text": ("f.csv", (HEADER + "a,good,deep, long\n").encode(), "line 2 of"),
    "a column twice": ("f.csv", b"image_id,verdict,verdict\na,good,defect\n", "the column 'verdict' more than once"),
    "semicolons": ("f.csv", b"image_id;verdict\na;good\n", "it has 'image_id;verdict'"),
    "nothing": ("f.csv", b"", "it has none"),
    "a header alone": ("f.csv", HEADER.encode(), "has no row"),
    "UTF-16": ("f.csv", HEADER.encode("utf-16"), "no UTF-8 text"),
    "UTF-16 without its mark": ("f.csv", HEADER.encode("utf-16-le"), "NUL character in line 1"),
    "another encoding": ("f.csv", f"{HEADER}a,good,\nü,good,\n".encode("latin-1"), "line 3). Save it as CSV UTF-8"),
    "gzip": ("f.csv.gz", gzip.compress(HEADER.encode()), "is gzip, not CSV or Parquet. Unpack it"),
    "a workbook": ("f.csv", b"PK\x03\x04", "an Excel workbook"),
    "ids that are lists": ("f.parquet", parquet(pa.array([["a"]]), TEXT), "column 'image_id' of"),
    "verdicts that are lists": ("f.parquet", parquet(TEXTS, pa.array([["good"]])), "has type list<"),
    "ids that are no UTF-8": ("f.parquet", parquet(pa.array([b"\xff"]), TEXT), "column of UTF-8 texts"),
    "texts that are none": ("f.parquet", parquet(BAD_UTF8, TEXT), "column of UTF-8 texts"),
    "NUL in an id": ("f.parquet", parquet(pa.array(["a\0"]), TEXT), "NUL character"),
    "a column of Parquet twice": ("f.parquet", parquet(TEXTS, TEXT, TEXT, names=TWICE), "once"),
    "no row": ("f.parquet", parquet(TEXTS.slice(1), TEXT.slice(1)), "has no row"),
    "half a file": ("f.parquet", parquet(TEXTS, TEXT)[:200], "no Parquet file that can be read"),
    "a damaged page": ("f.parquet", parquet(TEXTS, TEXT)[:20] + b"\xff" * 60 + parquet(TEXTS, TEXT)[80:], "read"),
    "CSV as Parquet": ("F.PARQUET", HEADER.encode(), "no Parquet file that can be read"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_with_its_name_and_the_place(tmp_path: Path, what: str) -> None:
    name, data, told = REFUSED[what]
    with pytest.raises(SettingsError) as refused:
        rows(tmp_path, name, data)
    text = str(refused.value)
    assert told in text and str(tmp_path / name) in text and "\n" not in text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("f.csv", b"\xef\xbb\xbfimage_id,verdict\r\n\r\na,good\r\n"),
        ("f.csv", b"image_id,verdict,,\ra,good,,,\r"),
        ("F.PARQUET", parquet(TEXTS, TEXT)),
        ("labels", parquet(pa.array([b"a"]), TEXT.dictionary_encode())),
        ("f.parquet", parquet(TEXTS.cast(pa.large_string()), TEXT, pa.array([[1]]), names=(*TWICE[:2], "x"))),
    ],
)
def test_it_is_read(tmp_path: Path, name: str, data: bytes) -> None:
    assert rows(tmp_path, name, data) == GOOD


def test_numbers_are_ids_too(tmp_path: Path) -> None:
    assert rows(tmp_path, "f.parquet", parquet(pa.array([41]), TEXT))[0]["image_id"] == "41"


def test_no_file_or_a_folder_ends_with_code_2(tmp_path: Path) -> None:
    for given, told in (
        (tmp_path, "is a folder"),
        (tmp_path / "no.csv", "does not exist"),
        ("foo://a/b.csv", "Protocol not known"),
    ):
        done = patchead("feedback", str(given), "--lake", str(tmp_path / "lake"))
        assert (done.code, told in done.err) == (2, True), done.err


def test_an_account_without_a_name_is_named_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is run under any user id."""
    lake = str(tmp_path / "lake")
    publish(lake, Storage(), *rows_of("r1", [group(NIGHT, "screw", "a")]).tables)
    (tmp_path / "f.csv").write_text("image_id,verdict\na,good\n")
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_242_424)
    assert patchead("feedback", str(tmp_path / "f.csv"), "--lake", lake).code == 0
    assert read_rows(lake, Storage(), "feedback", ["given_by"])["given_by"].to_pylist() == ["uid 4242424"]

"""What people say of images, from a file to the table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from patchead.lake.publication import publish
from patchead.lake.query import query
from patchead.lake.tables import read_rows
from patchead.review.labels import DEFECT, GOOD, labels
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.sample_rows import NIGHT, group, rows_of


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """A lake with the images a, b and c."""
    uri = str(tmp_path / "lake")
    rows = rows_of("r1", [group(NIGHT, "screw", "a", "b", "c")])
    publish(uri, Storage(), **vars(rows))
    return uri


def give(lake: str, text: str, *more: str) -> tuple[int, str, str]:
    file = Path(lake).parent / "labels.csv"
    file.write_text(text, encoding="utf-8")
    return patchead("feedback", str(file), "--lake", lake, *more)


def said(lake: str) -> dict[str, str | None]:
    found = labels(lake, Storage())
    return {image: found.of(image, None) for image in sorted(found.images)}


def test_the_newest_of_an_image_counts_and_all_are_kept(lake: str) -> None:
    assert said(lake) == {}
    assert give(lake, "image_id,verdict,note\na,good,\nb,Defect , deep scratch\n", "--by", "ann").code == 0
    assert give(lake, "verdict,image_id,run_id\ngood,b,r1\n").code == 0
    assert said(lake) == {"a": GOOD, "b": GOOD}
    kept = read_rows(lake, Storage(), "feedback", ["image_id", "verdict", "run_id", "note", "given_by"]).to_pylist()
    assert {"image_id": "b", "verdict": DEFECT, "run_id": None, "note": " deep scratch", "given_by": "ann"} in kept
    assert [row["run_id"] for row in kept if row["image_id"] == "b"].count("r1") == 1
    assert len(kept) == 3


def test_sql_joins_them_with_the_scores(lake: str) -> None:
    sql = "SELECT image_id, score, verdict FROM scores LEFT JOIN feedback USING (image_id) ORDER BY image_id"
    assert query(lake, Storage(), sql)["verdict"].to_pylist() == [None, None, None]
    assert give(lake, "image_id,verdict\nb,defect\n").code == 0
    assert query(lake, Storage(), sql)["verdict"].to_pylist() == [None, "defect", None]
    assert query(lake, Storage(), "SELECT name, scores FROM accepted").num_rows == 0


def test_parquet_is_read_too(lake: str, tmp_path: Path) -> None:
    file = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"image_id": ["a", "c"], "verdict": ["defect", "good"], "more": [1, 2]}), file)
    done = patchead("feedback", str(file), "--lake", lake)
    assert "1 good, 1 defect recorded" in done.out
    assert said(lake) == {"a": DEFECT, "c": GOOD}


def test_unknown_images_are_refused_with_examples_unless_allowed(lake: str) -> None:
    text = "image_id,verdict\na,good\n" + "".join(f"x{number},good\n" for number in range(7))
    done = give(lake, text)
    assert done.code == 2
    assert (
        "7 of 8 images" in done.err and "'x0', 'x1', 'x2', 'x3', 'x4', …" in done.err and "--allow-unknown" in done.err
    )
    assert said(lake) == {}
    assert "7 of them have no score" in give(lake, text, "--allow-unknown").out
    assert len(said(lake)) == 8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("image;verdict\na;good\n", "no column 'image_id'; it has 'image;verdict'. The columns are image_id, verdict"),
        ("image_id,verdict\na,bad\n", "row 1 (a) says 'bad', not good or defect"),
        ("image_id,verdict\na,good\na,defect\n", "row 2 (a) says defect, an earlier one good"),
        ("image_id,verdict\n,good\n", "row 1 has no image_id"),
        ("image_id,verdict\na\n", "row 1 (a) says None"),
        ("image_id,verdict\n", "has no row"),
        ("", "has no column 'image_id'; it has none"),
    ],
)
def test_a_file_that_cannot_be_taken_is_refused_whole(lake: str, text: str, told: str) -> None:
    done = give(lake, text)
    assert (done.code, told in done.err) == (2, True), done.err
    assert said(lake) == {}


def test_files_that_cannot_be_read_are_named(lake: str, tmp_path: Path) -> None:
    assert "missing.csv" in patchead("feedback", str(tmp_path / "missing.csv"), "--lake", lake).err
    (tmp_path / "latin.csv").write_bytes("image_id,verdict\nä,good\n".encode("latin-1"))
    assert "no UTF-8" in patchead("feedback", str(tmp_path / "latin.csv"), "--lake", lake).err
    (tmp_path / "no.parquet").write_bytes(b"no")
    assert "no Parquet" in patchead("feedback", str(tmp_path / "no.parquet"), "--lake", lake).err

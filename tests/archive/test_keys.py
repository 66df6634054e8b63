from __future__ import annotations

import datetime as dt
import json
import pickle
from urllib.parse import quote

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchead.archive.keys import CATALOGUED, KeySources, Seen, Selection, assign, parse_night, parse_time
from patchead.errors import SettingsError

HIVE = KeySources(("night", "product"))
UTC = dt.timezone.utc


def rows(
    sources: KeySources, *paths: str, selection: Selection | None = None, **columns: list[str | None]
) -> list[dict]:
    members = [path.partition("#")[2] or None for path in paths]
    entries = {name: list(paths) for name in ("image_id", "uri", "format", "etag")}
    entries |= {"path": [path.partition("#")[0] for path in paths], "key": pa.array(members, pa.string())}
    entries |= {"size": [1] * len(paths), "offset": pa.array(range(len(paths)), pa.int64())}
    entries |= {"error": pa.array([None] * len(paths), pa.string())}
    entries |= {f"column:{name}": pa.array(values, pa.string()) for name, values in columns.items()}
    assigned = assign(pa.record_batch(entries), sources, selection or Selection(), Seen())
    assert assigned.schema == CATALOGUED
    return assigned.to_pylist()


def test_hive_folders_give_the_keys_and_the_group() -> None:
    (row,) = rows(HIVE, "product=M6%20bolt%2F8/x/night=20261121/a=b.png")
    assert (row["night"], row["product"]) == (dt.date(2026, 11, 21), "M6 bolt/8")
    assert row["group_id"] == "night=2026-11-21/product=M6%20bolt%2F8"
    assert row["error"] is None


def test_a_members_folders_count_and_the_outer_of_two_equal_keys_wins() -> None:
    (row,) = rows(HIVE, "product=a/s.tar#product=b/night=2026-11-21/x.png")
    assert row["group_id"] == "night=2026-11-21/product=a"
    (row,) = rows(HIVE, "product=a/night=2026-11-21/night=2026-11-22/x.png")
    assert row["night"] == dt.date(2026, 11, 21)


def test_the_file_name_is_no_folder() -> None:
    (row,) = rows(HIVE, "night=2026-11-21/product=x.png")
    assert row["lacks"] == "product"


# 20 characters are at most 240 bytes as they are quoted, and a folder's name has at most 255. All that UTF-8 has.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(TEXTS, TEXTS)
def test_any_value_round_trips_through_a_quoted_folder(product: str, station: str) -> None:
    sources = KeySources(("night", "product", "station"))
    path = f"night=2026-11-21/product={quote(product, safe='')}/station={quote(station, safe='')}"
    (row,) = rows(sources, f"{path}/a.png")
    assert row["product"] == product
    assert row["group_id"] == path


def test_template_names_the_parts_of_the_path() -> None:
    sources = KeySources(("night", "product", "station"), "{product}/{station}/{night}_{shift}/{filename}")
    (row, other) = rows(sources, "screw/s1/2026-11-21_early_2/a.png", "screw/s1/a.png")
    assert row["group_id"] == "night=2026-11-21/product=screw/station=s1"
    assert other["group_id"] is None
    assert other["lacks"] == "archive.template"
    assert "does not fit archive.template" in other["error"]


def test_template_fits_the_shard_or_the_shard_and_its_member() -> None:
    sources = KeySources(("night", "product"), "{product}/{night}/{filename}")
    (whole, inside) = rows(sources, "screw/20261121/s.tar#x/y.png", "screw/20261121#y.png")
    assert whole["group_id"] == inside["group_id"] == "night=2026-11-21/product=screw"


@pytest.mark.parametrize("template", ["{product/x", "{}/a", "{a}/{a}", "plain/path", "{a!r}", "{a:d}", "{1}", "{a.b}"])
def test_a_bad_template_is_refused_by_name(template: str) -> None:
    with pytest.raises(SettingsError, match=r"archive\.template must be a path"):
        KeySources(("night",), template)


def test_path_beats_columns_beats_assume() -> None:
    sources = KeySources(
        ("night", "product", "line"), assume=(("line", "L"), ("night", "2026-01-01"), ("product", "p"))
    )
    first, second = rows(
        sources, "product=path/a.png", "b.png", product=["column", "column"], night=["20261121", None], line=[None, ""]
    )
    assert first["group_id"] == "night=2026-11-21/product=path/line=L"
    assert second["group_id"] == "night=2026-01-01/product=column/line=L"


def test_part_and_time_of_capture_come_from_keys_of_their_names() -> None:
    sources = KeySources(("night", "product"), part_id="part")
    times = ["2026-11-21T10:00:00+02:00", "2026-11-21T10:00:00Z", "yesterday", None]
    given_rows = rows(
        sources, *[f"night=20261121/product=a/part=p/{n}.png" for n in range(4)], captured_at=times, part=["no"] * 4
    )
    assert [row["part_id"] for row in given_rows] == ["p"] * 4
    at_10, at_8 = (dt.datetime(2026, 11, 21, hour, tzinfo=UTC) for hour in (10, 8))
    assert [row["captured_at"] for row in given_rows] == [at_8, at_10, None, None]


def test_a_missing_key_and_a_bad_night_fail_the_row_and_keep_what_is_known() -> None:
    lost, bad = rows(HIVE, "night=2026-11-21/a.png", "night=21.11.2026/product=x/a.png")
    assert (lost["night"], lost["product"], lost["group_id"], lost["lacks"]) == (
        dt.date(2026, 11, 21),
        None,
        None,
        "product",
    )
    assert "no value for key 'product'" in lost["error"]
    assert (bad["night"], bad["product"], bad["lacks"]) == (None, "x", "")
    assert "night must be a date, YYYY-MM-DD or YYYYMMDD; got '21.11.2026'" in bad["error"]


@pytest.mark.parametrize("text", ["", None, "2026-1-1", "2026-13-01", "202611-21", "2026-11-21T00", "2026-11-2\u0661"])
def test_other_nights_are_none(text: str | None) -> None:
    assert parse_night(text) is None


@pytest.mark.parametrize("text", ["", None, "0001-01-01T00:00:00+23:00", "2026-99-01"])
def test_other_times_are_none(text: str | None) -> None:
    assert parse_time(text) is None


def test_selection_leaves_out_what_is_known_to_be_other_and_keeps_the_unknown() -> None:
    selection = Selection(dt.date(2026, 11, 21), ("a",))
    kept = rows(
        HIVE,
        "night=20261121/product=a/1.png",
        "night=20261121/product=b/2.png",
        "night=20261122/product=a/3.png",
        "night=20261121/4.png",
        "night=soon/product=a/5.png",
        selection=selection,
    )
    assert [row["image_id"][-5] for row in kept] == ["1", "4", "5"]
    assert [row["error"] is None for row in kept] == [True, False, False]


def test_folders_are_judged_as_soon_as_their_name_tells() -> None:
    template = KeySources(("night", "product"), "{product}/{night}/{filename}")
    selection, seen = Selection(dt.date(2026, 11, 21)), Seen()
    answers = {
        (template, ""): None,
        (template, "a"): None,
        (template, "a/2026-11-21"): True,
        (template, "a/2026-11-22"): False,
        (template, "a/2026-11-21/too/deep"): None,
        (HIVE, "x"): None,
        (HIVE, "night=20261121"): True,
        (HIVE, "night=20261120/product=a"): False,
    }
    for (sources, folder), answer in answers.items():
        assert selection.wants(sources.of_folder(folder), seen) is answer, folder
    assert (seen.nights, seen.products) == ({"2026-11-22", "2026-11-20"}, {"a"})
    assert Selection().wants({}, seen) is True


def test_a_rule_travels_to_other_processes() -> None:
    sources = KeySources(("night", "product"), "{product}/{night}/{filename}", (("night", "x"),), "part")
    assert pickle.loads(pickle.dumps(sources)) == sources


def test_keys_that_group_nothing_are_kept_with_the_image() -> None:
    sources = KeySources(("night", "product"), part_id="part", kept=("line", "shift"))
    paths = ("night=2026-11-21/product=x/station=3/a.png", "night=2026-11-21/product=x/b.png")
    columns = {"line": ["L1", None], "shift": ["", None], "part": ["7", None], "other": ["no", None]}
    assert [row["keys_json"] for row in rows(sources, *paths, **columns)] == ['{"line":"L1","station":"3"}', None]
    template = KeySources(("night", "product"), template="{product}/{night}/{station}_{filename}")
    (row,) = rows(template, 'x/20261121/ü"3_a.png')
    assert json.loads(row["keys_json"]) == {"station": 'ü"3'}

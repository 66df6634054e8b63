"""Labels of nights that have other photos under the same ids: each is of the photo that was looked at."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
from deltalake import write_deltalake

from patchead.kept_tables import KEPT_TABLES
from patchead.lake.accepted import read_accepted
from patchead.lake.publication import publish
from patchead.lake.tables import read_rows, table_uri
from patchead.report.night_rows import read_night
from patchead.review.labels import DEFECT, GOOD, labels
from patchead.review.thresholds import Labelled, thresholds
from patchead.schema import RUNS, table
from patchead.settings.load import load_config
from patchead.storage import Storage
from tests.helpers.command import patchead
from tests.helpers.sample_rows import NEXT_NIGHT, NIGHT, group, rows_of

ONE, TWO = "0001.png", "0002.png"
MON, TUE = f"night={NIGHT}/{ONE}", f"night={NEXT_NIGHT}/{ONE}"
"""Contents of the two photos that are called `ONE`."""


def add(lake: str, run_id: str, night: dt.date, **contents: str) -> None:
    """Publish a night of the images `ONE` and `TWO`."""
    at = {ONE: f"night={night}/{ONE}", TWO: f"night={night}/{TWO}"} | {f"{n[1:]}.png": c for n, c in contents.items()}
    rows = rows_of(run_id, [[row for image in at for row in group(night, "screw", image, content_hash=at[image])]])
    config = load_config(None, [], {"archive.uri": f"/archive/{night}", "lake.uri": lake})
    more = {"config_json": json.dumps(config.model_dump(mode="json")), "encoder_id": "e1"}
    more |= {"finished_at": dt.datetime(night.year, night.month, night.day, tzinfo=dt.timezone.utc)}
    rows = rows.changed(run=table([row | more for row in rows.run.to_pylist()], RUNS))
    publish(lake, Storage(), *rows.tables)


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """Two nights, each of an archive of its own."""
    uri = str(tmp_path / "lake")
    add(uri, "mon", NIGHT)
    add(uri, "tue", NEXT_NIGHT)
    return uri


def give(lake: str, *lines: str, more: tuple[str, ...] = ()) -> tuple[int, str, str]:
    file = Path(lake).parent / "labels.csv"
    file.write_text("\n".join(["image_id,verdict,run_id", *lines, ""]))
    return patchead("feedback", str(file), "--lake", lake, *more)


def said(lake: str) -> tuple[str | None, str | None]:
    """Of the photos that are called `ONE`."""
    found = labels(lake, Storage())
    return found.of(ONE, MON), found.of(ONE, TUE)


def test_a_label_is_of_the_photo_of_its_run(lake: str) -> None:
    assert give(lake, f"{ONE},defect,mon").code == 0
    assert said(lake) == (DEFECT, None)
    assert give(lake, f"{ONE},good,mon", f"{ONE},defect,tue").code == 0
    assert said(lake) == (GOOD, DEFECT)
    kept = read_rows(lake, Storage(), "feedback", ["content_hash"])["content_hash"].to_pylist()
    assert sorted(kept) == [MON, MON, TUE]


def test_an_id_of_several_photos_without_a_run_is_refused_with_the_runs_named(lake: str) -> None:
    done = give(lake, f"{ONE},defect,")
    assert done.code == 2
    assert f"{ONE} is 2 photos, of runs tue, mon. Say in the column run_id" in done.err
    assert "Nothing was recorded" in done.err and said(lake) == (None, None)


def test_one_photo_in_several_nights_needs_no_run(lake: str) -> None:
    add(lake, "wed", NEXT_NIGHT + dt.timedelta(1), _0003="same")
    add(lake, "thu", NEXT_NIGHT + dt.timedelta(2), _0003="same")
    assert give(lake, "0003.png,good,").code == 0
    assert labels(lake, Storage()).of("0003.png", "same") == GOOD


def test_two_things_said_of_one_photo_are_refused(lake: str) -> None:
    add(lake, "again", NEXT_NIGHT + dt.timedelta(1), _0001=TUE)
    done = give(lake, f"{ONE},good,tue", f"{ONE},defect,again", f"{ONE},defect,mon")
    assert done.code == 2
    assert f"one photo, {ONE}, is said to be good (run tue) and defect (run again). Nothing was recorded" in done.err
    assert give(lake, f"{ONE},good,tue", f"{ONE},good,again", f"{ONE},defect,mon").code == 0
    assert said(lake) == (DEFECT, GOOD)


@pytest.mark.parametrize("more", [(), ("--allow-unknown",)])
def test_a_run_without_the_image_is_refused_with_those_that_have_it(lake: str, more: tuple[str, ...]) -> None:
    done = give(lake, f"{ONE},good,mno", more=more)
    assert (done.code, f"run mno has no {ONE}, which is of runs tue, mon" in done.err) == (2, True), done.err


def test_of_a_run_whose_night_was_scored_again_it_is_the_photo_of_that_night(lake: str) -> None:
    add(lake, "mon2", NIGHT)
    assert give(lake, f"{ONE},defect,mon").code == 0
    assert said(lake) == (DEFECT, None)


def test_labels_of_an_earlier_version_go_on_by_id_until_a_newer_one_is_of_the_photo(lake: str) -> None:
    """Their table has no content_hash; it gets the column with the first new label."""
    schema = KEPT_TABLES["feedback"]
    schema = schema.remove(schema.get_field_index("content_hash"))
    before = dt.datetime(2026, 11, 22, tzinfo=dt.timezone.utc)
    old = table([{"image_id": ONE, "verdict": DEFECT, "given_at": before}], schema)
    write_deltalake(table_uri(lake, "feedback"), old)
    assert said(lake) == (DEFECT, DEFECT)
    assert read_night(lake, Storage(), NIGHT).labels == {("mon", ONE): DEFECT}
    assert give(lake, f"{ONE},good,tue").code == 0
    assert said(lake) == (DEFECT, GOOD)
    asked = "SELECT run_id, content_hash FROM feedback ORDER BY given_at"
    told = patchead("query", "--lake", lake, "--format", "json", asked)
    assert json.loads(told.out) == [
        {"run_id": None, "content_hash": None},
        {"run_id": "tue", "content_hash": TUE},
    ]


def test_accept_leaves_out_the_defect_alone(lake: str) -> None:
    assert give(lake, f"{ONE},defect,mon").code == 0
    for run_id, images in (("mon", [TWO]), ("tue", [ONE, TWO])):
        assert patchead("accept", run_id, "--lake", lake).code == 0
        (row,) = read_accepted(lake, Storage(), name=run_id)
        assert row.image_ids == images


def test_thresholds_count_the_photo_alone(lake: str) -> None:
    assert give(lake, f"{ONE},defect,mon", f"{TWO},good,tue").code == 0
    (found,) = thresholds(lake, Storage())
    assert (found.good, found.defects) == (1, 1)
    labelled = Labelled.read(lake, Storage())
    assert sorted(labelled.rows["content_hash"].to_pylist()) == [MON, TUE.replace(ONE, TWO)]
    assert labelled.unscored == 0
    add(lake, "mon2", NIGHT, _0001="taken anew")
    assert Labelled.read(lake, Storage()).unscored == 1


def test_the_page_of_a_night_shows_what_was_said_of_its_own_photos(lake: str) -> None:
    assert give(lake, f"{ONE},defect,mon", f"{ONE},good,tue").code == 0
    assert give(lake, f"{ONE},good,mon").code == 0
    assert read_night(lake, Storage(), NIGHT).labels == {("mon", ONE): GOOD}
    assert read_night(lake, Storage(), NEXT_NIGHT).labels == {("tue", ONE): GOOD}


def test_an_image_without_a_score_is_kept_by_id(lake: str) -> None:
    assert give(lake, "later.png,good,", more=("--allow-unknown",)).code == 0
    assert labels(lake, Storage()).of("later.png", "whatever") == GOOD

"""Completing the manifest with what each image is aligned with, and cutting it into units."""

from __future__ import annotations

import pyarrow as pa

from patchead.nightly.units import samples, units
from patchead.schema import MANIFEST, PROMPT, TO_EMBED, completed, table

IMAGES = [("x", "g"), ("y", "g"), ("z", "h")]


def manifest(rows: list[dict[str, object]]) -> pa.Table:
    return table([{"format": "files", "size": 1, "etag": "e", **row} for row in rows], TO_EMBED)


def loose(count: int, group: str = "g") -> list[dict[str, object]]:
    return [
        {"image_id": f"{group}/{i:03d}.png", "uri": f"/{group}/{i:03d}.png", "group_id": group} for i in range(count)
    ]


def members(count: int, shard: str, group: str = "g") -> list[dict[str, object]]:
    return [
        {"image_id": f"{shard}#{i}", "uri": f"/{shard}", "key": str(i), "format": "tar", "group_id": group}
        for i in range(count)
    ]


def test_a_unit_holds_images_of_one_group_and_one_shard() -> None:
    rows = loose(5, "a") + loose(3, "b") + members(4, "one.tar") + members(3, "two.tar")
    work = units(manifest(rows[::-1]), 3, "run")
    shapes = [(unit["uri"][0].rpartition("/")[0], unit["format"][0], unit["image_id"]) for unit in work.to_pylist()]
    assert [len(ids) for _, _, ids in shapes] == [3, 2, 3, 3, 1, 3]
    assert [format for _, format, _ in shapes] == ["files"] * 3 + ["tar"] * 3
    assert sorted(i for _, _, ids in shapes for i in ids) == sorted(str(row["image_id"]) for row in rows)
    assert all(ids == sorted(ids) for _, _, ids in shapes)
    assert all(len(set(unit["uri"])) == 1 for unit in work.to_pylist() if unit["format"][0] == "tar")


def test_unit_ids_depend_on_the_samples_and_the_run_alone() -> None:
    rows = loose(4)
    ids = units(manifest(rows), 2, "run")["unit_id"].to_pylist()
    assert units(manifest(rows[::-1]), 2, "run")["unit_id"].to_pylist() == ids
    assert not set(units(manifest(rows), 2, "other")["unit_id"].to_pylist()) & set(ids)
    for change in ({"etag": "new"}, {"role": PROMPT}, {"turn": 90}, {"guides_digest": "d"}, {"bit_depth": 12}):
        changed = units(manifest([row | change for row in rows[:2]] + rows[2:]), 2, "run")["unit_id"].to_pylist()
        assert len(set(changed) & set(ids)) == 1, change


def test_no_images_no_units() -> None:
    assert units(manifest([]), 64, "run").num_rows == 0


def test_a_sample_is_known_by_the_guides_it_was_made_with_and_keeps_its_etag() -> None:
    def digests(guide: dict[str, str], part: str | None = None, max_pixels: int = 100) -> list[str]:
        rows = [{"image_id": name, "etag": "e", "group_id": group, "part_id": part} for name, group in IMAGES]
        guides = {"g": table([guide], MANIFEST), "h": table([{"image_id": "other", "etag": "1"}], MANIFEST)}
        found = samples(table(rows, MANIFEST), guides, max_pixels)
        assert found["etag"].to_pylist() == ["e"] * 3
        return found["guides_digest"].to_pylist()

    first = digests({"image_id": "a", "etag": "1"})
    assert first == digests({"image_id": "a", "etag": "1"})
    assert first[0] == first[1] != first[2]
    for other in (
        digests({"image_id": "b", "etag": "1"}),
        digests({"image_id": "a", "etag": "2"}),
        digests({"image_id": "a", "etag": "1", "part_id": "7"}),
    ):
        assert other[0] != first[0]
        assert other[2] == first[2]  # another group's images are as good as before
    assert not set(first) & set(digests({"image_id": "a", "etag": "1"}, part="7"))
    assert not set(first) & set(digests({"image_id": "a", "etag": "1"}, max_pixels=50))
    plain = table([{"image_id": "a", "etag": "e"}], MANIFEST)
    assert samples(plain, {}, 100) == completed(plain, TO_EMBED)

"""Finding the samples that a store holds: what is read of its index, by what, and while others change it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchead.errors import LakeError
from patchead.files import Folder
from patchead.hashing import text_digest
from patchead.lake import index_part, receipt_index
from patchead.lake.contents import Contents
from patchead.lake.receipt_index import ReceiptIndex
from patchead.schema import FAILED, OK, RECEIPTS, TO_EMBED, completed, table
from patchead.storage import Storage
from tests.lake.conftest import Lake


def index_of(lake: Lake) -> ReceiptIndex:
    return ReceiptIndex(Folder(f"{lake.uri}/parts", lake.storage), Folder(f"{lake.uri}/units", lake.storage))


def receipts(index: ReceiptIndex, images: list[str], unit: str = "u", **values: Any) -> pa.Table:
    """Receipts of images whose embedding file, written here, is there."""
    uri = index.units.write(f"{unit}.arrow", lambda sink: sink.write(b"vectors"))
    known = {"etag": "e", "size": 10, "width": 8, "height": 6, "status": OK, "embedding_uri": uri}
    return table(
        [{"image_id": i, "content_hash": text_digest(i), "row": n} | known | values for n, i in enumerate(images)],
        RECEIPTS,
    )


def wanted(images: list[str], **values: Any) -> pa.Table:
    return table([{"image_id": i, "etag": "e", "size": 10} | values for i in images], TO_EMBED)


def ids(found: pa.Table) -> list[str]:
    return sorted(found["image_id"].to_pylist())


def night(date: str, images: int = 3) -> list[str]:
    return [f"product={p}/night={date}/{i:03d}.png" for p in "abc" for i in range(images)]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are opened, in order."""
    names: list[str] = []

    def watch(method: str) -> None:
        original: Callable[[Folder, str], pa.NativeFile] = getattr(Folder, method)

        def watched(folder: Folder, name: str) -> pa.NativeFile:
            names.append(name)
            return original(folder, name)

        monkeypatch.setattr(Folder, method, watched)

    watch("open")
    watch("open_parts")
    return names


def test_only_parts_with_folders_of_the_night_are_opened(lake: Lake, opened: list[str]) -> None:
    """Nights of other dates lie between the folders of this one in every order of the ids."""
    index = index_of(lake)
    for day in range(10, 20):
        index.add(f"run{day}", receipts(index, night(f"2026-11-{day}"), f"u{day}"))
    found = pickle.loads(pickle.dumps(index)).unchanged(wanted(night("2026-11-15")))
    assert ids(found) == night("2026-11-15")
    assert [name.partition("-")[0] for name in opened if name.endswith(".receipts.parquet")] == ["run15"]
    assert not [name for name in opened if name.endswith(".hashes.arrow")]
    assert index.unchanged(wanted(night("2026-11-25"))).num_rows == 0
    assert len([name for name in opened if name.endswith(".receipts.parquet")]) == 1


def test_only_row_groups_with_ids_of_the_night_are_read(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_part, "GROUP_ROWS", 4)
    index, read = index_of(local), []
    flat = [f"2026-11-{day}-{i}.png" for day in range(10, 20) for i in range(6)]  # one folder: the ids decide
    index.add("all", receipts(index, [*flat, *night("2026-11-15", 6)]))
    read_group = index_part.read_group

    def watched(file: pq.ParquetFile, number: int) -> pa.Table:
        read.append(number)
        return read_group(file, number)

    monkeypatch.setattr(index_part, "read_group", watched)
    asked = [name for name in flat if "2026-11-13" in name]
    assert ids(index.unchanged(wanted(asked))) == asked
    assert len(read) == 2
    read.clear()
    asked = [name for name in night("2026-11-15", 6) if name.startswith("product=c")]
    assert ids(index.unchanged(wanted(asked))) == asked
    assert len(read) <= 3


@pytest.mark.slow
def test_memory_does_not_grow_with_the_index(local: Lake) -> None:
    """Arrow's own count of what it holds at most: a night of 300 images among 300,000 receipts."""
    index, n = index_of(local), 100_000
    for day in range(3):
        hashes = np.random.default_rng(day).integers(0, 256, (n, 16), np.uint8).tobytes().hex()
        some = pa.array([hashes[i : i + 32] for i in range(0, len(hashes), 32)])
        names = pa.array([f"product={i % 20}/night=2026-11-1{day}/{i:06d}.png" for i in range(n)])
        uri = index.units.write(f"u{day}.arrow", lambda sink: sink.write(b"vectors"))
        columns = {
            "image_id": names,
            "etag": some,
            "size": pa.repeat(1, n),
            "content_hash": some,
            "row": pa.nulls(n),
        }
        fixed = {"embedding_uri": pa.repeat(uri, n), "status": pa.repeat(OK, n)}
        index.add(f"run{day}", completed(pa.table(columns | fixed), RECEIPTS))
    asked = completed(pa.table(columns).filter(pc.match_substring(names, "product=7/")).slice(0, 300), TO_EMBED)
    pq.write_table(asked, Path(local.uri) / "asked.parquet")
    code = f"""
import pickle, pyarrow as pa, pyarrow.parquet as pq
index = pickle.loads({pickle.dumps(index)!r})
print(index.unchanged(pq.read_table({local.uri + "/asked.parquet"!r})).num_rows, pa.default_memory_pool().max_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    found, most_bytes = map(int, done.stdout.split())
    assert found == 300
    assert most_bytes < 16 * 10**6  # all receipts are 60 MB


def part_files(index: ReceiptIndex) -> list[str]:
    return index.folder.names("")


def test_many_small_parts_become_few(lake: Lake) -> None:
    index = index_of(lake)
    for day in range(8):
        index.add(f"run{day}", receipts(index, night(f"2026-11-{day + 10}"), f"u{day}"))
        index.join_small_parts()
        assert len(index.parts()) == (day + 1 if day < 7 else 1)
    assert {name.partition("-")[0] for name in part_files(index)} == {"joined"}
    assert len(part_files(index)) == 3
    every = [name for day in range(8) for name in night(f"2026-11-{day + 10}")]
    assert ids(index.unchanged(wanted(every))) == sorted(every)
    contents = Contents(index)
    assert all((contents.find(text_digest(name), None) or {})["image_id"] == name for name in every)


def test_receipts_that_were_added_twice_are_one_after_joining(local: Lake) -> None:
    index = index_of(local)
    rows = receipts(index, night("2026-11-10"))
    for _ in range(8):
        index.add("run", rows)
    assert ids(index.unchanged(wanted(night("2026-11-10")))) == night("2026-11-10")
    index.join_small_parts()
    (part,) = index.parts()
    assert index_part.read_receipts(index.folder, f"{part}.receipts.parquet").num_rows == rows.num_rows


def test_large_parts_and_parts_of_other_sizes_are_left_alone(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    index, numbers = index_of(local), count()

    def add(images: int) -> None:
        number = next(numbers)
        index.add("run", receipts(index, [f"{number}/{i}" for i in range(images)], f"u{number}"))

    for images in (*[2_000] * 9, *[5] * 7):
        add(images)
    monkeypatch.setattr(receipt_index, "_LARGE_BYTES", 2_000 * 20)  # fewer bytes than a receipt takes
    before = index.parts()
    assert len(before) == 16
    index.join_small_parts()
    assert index.parts() == before
    add(5)
    index.join_small_parts()
    assert len(index.parts()) == 10


def test_two_runs_may_join_the_same_parts(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    index, write_part = index_of(local), index_part.write_part
    for day in range(10, 18):
        index.add(f"run{day}", receipts(index, night(f"2026-11-{day}"), f"u{day}"))

    def other_run_first(folder: Folder, part: str, rows: pa.Table) -> None:
        monkeypatch.setattr(index_part, "write_part", write_part)
        index.join_small_parts()  # the other run has read the same parts, and ends first
        write_part(folder, part, rows)

    monkeypatch.setattr(index_part, "write_part", other_run_first)
    index.join_small_parts()
    assert [name.partition("-")[0] for name in index.parts()] == ["joined"] * 2
    every = [name for day in range(10, 18) for name in night(f"2026-11-{day}")]
    assert ids(index.unchanged(wanted(every))) == sorted(every)


def test_a_part_that_is_joined_while_a_night_is_looked_up_hides_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, parts = index_of(lake), ReceiptIndex.parts
    for day in range(10, 18):
        index.add(f"run{day}", receipts(index, night(f"2026-11-{day}"), f"u{day}"))
    contents = Contents(index)
    assert contents.find(text_digest("nothing"), None) is None  # its hashes are loaded

    def parts_then_join(self: ReceiptIndex) -> list[str]:
        found = parts(self)
        monkeypatch.setattr(ReceiptIndex, "parts", parts)
        index.join_small_parts()
        return found

    monkeypatch.setattr(ReceiptIndex, "parts", parts_then_join)
    assert ids(index.unchanged(wanted(night("2026-11-12")))) == night("2026-11-12")
    assert len(index.parts()) == 1
    name = night("2026-11-13")[0]
    assert (contents.find(text_digest(name), None) or {})["image_id"] == name


def test_a_part_that_is_not_whole_is_none(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    index, write = index_of(local), Folder.write

    def dies_before_the_receipts(folder: Folder, name: str, fill: Any) -> str:
        if name.endswith(".receipts.parquet"):
            raise LakeError("killed")
        return write(folder, name, fill)

    rows = receipts(index, ["a/b.png"])
    with monkeypatch.context() as patch, pytest.raises(LakeError, match="killed"):
        patch.setattr(Folder, "write", dies_before_the_receipts)
        index.add("run", rows)
    assert len(part_files(index)) == 2
    assert index.parts() == []
    assert index.unchanged(wanted(["a/b.png"])).num_rows == 0
    assert Contents(index).find(text_digest("a/b.png"), None) is None


def test_failed_images_and_hashes_that_are_none(local: Lake) -> None:
    index = index_of(local)
    index.add("run", receipts(index, ["a"], status=FAILED))
    assert index.parts() == []
    for content in ("abc", "not hex at all", "ü" * 32):
        with pytest.raises(LakeError, match="content hash is not 8 or more hex digits"):
            index.add("run", receipts(index, ["a"], content_hash=content))
    with pytest.raises(LakeError, match="outside of"):
        index.add("run", receipts(index, ["a"], embedding_uri="/elsewhere/u.arrow"))


@pytest.mark.parametrize("name", ["folders.parquet", "hashes.arrow"])
@pytest.mark.parametrize("size", [0, 7, -9])
def test_a_damaged_part_is_named_with_the_remedy(local: Lake, name: str, size: int) -> None:
    index = index_of(local)
    index.add("run", receipts(index, ["a/b.png"]))
    (path,) = Path(index.folder.uri).glob(f"*.{name}")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LakeError, match=rf"{path.name} is damaged.*Delete it"):
        if name.startswith("folders"):
            index.unchanged(wanted(["a/b.png"]))
        else:
            Contents(index).find(text_digest("a/b.png"), None)
    path.unlink()  # the remedy: its images are not known
    assert index.unchanged(wanted(["a/b.png"])).num_rows == (0 if name.startswith("folders") else 1)
    assert Contents(index).find(text_digest("a/b.png"), None) is None or name.startswith("folders")


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rows=st.integers(1, 5))
def test_it_finds_what_a_plain_search_of_all_receipts_finds(
    data: st.DataObject, rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image_ids = st.sampled_from(
        [f"{a}{b}{c}" for a in ("", "x/", "x/y/", "ü/") for b in ("", "p.tar#", "z/") for c in "ab"]
    )
    samples = st.fixed_dictionaries(
        {"image_id": image_ids, "etag": st.sampled_from(["e", "f"]), "turn": st.sampled_from([None, 90])}
    )
    index = index_of(Lake(str(tmp_path_factory.mktemp("lake")), Storage()))
    held: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_part, "GROUP_ROWS", rows)
        for number in range(data.draw(st.integers(0, 10), "parts")):
            own = data.draw(st.lists(samples, min_size=1, max_size=8), "receipts")
            filled = receipts(index, [row["image_id"] for row in own], f"u{number}").to_pylist()
            index.add(f"run{number}", table([known | row for known, row in zip(filled, own, strict=True)], RECEIPTS))
            held += own
        if data.draw(st.booleans(), "joined"):
            index.join_small_parts()
        asked = data.draw(
            st.lists(samples, max_size=8, unique_by=lambda row: (row["image_id"], row["etag"], row["turn"])), "asked"
        )
        found = index.unchanged(table([{"size": 10, **row} for row in asked], TO_EMBED)).to_pylist()
        contents = Contents(index)
        for row in asked:
            known = contents.find(text_digest(row["image_id"]), row["turn"])
            same = [h for h in held if (h["image_id"], h["turn"]) == (row["image_id"], row["turn"])]
            assert (known is not None) == bool(same)
    names = ("image_id", "etag", "turn")
    plain = [tuple(str(row[name]) for name in names) for row in asked if row in held]
    assert sorted(tuple(str(row[name]) for name in names) for row in found) == sorted(plain)

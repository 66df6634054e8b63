from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchead.errors import LakeError
from patchead.files import Folder
from patchead.hashing import text_digest
from patchead.lake.embeddings import EmbeddingStore
from patchead.schema import FAILED, OK, PROMPT, RECEIPTS, TO_EMBED, table
from patchead.storage import Storage

ENCODER = "vit-0123abcd"
P, D = 3, 4


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, P, D)).astype(np.float16)


def receipts(*images: str, **values: Any) -> pa.Table:
    known = {"etag": "e1", "size": 10, "width": 8, "height": 6, "status": OK}
    return table([{"image_id": i, "content_hash": text_digest(i)} | known | values for i in images], RECEIPTS)


def store_of(lake: Any, encoder_id: str = ENCODER) -> EmbeddingStore:
    return EmbeddingStore(lake.uri, lake.storage, encoder_id)


def files(lake: Any, kind: str) -> list[str]:
    return Folder(f"{lake.uri}/embeddings/{ENCODER}/{kind}", lake.storage).names("")


def unit_file(lake: Any, unit: str) -> Path:
    (path,) = (Path(lake.uri) / "embeddings" / ENCODER / "units").glob(f"{unit}-*.arrow")
    return path


def ids(found: pa.Table) -> list[str]:
    return sorted(found["image_id"].to_pylist())


def known(store: EmbeddingStore, *images: str, **values: Any) -> pa.Table:
    """Receipts of those images that the next run would find, in order of their ids."""
    store.settle()
    wanted = [{"image_id": i, "etag": "e1", "size": 10} | values for i in images]
    return store.index.unchanged(table(wanted, TO_EMBED)).sort_by("image_id")


def test_vectors_come_back_in_the_order_asked_for(lake: Any) -> None:
    store, given_vectors = store_of(lake), vectors(4)
    filled = store.write_unit("u1", receipts("a", "b", "c", "d"), given_vectors)
    assert filled.schema.equals(RECEIPTS)
    assert filled["row"].to_pylist() == [0, 1, 2, 3]
    (uri,) = set(filled["embedding_uri"].to_pylist())
    assert uri.startswith(f"{lake.uri}/embeddings/{ENCODER}/units/u1-")
    found = store.read(uri, np.array([3, 0, 3]))
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, given_vectors[[3, 0, 3]])
    assert found.flags.owndata and found.flags.writeable
    assert store.read(uri, np.array([], dtype=np.int64)).shape == (0, P, D)


def test_failed_and_reused_images_take_no_row(lake: Any) -> None:
    store = store_of(lake)
    first = store.write_unit("u1", receipts("a"), vectors(1))
    reused = first.set_column(0, "image_id", pa.array(["copy of a"]))
    unit = pa.concat_tables([receipts("bad", status=FAILED, error="no image"), receipts("b"), reused, receipts("c")])
    filled = store.write_unit("u2", unit, vectors(2, seed=1))
    assert filled["row"].to_pylist() == [None, 0, 0, 1]
    units = [uri and uri.rpartition("/")[2][:2] for uri in filled["embedding_uri"].to_pylist()]
    assert units == [None, "u2", "u1", "u2"]
    assert ids(known(store, "bad", "a", "b", "c", "copy of a")) == ["a", "b", "c", "copy of a"]
    np.testing.assert_array_equal(store.read(filled["embedding_uri"][3].as_py(), np.array([1])), vectors(2, seed=1)[1:])


@settings(max_examples=25, deadline=None)
@given(kinds=st.lists(st.sampled_from(["fresh", "failed", "reused"]), min_size=1, max_size=8))
def test_every_fresh_image_finds_its_own_vectors(kinds: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    store = EmbeddingStore(str(tmp_path_factory.mktemp("lake")), Storage(), ENCODER)
    old = store.write_unit("old", receipts("old"), vectors(1, seed=9))
    parts = [
        old.set_column(0, "image_id", pa.array([str(i)]))
        if kind == "reused"
        else receipts(str(i), status=FAILED if kind == "failed" else OK)
        for i, kind in enumerate(kinds)
    ]
    block = vectors(kinds.count("fresh"))
    filled = store.write_unit("u", pa.concat_tables(parts), block).to_pylist()
    fresh = [row for row, kind in zip(filled, kinds, strict=True) if kind == "fresh"]
    for position, row in enumerate(fresh):
        np.testing.assert_array_equal(store.read(row["embedding_uri"], np.array([row["row"]]))[0], block[position])
    assert known(store, "old", *map(str, range(8))).num_rows == 1 + sum(kind != "failed" for kind in kinds)


def test_a_unit_without_vectors_leaves_receipts_only(lake: Any) -> None:
    store = store_of(lake)
    store.write_unit("u1", receipts("bad", status=FAILED, error="no image"), None)
    assert files(lake, "units") == []
    assert files(lake, "pending") == ["u1.parquet"]
    assert known(store, "bad").num_rows == 0
    assert files(lake, "pending") == files(lake, "parts") == []


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (vectors(1), "1 embeddings for 2 images"),
        (None, "0 embeddings for 2 images"),
        (vectors(2).astype(np.float32), "float16 of shape"),
        (vectors(2).reshape(2, -1), "float16 of shape"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(local: Any, block: np.ndarray | None, fault: str) -> None:
    with pytest.raises(LakeError, match=fault):
        store_of(local).write_unit("u1", receipts("a", "b"), block)
    assert files(local, "pending") == []


def test_the_receipt_is_written_last(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, write = store_of(local), Folder.write

    def dies_before_the_receipt(folder: Folder, name: str, fill: Any) -> str:
        if folder.uri.endswith("pending"):
            raise LakeError("killed")
        return write(folder, name, fill)

    with monkeypatch.context() as patch, pytest.raises(LakeError, match="killed"):
        patch.setattr(Folder, "write", dies_before_the_receipt)
        store.write_unit("u1", receipts("a"), vectors(1))
    (left,) = files(local, "units")
    assert known(store, "a").num_rows == 0
    store.write_unit("u1", receipts("a"), vectors(1, seed=1))
    uri = known(store, "a")["embedding_uri"][0].as_py()
    np.testing.assert_array_equal(store.read(uri, np.array([0])), vectors(1, seed=1))
    assert files(local, "units") == [left]


def test_another_try_of_a_unit_leaves_receipts_that_are_in_the_index_true(lake: Any) -> None:
    """Its actor died once it had written the unit, another run settled it, and now one image cannot be read."""
    store, given_vectors = store_of(lake), vectors(2)
    store.write_unit("u1", receipts("a", "b"), given_vectors)
    store_of(lake).settle()
    again = pa.concat_tables([receipts("a", status=FAILED, error="cannot be read"), receipts("b")])
    filled = store.write_unit("u1", again, given_vectors[1:])
    store.consolidate("run", filled, ["u1"])
    for row, expected in zip(known(store, "a", "b").to_pylist(), given_vectors, strict=True):
        np.testing.assert_array_equal(store.read(row["embedding_uri"], np.array([row["row"]]))[0], expected)


def test_an_interrupted_write_leaves_the_earlier_file_and_nothing_else(local: Any) -> None:
    folder = Folder(local.uri, local.storage)
    folder.write("x.bin", lambda sink: sink.write(b"old"))

    def breaks_off(sink: pa.NativeFile) -> None:
        sink.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.write("x.bin", breaks_off)
    assert [path.name for path in Path(local.uri).iterdir()] == ["x.bin"]
    assert folder.open("x.bin").read() == b"old"


def test_consolidation_keeps_what_is_known_and_clears_its_own_pending_files(lake: Any) -> None:
    store = store_of(lake)
    units = [store.write_unit(f"u{i}", receipts(f"{i}a", f"{i}b"), vectors(2, seed=i)) for i in range(3)]
    store.write_unit("other", receipts("x"), vectors(1))
    store.consolidate("run-1", pa.concat_tables(units), ["u0", "u1", "u2", "never written"])
    assert files(lake, "pending") == ["other.parquet"]
    assert {name.partition("-")[0] for name in files(lake, "parts")} == {"run"}
    images = [f"{i}{j}" for i in range(3) for j in "ab"]
    assert known(store, *images, "x", "y").equals(pa.concat_tables([*units, known(store, "x")]))
    assert files(lake, "pending") == []  # what the other run left is in the index now


def test_what_a_killed_run_left_is_found_again_although_another_run_settled_it(lake: Any) -> None:
    killed, other = store_of(lake), store_of(lake)
    filled = killed.write_unit("u1", receipts("a"), vectors(1))
    other.settle()
    assert files(lake, "pending") == []
    assert known(killed, "a").equals(filled)
    killed.consolidate("killed", filled, ["u1"])  # it was not killed after all
    assert known(other, "a").equals(filled)


def test_the_index_grows_with_new_images_only(local: Any) -> None:
    store = store_of(local)
    first = store.write_unit("u1", receipts("a", "b"), vectors(2))
    store.consolidate("run-1", first, ["u1"])
    store.consolidate("run-2", RECEIPTS.empty_table(), [])
    failed = store.write_unit("u2", receipts("c", status=FAILED, error="no image"), None)
    store.consolidate("run-3", failed, ["u2"])
    parts = Path(local.uri) / "embeddings" / ENCODER / "parts"
    assert {path.name.rpartition("-")[0]: ids(pq.read_table(path)) for path in parts.glob("*.receipts.parquet")} == {
        "run-1": ["a", "b"]
    }


def test_nothing_is_read_to_consolidate(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(local)
    for unit in ("u1", "u2"):
        store.consolidate(unit, store.write_unit(unit, receipts(unit), vectors(1)), [unit])

    def refuse(folder: Folder, name: str) -> pa.NativeFile:
        raise AssertionError(f"{folder.uri}/{name} was opened")

    filled = store.write_unit("u3", receipts("u3"), vectors(1))
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "open", refuse)
        patch.setattr(Folder, "open_parts", refuse)
        store.consolidate("u3", filled, ["u3"])
    assert ids(known(store, "u1", "u2", "u3")) == ["u1", "u2", "u3"]


def test_images_are_known_by_id_etag_and_size(local: Any) -> None:
    store = store_of(local)
    store.write_unit("u1", receipts("a"), vectors(1))
    store.write_unit("u2", receipts("a"), vectors(1))
    store.write_unit("u3", receipts("a", etag="e2"), vectors(1))
    store.write_unit("u4", receipts("no etag", "no etag", etag=None), vectors(2))
    assert [known(store, "a", etag=etag)["etag"].to_pylist() for etag in ("e1", "e2", "e3")] == [["e1"], ["e2"], []]
    assert known(store, "a", size=11).num_rows == 0
    assert known(store, "no etag", etag=None).num_rows == 0  # who knows whether it changed
    for column, value in {"role": PROMPT, "turn": 90, "guides_digest": "d", "reading": 2, "bit_depth": 12}.items():
        assert known(store, "a", **{column: value}).num_rows == 0
        store.write_unit(f"u-{column}", receipts("a", **{column: value}), vectors(1))
        assert known(store, "a", **{column: value})[column].to_pylist() == [value]


def test_a_run_that_ends_while_another_settles_hides_nothing(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, names = store_of(local), Folder.names
    filled = store.write_unit("u1", receipts("a"), vectors(1))

    def names_then_consolidation(folder: Folder, suffix: str) -> list[str]:
        found = names(folder, suffix)
        if folder.uri.endswith("pending"):
            monkeypatch.setattr(Folder, "names", names)
            store.consolidate("run-1", filled, ["u1"])
        return found

    monkeypatch.setattr(Folder, "names", names_then_consolidation)
    assert ids(known(store, "a")) == ["a"]
    assert files(local, "pending") == []


def test_an_image_whose_file_was_deleted_is_not_known(lake: Any) -> None:
    store = store_of(lake)
    filled = pa.concat_tables([store.write_unit(u, receipts(u), vectors(1)) for u in ("u1", "u2")])
    store.consolidate("run-1", filled, ["u1", "u2"])
    uris = filled["embedding_uri"].to_pylist()
    Folder(f"{lake.uri}/embeddings/{ENCODER}/units", lake.storage).delete(uris[0].rpartition("/")[2])
    assert ids(known(store, "u1", "u2")) == ["u2"]
    with pytest.raises(LakeError, match=r"u1-.*\.arrow is gone.*Run again"):
        store.read(uris[0], np.array([0]))
    again = store.write_unit("u1-again", receipts("u1"), vectors(1, seed=5))
    found = {row["image_id"]: row["embedding_uri"] for row in known(store, "u1", "u2").to_pylist()}
    assert found == {"u1": again["embedding_uri"][0].as_py(), "u2": uris[1]}


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_truncated_unit_is_named_with_the_remedy(local: Any, size: int) -> None:
    store = store_of(local)
    uri = store.write_unit("u1", receipts("a"), vectors(1))["embedding_uri"][0].as_py()
    path = unit_file(local, "u1")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LakeError, match=r"u1-.*\.arrow is damaged.*Delete it"):
        store.read(uri, np.array([0]))


@pytest.mark.parametrize("place", ["pending", "index", "parts"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "other columns"])
def test_damaged_receipts_are_named_with_the_remedy(local: Any, place: str, damage: str) -> None:
    store = store_of(local)
    filled = store.write_unit("u1", receipts(*"abcdef"), vectors(6))
    root = Path(local.uri) / "embeddings" / ENCODER
    if place == "parts":
        store.consolidate("u1", filled, ["u1"])
    elif place == "index":
        (root / "index").mkdir()
        (root / "pending" / "u1.parquet").rename(root / "index" / "u1.parquet")
    (path,) = (root / place).glob("*.receipts.parquet" if place == "parts" else "u1.parquet")
    data = path.read_bytes()
    if damage == "other columns":
        pq.write_table(pa.table({"image_id": ["a"]}), path)
    else:
        flipped = data[:60] + bytes([data[60] ^ 0xFF]) + data[61:]
        path.write_bytes({"empty": b"", "truncated": data[:-9], "flipped": flipped}[damage])
    with pytest.raises(LakeError, match=rf"{place}/u1.*\.parquet .*Delete it"):
        known(store, *"abcdef")


def test_rows_that_are_not_there_are_refused(local: Any) -> None:
    store = store_of(local)
    uri = store.write_unit("u1", receipts("a"), vectors(1))["embedding_uri"][0].as_py()
    for row in (-1, 1):
        with pytest.raises(LakeError, match=f"row {row} is asked for"):
            store.read(uri, np.array([row]))


def test_vectors_of_another_encoder_are_refused(local: Any) -> None:
    other = store_of(local, "other")
    foreign = other.write_unit("u1", receipts("a"), vectors(1))
    store = store_of(local)
    with pytest.raises(LakeError, match="does not belong to"):
        store.read(foreign["embedding_uri"][0].as_py(), np.array([0]))
    with pytest.raises(LakeError, match="outside of"):
        store.write_unit("u2", foreign, None)
    uri = store.write_unit("u1", receipts("a"), vectors(1))["embedding_uri"][0].as_py()
    shutil.copy(foreign["embedding_uri"][0].as_py(), uri)
    with pytest.raises(LakeError, match="written by encoder 'other'"):
        store.read(uri, np.array([0]))
    assert known(store_of(local, "third"), "a").num_rows == 0


def test_a_lake_can_be_moved(local: Any, tmp_path: Path) -> None:
    store_of(local).write_unit("u1", receipts("a"), vectors(1))
    shutil.move(local.uri, tmp_path / "moved")
    moved = EmbeddingStore(str(tmp_path / "moved"), Storage(), ENCODER)
    (row,) = known(moved, "a").to_pylist()
    shutil.move(tmp_path / "moved", tmp_path / "again")
    moved = EmbeddingStore(str(tmp_path / "again"), Storage(), ENCODER)
    (row,) = known(moved, "a").to_pylist()
    np.testing.assert_array_equal(moved.read(row["embedding_uri"], np.array([0])), vectors(1))


def test_the_index_of_an_earlier_version_is_taken_over(lake: Any) -> None:
    store, before = store_of(lake), Folder(f"{lake.uri}/embeddings/{ENCODER}/index", lake.storage)
    filled = [store.write_unit(unit, receipts(f"{unit}a", f"{unit}b"), vectors(2)) for unit in ("u1", "u2")]
    pending = Folder(f"{lake.uri}/embeddings/{ENCODER}/pending", lake.storage)
    for unit in ("u1", "u2"):
        old = pq.read_table(pending.open(f"{unit}.parquet")).drop_columns(
            ["role", "turn", "guides_digest", "reading", "bit_depth"]
        )
        folder = before if unit == "u1" else pending  # one run was finished, one was killed
        folder.write(f"{unit}.parquet", lambda sink, old=old: pq.write_table(old, sink))
    pending.delete("u1.parquet")
    assert known(store, "u1a", "u1b", "u2a", "u2b").equals(pa.concat_tables(filled))
    assert before.names("") == pending.names("") == []
    assert known(store, "u1a", "u1b", "u2a", "u2b").equals(pa.concat_tables(filled))


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 300])
def test_names_that_could_leave_the_folder_are_refused(local: Any, name: str) -> None:
    with pytest.raises(LakeError, match="unit_id must be"):
        store_of(local).write_unit(name, receipts("a"), vectors(1))
    with pytest.raises(LakeError, match="encoder_id must be"):
        EmbeddingStore(local.uri, local.storage, name)


def test_wrong_keys_are_refused_with_what_to_check(s3: Any, use_keys: Any) -> None:
    store = EmbeddingStore(s3.bucket(), s3.storage, ENCODER)
    uri = store.write_unit("u1", receipts("a"), vectors(1))["embedding_uri"][0].as_py()
    for key, secret in ((s3.access_key, "wrong"), ("nobody", "wrong")):
        use_keys(key, secret)
        with pytest.raises(LakeError, match=r"cannot list .*AWS_SECRET_ACCESS_KEY"):
            known(store, "a")
        with pytest.raises(LakeError, match=r"cannot read .*AWS_SECRET_ACCESS_KEY"):
            store.read(uri, np.array([0]))
    use_keys(s3.reader_key, s3.reader_secret)
    np.testing.assert_array_equal(store.read(uri, np.array([0])), vectors(1))
    with pytest.raises(LakeError, match=r"cannot write .*AWS_SECRET_ACCESS_KEY"):
        store.write_unit("u2", receipts("b"), vectors(1))


def test_the_store_travels_and_does_not_need_ray(local: Any) -> None:
    filled = store_of(local).write_unit("u1", receipts("a"), vectors(1))
    store = pickle.loads(pickle.dumps(store_of(local)))
    np.testing.assert_array_equal(store.read(filled["embedding_uri"][0].as_py(), np.array([0])), vectors(1))
    modules = "patchead.lake." + ", patchead.lake.".join(
        ("embeddings", "contents", "staging", "tables", "heatmaps", "query")
    )
    code = f"import sys, {modules}; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

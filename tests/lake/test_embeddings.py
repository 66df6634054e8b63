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
from patchead.lake.embeddings import EmbeddingStore
from patchead.schema import FAILED, OK, RECEIPTS, table
from patchead.storage import Storage

ENCODER = "vit-0123abcd"
P, D = 3, 4


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, P, D)).astype(np.float16)


def receipts(*images: str, **values: Any) -> pa.Table:
    known = {"etag": "e1", "size": 10, "width": 8, "height": 6, "status": OK}
    return table([{"image_id": i, "content_hash": f"hash of {i}"} | known | values for i in images], RECEIPTS)


def store_of(lake: Any, encoder_id: str = ENCODER) -> EmbeddingStore:
    return EmbeddingStore(lake.uri, lake.storage, encoder_id)


def files(lake: Any, kind: str) -> list[str]:
    return Folder(f"{lake.uri}/embeddings/{ENCODER}/{kind}", lake.storage).names("")


def unit_file(lake: Any, unit: str) -> Path:
    return Path(lake.uri) / "embeddings" / ENCODER / "units" / f"{unit}.arrow"


def ids(found: pa.Table) -> list[str]:
    return sorted(found["image_id"].to_pylist())


def test_vectors_come_back_in_the_order_asked_for(lake: Any) -> None:
    store, given_vectors = store_of(lake), vectors(4)
    filled = store.write_unit("u1", receipts("a", "b", "c", "d"), given_vectors)
    assert filled.schema.equals(RECEIPTS)
    assert filled["row"].to_pylist() == [0, 1, 2, 3]
    (uri,) = set(filled["embedding_uri"].to_pylist())
    assert uri == f"{lake.uri}/embeddings/{ENCODER}/units/u1.arrow"
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
    assert [uri and uri[-8:] for uri in filled["embedding_uri"].to_pylist()] == [
        None,
        "u2.arrow",
        "u1.arrow",
        "u2.arrow",
    ]
    assert ids(store.known()) == ["a", "b", "c", "copy of a"]
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
    assert store.known().num_rows == 1 + sum(kind != "failed" for kind in kinds)


def test_a_unit_without_vectors_leaves_receipts_only(lake: Any) -> None:
    store = store_of(lake)
    store.write_unit("u1", receipts("bad", status=FAILED, error="no image"), None)
    assert files(lake, "units") == []
    assert files(lake, "pending") == ["u1.parquet"]
    assert store.known().num_rows == 0


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
    assert files(local, "units") == ["u1.arrow"]
    assert store.known().num_rows == 0
    store.write_unit("u1", receipts("a"), vectors(1, seed=1))
    uri = store.known()["embedding_uri"][0].as_py()
    np.testing.assert_array_equal(store.read(uri, np.array([0])), vectors(1, seed=1))


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


def test_consolidation_keeps_what_is_known_and_clears_its_pending_files(lake: Any) -> None:
    store = store_of(lake)
    units = [store.write_unit(f"u{i}", receipts(f"{i}a", f"{i}b"), vectors(2, seed=i)) for i in range(3)]
    of_another_run = store.write_unit("other", receipts("x"), vectors(1))
    before = store.known()
    store.consolidate("run-1", pa.concat_tables(units))
    assert files(lake, "pending") == ["other.parquet"]
    assert files(lake, "index") == ["run-1.parquet"]
    assert store.known().sort_by("image_id").equals(before.sort_by("image_id"))
    store.consolidate("run-2", pa.concat_tables([*units, of_another_run]))
    assert files(lake, "pending") == []
    assert store.known().sort_by("image_id").equals(before.sort_by("image_id"))


def test_units_named_as_finished_are_not_read_again(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(local)
    filled = pa.concat_tables([store.write_unit(u, receipts(u), vectors(1)) for u in ("u1", "u2")])
    store.write_unit("u3", receipts("u3"), vectors(1))
    opened, open_file = [], Folder.open

    def watched(folder: Folder, name: str) -> pa.NativeFile:
        opened.append(name)
        return open_file(folder, name)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "open", watched)
        store.consolidate("run-1", filled, unit_ids=["u1", "u2", "never written"])
    assert opened == ["u3.parquet"]
    assert files(local, "pending") == ["u3.parquet"]
    assert ids(store.known()) == ["u1", "u2", "u3"]


def test_the_index_grows_with_new_images_only(local: Any) -> None:
    store = store_of(local)
    first = store.write_unit("u1", receipts("a", "b"), vectors(2))
    store.consolidate("run-1", first)
    second = store.write_unit("u2", receipts("c"), vectors(1))
    store.consolidate("run-2", pa.concat_tables([first, second]))
    store.consolidate("run-2", pa.concat_tables([first, second]))
    store.consolidate("run-1", first)
    index = Path(local.uri) / "embeddings" / ENCODER / "index"
    assert {path.name: ids(pq.read_table(path)) for path in index.iterdir()} == {
        "run-1.parquet": ["a", "b"],
        "run-2.parquet": ["c"],
    }


def test_images_are_known_by_id_etag_and_size(local: Any) -> None:
    store = store_of(local)
    store.write_unit("u1", receipts("a"), vectors(1))
    store.write_unit("u2", receipts("a"), vectors(1))
    store.write_unit("u3", receipts("a", etag="e2"), vectors(1))
    store.write_unit("u4", receipts("no etag", "no etag", etag=None), vectors(2))
    found = sorted((row["image_id"], row["etag"] or "") for row in store.known().to_pylist())
    assert found == [("a", "e1"), ("a", "e2"), ("no etag", "")]


def test_a_run_that_ends_while_another_reads_hides_nothing(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, names = store_of(local), Folder.names
    filled = store.write_unit("u1", receipts("a"), vectors(1))

    def names_then_consolidation(folder: Folder, suffix: str) -> list[str]:
        found = names(folder, suffix)
        if folder.uri.endswith("pending"):
            monkeypatch.setattr(Folder, "names", names)
            store.consolidate("run-1", filled)
        return found

    monkeypatch.setattr(Folder, "names", names_then_consolidation)
    assert ids(store.known()) == ["a"]
    assert files(local, "pending") == []


def test_an_image_whose_file_was_deleted_is_not_known(lake: Any) -> None:
    store = store_of(lake)
    filled = pa.concat_tables([store.write_unit(u, receipts(u), vectors(1)) for u in ("u1", "u2")])
    store.consolidate("run-1", filled)
    Folder(f"{lake.uri}/embeddings/{ENCODER}/units", lake.storage).delete("u1.arrow")
    uris = filled["embedding_uri"].to_pylist()
    assert store.exists([*uris, None, "elsewhere/u2.arrow"]) == [False, True, False, False]
    assert ids(store.known()) == ["u2"]
    with pytest.raises(LakeError, match=r"u1\.arrow is gone.*Run again"):
        store.read(uris[0], np.array([0]))
    again = store.write_unit("u1-again", receipts("u1"), vectors(1, seed=5))
    known = {row["image_id"]: row["embedding_uri"] for row in store.known().to_pylist()}
    assert known == {"u1": again["embedding_uri"][0].as_py(), "u2": uris[1]}


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_truncated_unit_is_named_with_the_remedy(local: Any, size: int) -> None:
    store = store_of(local)
    uri = store.write_unit("u1", receipts("a"), vectors(1))["embedding_uri"][0].as_py()
    path = unit_file(local, "u1")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LakeError, match=r"u1\.arrow is damaged.*Delete it"):
        store.read(uri, np.array([0]))


@pytest.mark.parametrize("kind", ["pending", "index"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "other columns"])
def test_damaged_receipts_are_named_with_the_remedy(local: Any, kind: str, damage: str) -> None:
    store = store_of(local)
    filled = store.write_unit("u1", receipts(*"abcdef"), vectors(6))
    if kind == "index":
        store.consolidate("u1", filled)
    path = Path(local.uri) / "embeddings" / ENCODER / kind / "u1.parquet"
    data = path.read_bytes()
    if damage == "other columns":
        pq.write_table(pa.table({"image_id": ["a"]}), path)
    else:
        flipped = data[:60] + bytes([data[60] ^ 0xFF]) + data[61:]
        path.write_bytes({"empty": b"", "truncated": data[:-9], "flipped": flipped}[damage])
    with pytest.raises(LakeError, match=rf"{kind}/u1\.parquet .*Delete it"):
        store.known()


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
    assert store_of(local, "third").known().num_rows == 0


def test_a_lake_can_be_moved(local: Any, tmp_path: Path) -> None:
    store_of(local).write_unit("u1", receipts("a"), vectors(1))
    shutil.move(local.uri, tmp_path / "moved")
    moved = EmbeddingStore(str(tmp_path / "moved"), Storage(), ENCODER)
    (row,) = moved.known().to_pylist()
    np.testing.assert_array_equal(moved.read(row["embedding_uri"], np.array([0])), vectors(1))


def test_receipts_of_an_earlier_version_are_known(local: Any) -> None:
    store = store_of(local)
    filled = store.write_unit("u1", receipts("a", "b"), vectors(2))
    path = Path(local.uri) / "embeddings" / ENCODER / "pending" / "u1.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["role", "turn", "guides_digest"]), path)
    assert store.known().equals(filled)


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
            store.known()
        with pytest.raises(LakeError, match=r"cannot read .*AWS_SECRET_ACCESS_KEY"):
            store.read(uri, np.array([0]))
    use_keys(s3.reader_key, s3.reader_secret)
    assert ids(store.known()) == ["a"]
    with pytest.raises(LakeError, match=r"cannot write .*AWS_SECRET_ACCESS_KEY"):
        store.write_unit("u2", receipts("b"), vectors(1))


def test_the_store_travels_and_does_not_need_ray(local: Any) -> None:
    filled = store_of(local).write_unit("u1", receipts("a"), vectors(1))
    store = pickle.loads(pickle.dumps(store_of(local)))
    np.testing.assert_array_equal(store.read(filled["embedding_uri"][0].as_py(), np.array([0])), vectors(1))
    modules = "patchead.lake." + ", patchead.lake.".join(("embeddings", "staging", "tables", "heatmaps", "query"))
    code = f"import sys, {modules}; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from patchead.errors import LakeError
from patchead.files import Folder
from patchead.lake.staging import RunFolder
from tests.helpers.s3_server import S3Server

GROUPS = ["night=2026-11-20/product=o'brien 50%/a", "night=2026-11-20/product=ü"]


def scores(n: int, seed: int = 0) -> SimpleNamespace:
    random = np.random.default_rng(seed)
    return SimpleNamespace(image_scores=random.random(n), n_references=random.integers(0, 9, n))


def aligned(n: int, seed: int = 0) -> np.ndarray | None:
    """Of every other group; the others were not asked for it."""
    return np.random.default_rng(seed).random(n) > 0.5 if seed % 2 else None


def patches(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 3, 5), dtype=np.float32)


def folder_of(lake: Any, run_id: str = "run-1") -> RunFolder:
    return RunFolder(lake.uri, lake.storage, run_id)


def stage(folder: RunFolder, group: str, digest: str, n: int = 2, seed: int = 0) -> None:
    found = scores(n, seed)
    folder.write_group(
        group,
        [f"image {i}" for i in range(n)],
        patches(n, seed),
        found.image_scores,
        found.n_references,
        aligned(n, seed),
        digest=digest,
    )


def test_a_group_comes_back_as_it_was_staged(lake: Any) -> None:
    folder = folder_of(lake)
    for seed, group in enumerate(GROUPS):
        stage(folder, group, "d1", n=4, seed=seed)
    for seed, group in enumerate(GROUPS):
        staged = pickle.loads(pickle.dumps(folder)).read_group(group)
        assert staged.image_ids == ["image 0", "image 1", "image 2", "image 3"]
        np.testing.assert_array_equal(staged.patch_scores, patches(4, seed))
        np.testing.assert_array_equal(staged.scores, scores(4, seed).image_scores)
        np.testing.assert_array_equal(staged.n_references, scores(4, seed).n_references)
        np.testing.assert_array_equal(staged.aligned, aligned(4, seed))
        assert (staged.patch_scores.dtype, staged.n_references.dtype) == (np.float32, np.int32)
        assert staged.patch_scores.flags.owndata


@pytest.mark.parametrize("n", [1, 200])
def test_the_scores_of_normal_images_are_staged_with_a_group(lake: Any, n: int) -> None:
    folder, null_scores = folder_of(lake), np.random.default_rng(3).random(3000)  # no metadata: heads are 64 kB
    values = (patches(n), np.zeros(n), np.ones(n, np.int32))
    folder.write_group("g", [str(i) for i in range(n)], *values, null_scores=null_scores, views_of=2, digest="d")
    staged = folder.read_group("g")
    assert staged.null_scores is not None
    np.testing.assert_array_equal(staged.null_scores, null_scores)
    assert (staged.views_of, staged.scores.shape, folder.scored_groups("d")) == (2, (n,), {"g"})
    folder.write_group("g", [str(i) for i in range(n)], *values, digest="d")
    assert (folder.read_group("g").null_scores, folder.read_group("g").views_of) == (None, 0)


def test_what_is_not_of_every_run_is_none_or_comes_back(lake: Any) -> None:
    folder, grids = folder_of(lake), patches(3)
    ids, scored = ["a", "b", "c"], scores(3, 0)
    folder.write_group("plain", ids, grids, scored.image_scores, scored.n_references, digest="d")
    plain = folder.read_group("plain")
    assert (plain.aligned, plain.repeat_group, plain.score_subspace, plain.repeats) == (None, None, None, ())
    found = {"repeat_group": 1, "images": 2, "x": 0.25, "y": 0.5, "width": 0.125, "height": 0.1}
    folder.write_group(
        "full",
        ids,
        grids,
        scored.image_scores,
        scored.n_references,
        repeat_group=np.array([1, 0, 1], np.int32),
        score_subspace=np.array([0.5, 0.25, 0.5]),
        repeats=[found],
        digest="d",
    )
    full = folder.read_group("full")
    assert full.repeat_group is not None and full.score_subspace is not None
    assert (full.repeat_group.tolist(), full.score_subspace.tolist()) == ([1, 0, 1], [0.5, 0.25, 0.5])
    assert full.repeats == (found,)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 300])
def test_patch_scores_of_some_images_are_those_of_the_group(lake: Any, n: int) -> None:
    folder = folder_of(lake)
    stage(folder, GROUPS[0], "d1", n=n)
    assert folder.read_group(GROUPS[0]).image_ids == [f"image {i}" for i in range(n)]
    np.testing.assert_array_equal(folder.read_group(GROUPS[0]).patch_scores, patches(n))
    for indices in ([0], [n - 1], [n - 1, 0, n // 2, 0], range(n), []):
        wanted = np.array(indices, int)
        found = folder.read_patch_scores(GROUPS[0], wanted)
        np.testing.assert_array_equal(found, patches(n)[wanted])
        assert (found.dtype, found.flags.owndata) == (np.float32, True)


def test_of_a_large_group_on_s3_only_the_batches_that_are_asked_for_are_fetched(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{s3.bucket()}/lake"
    folder, filesystem = RunFolder(uri, s3.storage, "run-1"), s3.storage.filesystem(uri)[0]
    grids = np.random.default_rng(0).random((640, 32, 32), dtype=np.float32)
    folder.write_group("g", [str(i) for i in range(640)], grids, np.zeros(640), np.ones(640), digest="d")
    fetched: list[int] = []
    fetch = filesystem.cat_file

    def counted(*args: Any, **options: Any) -> bytes:
        data = fetch(*args, **options)
        fetched.append(len(data))
        return data

    monkeypatch.setattr(filesystem, "cat_file", counted)
    wanted = np.array([130, 131, 190])  # all in the third of ten batches
    np.testing.assert_array_equal(folder.read_patch_scores("g", wanted), grids[wanted])
    assert 0.1 * grids.nbytes <= sum(fetched) < 0.11 * grids.nbytes
    assert len(fetched) <= 4, fetched


def test_an_object_that_goes_away_while_it_is_read_is_no_damage(s3: S3Server) -> None:
    folder = Folder(f"{s3.bucket()}/lake", s3.storage)
    folder.write("x.bin", lambda sink: sink.write(bytes(range(100))))
    with folder.open_parts("x.bin") as file:
        file.seek(90)
        assert (file.size(), file.read(20)) == (100, bytes(range(90, 100)))
        folder.delete("x.bin")
        file.seek(0)
        with pytest.raises(LakeError, match=r"cannot read s3://.*/x\.bin: it does not exist"):
            file.read(10)
    with pytest.raises(FileNotFoundError):
        folder.open_parts("x.bin")


def test_a_group_that_an_earlier_version_staged_in_one_batch(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(local)
    with monkeypatch.context() as patch:
        patch.setattr("patchead.lake.staging._IMAGES_PER_BATCH", 10**6)
        stage(folder, GROUPS[0], "d1", n=200)
    wanted = np.array([3, 130, 199])
    np.testing.assert_array_equal(folder.read_patch_scores(GROUPS[0], wanted), patches(200)[wanted])
    np.testing.assert_array_equal(folder.read_group(GROUPS[0]).patch_scores, patches(200))


def test_only_groups_staged_under_these_settings_are_finished(lake: Any) -> None:
    folder = folder_of(lake)
    assert folder.scored_groups("d1") == set()
    stage(folder, GROUPS[0], "d1")
    stage(folder, GROUPS[1], "d2")
    assert folder.scored_groups("d1") == {GROUPS[0]}
    stage(folder, GROUPS[1], "d1", seed=3)
    assert folder.scored_groups("d1") == set(GROUPS)
    assert folder.scored_groups("d2") == set()
    np.testing.assert_array_equal(folder.read_group(GROUPS[1]).patch_scores, patches(2, 3))
    assert folder_of(lake, "run-2").scored_groups("d1") == set()


def test_a_group_with_a_long_name_and_one_image(local: Any) -> None:
    folder, name = folder_of(local), "/".join(f"key{i}=value" for i in range(2_000))
    stage(folder, name, "d1", n=1)
    assert folder.scored_groups("d1") == {name}


def test_a_group_that_is_not_staged_is_an_error(lake: Any) -> None:
    for read in (folder_of(lake).read_group, lambda name: folder_of(lake).read_patch_scores(name, np.array([0]))):
        with pytest.raises(LakeError, match="is not staged"):
            read("night=2026-11-20/product=x")


@pytest.mark.parametrize("size", [0, 9, 60])
def test_a_damaged_group_is_named_with_the_remedy(local: Any, size: int) -> None:
    folder = folder_of(local)
    stage(folder, GROUPS[0], "d1")
    (path,) = (Path(local.uri) / "runs" / "run-1" / "groups").iterdir()
    path.write_bytes(path.read_bytes()[:size])
    for read in (
        lambda: folder.scored_groups("d1"),
        lambda: folder.read_group(GROUPS[0]),
        lambda: folder.read_patch_scores(GROUPS[0], np.array([0])),
    ):
        with pytest.raises(LakeError, match=rf"{path.name} is damaged.*Delete it"):
            read()


def test_the_run_record_is_kept(lake: Any) -> None:
    folder = folder_of(lake)
    for record in ({"run_id": "run-1", "state": "running"}, {"state": "ü", "seconds": {"embed": 1.5}, "error": None}):
        folder.write_json("run.json", record)
        filesystem, path = lake.storage.filesystem(folder.uri_of("run.json"))
        assert json.loads(filesystem.cat_file(path)) == record


def test_a_record_that_json_cannot_hold_is_refused(local: Any) -> None:
    folder = folder_of(local)
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json("run.json", {"score": float("nan")})


def test_a_run_id_cannot_leave_the_folder(local: Any) -> None:
    with pytest.raises(LakeError, match="run_id must be"):
        RunFolder(local.uri, local.storage, "../tables")

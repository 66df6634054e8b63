"""The scoring stage: the same scores however it is cut up and wherever it runs, blocks read once, actors that die."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from patchead.errors import PatcheadError
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.nightly import try_bounds
from patchead.nightly.group import Group, gather
from patchead.nightly.score import score_groups
from patchead.nightly.score_spec import ScoreSettings, ScoreSpec
from patchead.nightly.search_shown import search_shown
from patchead.plan.group_plan import Limits, make_plan
from patchead.plan.planned import PromptCounts
from patchead.plan.tasks import LOAD, PlannedTasks
from patchead.runtime.executor import Executor
from patchead.runtime.inline_executor import InlineExecutor
from patchead.runtime.pool import Pool
from patchead.runtime.ray_executor import RayExecutor
from patchead.schema import OK, RECEIPTS, table
from patchead.scoring.aggregate import image_scores
from patchead.scoring.leave_one_out import Aggregation, reference_panel, score_group
from patchead.scoring.position_level import above_position_level
from patchead.scoring.repeats import repeat_groups
from patchead.scoring.subspace import subspace_residuals
from patchead.search import window_group
from patchead.search.alike import night_sample
from patchead.search.score import score_group as score_windowed
from patchead.storage import Storage
from tests.helpers.groups import group as embeddings_of
from tests.helpers.repeats import shared_mark

N, GRID, D = 24, (7, 5), 16
MEMORY = 10**9
SETTINGS = ScoreSettings(aggregation=Aggregation(), precision="fp32", memory_bytes=MEMORY, grid=GRID, digest="digest")
LIMITS = Limits(memory_bytes=MEMORY, max_group_size=1000)
SCHEDULES = ("symmetric", "row_stationary", "panel")


@pytest.fixture(scope="module")
def on_ray(local_ray: None) -> Iterator[RayExecutor]:
    """Actors on the session's Ray that one test leaves to the next."""
    executor = RayExecutor(keep_actors=True)
    yield executor
    executor.close()


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> Executor:
    """What the parameter names."""
    return InlineExecutor() if request.param == "inline" else request.getfixturevalue("on_ray")


BOTH = pytest.mark.parametrize("executor", ["inline", "ray"], indirect=True)


def stored(lake: Path, embeddings: np.ndarray, name: str = "g") -> tuple[EmbeddingStore, Group]:
    """Embeddings (N, P, D) in files of at most 10 images, and the group that names them."""
    store, parts = EmbeddingStore(str(lake), Storage(), "encoder"), []
    for start in range(0, len(embeddings), 10):
        block = embeddings[start : start + 10]
        names = [f"{name}{start + i:04d}" for i in range(len(block))]
        rows = [{"image_id": n, "content_hash": n, "etag": "", "size": 1, "status": OK} for n in names]
        parts.append(store.write_unit(f"{name}{start}", table(rows, RECEIPTS), block))
    receipts = pa.concat_tables(parts)
    return store, Group.of(name, receipts.append_column("part_id", pa.nulls(len(embeddings), pa.string())))


class Stage:
    """The stage over some groups, ready to run."""

    def __init__(
        self,
        lake: Path,
        store: EmbeddingStore,
        groups: list[Group],
        executor: Executor,
        actors: int,
        grid: tuple[int, int] = GRID,
        settings: ScoreSettings = SETTINGS,
        **changes: Any,
    ) -> None:
        limits = dataclasses.replace(LIMITS, actors=actors, **changes)
        settings = dataclasses.replace(settings, max_references=limits.max_references, grid=grid)
        self.plan = make_plan([(g.group_id, len(g.image_ids)) for g in groups], grid[0] * grid[1], D, limits)
        self.folder, self.groups = RunFolder(str(lake), Storage(), "run"), {g.group_id: g for g in groups}
        # On Ray two blocks are loaded at a time, as each takes a process that has to start; four actors have more.
        loading = 0.5 if actors < 4 else 0.125
        self.pool = Pool(size=actors, num_cpus=0.25, num_gpus=0, threads=1, decode_cpus=loading)
        self.executor, self.counter = executor, executor.call_counter()
        self.spec = ScoreSpec(store, self.folder, settings, self.pool, self.counter)

    def run(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The stage's summary and the patch scores (N, h, w) of every group."""
        seen: list[int] = []
        was_scored = bool(self.folder.scored_groups(self.spec.settings.digest))
        group_of = self.groups.__getitem__
        summary, failed = score_groups(self.executor, self.plan, group_of, self.spec, self.pool, advance=seen.append)
        self.failed = failed
        if not was_scored and not failed:
            planned = [task.name for task in PlannedTasks(self.plan) if task.kind != LOAD]
            assert sorted(self.counter.tasks()) == sorted(planned)
        done = self.groups.keys() - failed.keys()
        assert sum(seen) == sum(len(self.groups[name].image_ids) for name in done)
        return summary, {name: self.folder.read_group(name).patch_scores for name in done}


@pytest.mark.parametrize(
    ("executor", "actors", "schedule"),
    [
        *(("inline", actors, schedule) for actors in (1, 2, 4) for schedule in SCHEDULES),
        # What Ray adds is below: groups in blocks and whole ones together, and a killed actor.
        *(pytest.param("ray", n, schedule, marks=pytest.mark.slow) for n in (1, 2, 4) for schedule in SCHEDULES),
    ],
    indirect=["executor"],
)
def test_scores_are_the_same_for_any_number_of_actors_and_each_block_is_read_once(
    tmp_path: Path, executor: Executor, actors: int, schedule: str
) -> None:
    embeddings = embeddings_of(N, 35, D)
    store, group = stored(tmp_path, embeddings)
    changes = {"max_references": 9} if schedule == "panel" else {"schedule": schedule}
    panel = reference_panel(group.image_ids, 9, 0) if schedule == "panel" else None
    expected = score_group(
        embeddings, np.arange(N), aggregation=Aggregation(), memory_bytes=MEMORY, panel=panel
    ).patch_scores
    summary, found = Stage(tmp_path, store, [group], executor, actors, **changes).run()
    np.testing.assert_allclose(found["g"].reshape(N, -1), expected, atol=1e-6)
    assert summary["reads_of_a_block_per_node"] == 1
    assert summary["bytes_read"] == embeddings.nbytes
    assert summary["tasks_redone"] == 0
    assert len(summary["actor_seconds"]) == (actors if executor.name == "ray" else 1)
    assert (summary["tasks_done"] > 1) == (actors > 1)


@pytest.mark.parametrize(
    ("executor", "actors"),
    [("inline", 1), ("inline", 4), pytest.param("ray", 2, marks=pytest.mark.slow)],
    indirect=["executor"],
)
def test_bounded_gives_the_image_scores_of_the_full_search(tmp_path: Path, executor: Executor, actors: int) -> None:
    rng, n = np.random.default_rng(0), 40
    z = rng.standard_normal((1, 100, 64)) + 0.2 * rng.standard_normal((n, 100, 64))
    z[7, 30:33] = rng.standard_normal((3, 64))
    embeddings = (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)
    store, group = stored(tmp_path, embeddings)
    expected = score_group(embeddings, np.arange(n), aggregation=Aggregation(), memory_bytes=MEMORY)
    stage = Stage(tmp_path, store, [group], executor, actors, grid=(10, 10), schedule="bounded", shown=2)
    summary, _ = stage.run()
    staged = stage.folder.read_group("g")
    np.testing.assert_allclose(staged.scores, expected.image_scores, rtol=0, atol=1e-6)
    assert (staged.patch_scores.reshape(n, -1) - expected.patch_scores).min() > -1e-6
    assert summary["reads_of_a_block_per_node"] == 1
    assert (summary["tasks_done"] > 1) == (actors > 1)
    assert staged.search["generator"] == "window"
    assert staged.search["multiplications"] < 0.5
    assert staged.exact is not None
    assert staged.exact.mean() < 0.5
    shown = np.array([2, 3, 5, 7, 11, 13, 17, 19, 39])
    search_shown(executor, stage.plan, stage.groups.__getitem__, lambda: stage.spec, {"g": shown}, never)
    settled = stage.folder.read_group("g")
    assert settled.exact is not None
    np.testing.assert_array_equal(settled.exact, staged.exact | np.isin(np.arange(n), shown))
    np.testing.assert_allclose(settled.patch_scores.reshape(n, -1)[shown], expected.patch_scores[shown], atol=1e-6)
    others = np.setdiff1d(np.arange(n), shown)
    np.testing.assert_array_equal(settled.patch_scores[others], staged.patch_scores[others])
    np.testing.assert_array_equal(settled.scores, staged.scores)
    assert stage.folder.scored_groups(stage.spec.settings.digest) == {"g"}
    for file in group.files:
        Path(file).unlink()
    told = dict[str, PatcheadError]()
    search_shown(executor, stage.plan, stage.groups.__getitem__, lambda: stage.spec, {"g": others}, told.setdefault)
    assert "is gone" in str(told["g"])
    np.testing.assert_array_equal(stage.folder.read_group("g").patch_scores, settled.patch_scores)


@pytest.mark.parametrize("asked", [{"schedule": "bounded"}, {"window": "auto"}])
@pytest.mark.parametrize("actors", [1, 3])
@pytest.mark.parametrize(
    ("n", "top", "why"),
    [(60, None, "most images are shown"), (32, 20, "most images are shown"), (60, 19, "bounds cost more")],
)
def test_a_night_that_is_shown_is_searched_once(
    tmp_path: Path,
    asked: dict[str, Any],
    actors: int,
    n: int,
    top: int | None,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bounds that are searched again for the heatmaps cost up to 2.1 times the full search of this group."""
    for module in (try_bounds, window_group):
        monkeypatch.setattr(module, "ALIKE", 2)  # nothing lies so much alike: it is no window's
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1, 100, 64)) + 0.2 * rng.standard_normal((n, 100, 64))
    embeddings = (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)
    store, group = stored(tmp_path, embeddings)
    rule = Aggregation(window=asked.get("window"))
    settings, executor = dataclasses.replace(SETTINGS, grid=(10, 10), aggregation=rule), InlineExecutor()
    stage = Stage(tmp_path, store, [group], executor, actors, (10, 10), settings, **asked, shown=top)
    limits = dataclasses.replace(LIMITS, actors=actors, **asked, shown=top)
    make = partial(make_plan, [("g", n)], 100, D)
    stage.plan = try_bounds.with_bounds(
        stage.plan, make, limits, tables([group]), store, settings, executor.run_tasks, device="cpu"
    )
    _, found = stage.run()
    staged = stage.folder.read_group("g")
    assert staged.search["generator"] == f"full: {why}"
    assert staged.exact is None
    measured = 0.35 if "window" in asked else 0.05  # whether it lies alike: 45 pairs of images; and a sample
    assert 0.5 <= staged.search["multiplications"] <= 0.5 + measured
    full = Stage(tmp_path / "full", store, [group], executor, actors, (10, 10), schedule="symmetric")
    np.testing.assert_array_equal(full.run()[1]["g"], found["g"])


def tables(groups: list[Group]) -> dict[str, pa.Table]:
    """The groups' rows as the night has them."""
    return {
        group.group_id: pa.table(
            {
                "image_id": group.image_ids,
                "content_hash": group.image_ids,
                "part_id": pa.nulls(len(group.image_ids), pa.string()),
                "embedding_uri": [group.files[file] for file in group.uris],
                "row": group.rows,
            }
        )
        for group in groups
    }


def never(group_id: str, error: PatcheadError) -> None:
    raise error


@pytest.mark.parametrize(("executor", "actors"), [("inline", 1), ("inline", 3)], indirect=["executor"])
def test_the_window_rule_is_the_same_for_any_number_of_actors(tmp_path: Path, executor: Executor, actors: int) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1, 35, 32)) + 0.2 * rng.standard_normal((N, 35, 32))
    embeddings = (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)
    store, group = stored(tmp_path, embeddings)
    rule = Aggregation(window=1)
    expected = score_windowed(embeddings, np.arange(N), aggregation=rule, memory_bytes=MEMORY, grid=GRID)
    stage = Stage(tmp_path, store, [group], executor, actors, window=1)
    stage.spec = dataclasses.replace(stage.spec, settings=dataclasses.replace(stage.spec.settings, aggregation=rule))
    summary, found = stage.run()
    np.testing.assert_array_equal(found["g"].reshape(N, -1), expected.patch_scores)
    assert (summary["tasks_done"] > 1) == (actors > 1)
    assert stage.plan.flops == 2 * N * N * 35 * 9 * D


@pytest.mark.parametrize(("executor", "actors"), [("inline", 1), ("inline", 3)], indirect=["executor"])
def test_all_blocks_of_a_night_tell_alike_whether_it_lies_as_its_prompt_does(
    tmp_path: Path, executor: Executor, actors: int
) -> None:
    rng, n = np.random.default_rng(0), N - 1
    z = rng.standard_normal((1, 35, D)) + 0.2 * rng.standard_normal((N, 35, D))
    z[:8] = rng.permuted(z[:8], axis=1)  # a third of the night lies otherwise: a block of its own among three
    embeddings = (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)
    store, group = stored(tmp_path, embeddings)
    group = dataclasses.replace(group, queries=n)  # and one prompt
    rule = Aggregation(window="auto").few_shot()
    expected = score_windowed(
        embeddings, np.arange(N), aggregation=rule, memory_bytes=MEMORY, grid=GRID, queries=n, panel=np.array([n]),
        measured=night_sample(n),
    )  # fmt: skip
    stage = Stage(tmp_path, store, [group], executor, actors, window="auto")
    spec = dataclasses.replace(stage.spec, settings=dataclasses.replace(stage.spec.settings, aggregation=rule))
    limits = dataclasses.replace(LIMITS, actors=actors, window="auto")
    plan = make_plan([("g", n)], 35, D, limits, {"g": PromptCounts(1, 0)})
    assert (plan.groups[0].matching_tasks > 1) == (actors > 1)
    score_groups(executor, plan, stage.groups.__getitem__, spec, stage.pool, advance=lambda _: None)
    staged = stage.folder.read_group("g")
    assert staged.search["generator"] == expected.search["generator"] == "window rule r=1"
    assert staged.search["alike"] == pytest.approx(expected.search["alike"])
    np.testing.assert_array_equal(staged.patch_scores.reshape(n, -1), expected.patch_scores[:n])


@pytest.mark.parametrize("actors", [1, 3])
def test_views_of_a_prompt_are_searched_fully_though_the_window_is_auto(tmp_path: Path, actors: int) -> None:
    rng, n = np.random.default_rng(0), N - 1
    z = rng.standard_normal((1, 35, D)) + 0.2 * rng.standard_normal((N, 35, D))
    embeddings = (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float16)
    store, group = stored(tmp_path, embeddings)
    group = dataclasses.replace(group, queries=n - 8, nulls=8, views_of=1)  # 15 of the night, 8 views, one prompt
    rule = Aggregation(window="auto").few_shot()
    expected = score_group(
        embeddings, np.arange(N), aggregation=dataclasses.replace(rule, window=None), memory_bytes=MEMORY, queries=n,
        panel=np.array([n]),
    )  # fmt: skip
    stage = Stage(tmp_path, store, [group], InlineExecutor(), actors, window="auto")
    spec = dataclasses.replace(stage.spec, settings=dataclasses.replace(stage.spec.settings, aggregation=rule))
    limits = dataclasses.replace(LIMITS, actors=actors, window="auto", shown=2)
    plan = make_plan([("g", n - 8)], 35, D, limits, {"g": PromptCounts(1, 8, 1)})
    assert (plan.groups[0].matching_tasks > 1) == (actors > 1)
    score_groups(stage.executor, plan, stage.groups.__getitem__, spec, stage.pool, advance=lambda _: None)
    staged = stage.folder.read_group("g")
    assert staged.search["generator"] == "full: fewer than 3 prompts that differ"
    assert (staged.search["searched"], staged.search["multiplications"]) == (1, 1)
    np.testing.assert_array_equal(staged.patch_scores.reshape(n - 8, -1), expected.patch_scores[: n - 8])


@pytest.mark.parametrize(
    ("executor", "actors", "schedule"),
    [
        *(("inline", 4, schedule) for schedule in SCHEDULES),
        *(pytest.param("inline", 1, schedule, marks=pytest.mark.slow) for schedule in SCHEDULES),
        pytest.param("ray", 2, "symmetric", marks=pytest.mark.slow),
    ],
    indirect=["executor"],
)
def test_repeats_are_found_and_scored_again_alike_by_any_number_of_actors(
    tmp_path: Path, executor: Executor, actors: int, schedule: str
) -> None:
    embeddings, rule = shared_mark(40, 35, D, [2, 9, 17, 25, 30]), Aggregation(fraction=0.1, repeats=True)
    store, group = stored(tmp_path, embeddings)
    changes = {"max_references": 34} if schedule == "panel" else {"schedule": schedule}
    panel = reference_panel(group.image_ids, 34, 0) if schedule == "panel" else None
    expected = score_group(embeddings, np.arange(40), aggregation=rule, memory_bytes=MEMORY, panel=panel, grid=GRID)
    assert expected.repeats
    settings = dataclasses.replace(SETTINGS, aggregation=rule, subspace=True)
    stage = Stage(tmp_path, store, [group], executor, actors, settings=settings, repeats=True, **changes)
    _, found = stage.run()
    staged = stage.folder.read_group("g")
    np.testing.assert_allclose(found["g"].reshape(40, -1), expected.patch_scores, atol=1e-6)
    np.testing.assert_array_equal(staged.repeat_group, repeat_groups(expected.repeats, 40))
    np.testing.assert_array_equal(staged.n_references, expected.n_references)
    assert list(staged.repeats) == [repeat.facts(number, GRID) for number, repeat in enumerate(expected.repeats, 1)]
    residuals = np.concatenate(list(subspace_residuals(lambda: [embeddings], D)))
    np.testing.assert_allclose(staged.score_subspace, image_scores(residuals, 0.01), atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("repeats", [False, True])
def test_the_position_level_is_that_of_the_whole_group(tmp_path: Path, schedule: str, repeats: bool) -> None:
    embeddings = shared_mark(40, 35, D, [2, 9, 17, 25, 30])
    rule = Aggregation(fraction=0.1, repeats=repeats, position_level=True)
    store, group = stored(tmp_path, embeddings)
    changes = {"max_references": 34} if schedule == "panel" else {"schedule": schedule}
    panel = reference_panel(group.image_ids, 34, 0) if schedule == "panel" else None
    raw = score_group(embeddings, np.arange(40), aggregation=rule, memory_bytes=MEMORY, panel=panel, grid=GRID)
    settings = dataclasses.replace(SETTINGS, aggregation=rule, subspace=True)
    stage = Stage(tmp_path, store, [group], InlineExecutor(), 4, settings=settings, repeats=repeats, **changes)
    _, found = stage.run()
    expected = above_position_level(raw.patch_scores)
    np.testing.assert_allclose(found["g"].reshape(40, -1), expected, atol=1e-6)
    staged = stage.folder.read_group("g")
    np.testing.assert_allclose(staged.scores, image_scores(expected, 0.01), atol=1e-6)
    residuals = np.concatenate(list(subspace_residuals(lambda: [embeddings], D)))  # another score, as it is
    np.testing.assert_allclose(staged.score_subspace, image_scores(residuals, 0.01), atol=1e-6)


@BOTH
def test_groups_in_blocks_and_whole_ones_go_through_together(tmp_path: Path, executor: Executor) -> None:
    sizes, groups, expected = {"large": 24, "middle": 14, "small": 5}, [], {}
    for name, n in sizes.items():
        embeddings = embeddings_of(n, 35, D, seed=n)
        store, group = stored(tmp_path, embeddings, name)
        groups.append(group)
        expected[name] = score_group(
            embeddings, np.arange(n), aggregation=Aggregation(), memory_bytes=MEMORY
        ).patch_scores
    summary, found = Stage(tmp_path, store, groups, executor, 2).run()
    for name, n in sizes.items():
        np.testing.assert_allclose(found[name].reshape(n, -1), expected[name], atol=1e-6)
    assert summary["reads_of_a_block_per_node"] == 1
    again, _ = Stage(tmp_path, store, groups, executor, 2).run()
    assert again["tasks_done"] == 0  # all staged before


@BOTH
def test_a_group_that_cannot_be_scored_fails_alone_in_a_pack_of_small_ones(tmp_path: Path, executor: Executor) -> None:
    groups = []
    for number in range(30):
        embeddings = embeddings_of(5, 35, D, seed=number)
        if number == 3:
            embeddings[2, 3] = 0
        store, group = stored(tmp_path, embeddings, f"g{number:02d}")
        groups.append(group)
    stage = Stage(tmp_path, store, groups, executor, 2)
    packed = [task.parts for task in PlannedTasks(stage.plan) if task.parts]
    assert any(part.group_id == "g03" for parts in packed for part in parts)
    _, found = stage.run()
    assert [*stage.failed] == ["g03"]
    assert len(found) == 29
    for name in ("g02", "g04", "g29"):
        embeddings = embeddings_of(5, 35, D, seed=int(name[1:]))
        expected = score_group(embeddings, np.arange(5), aggregation=Aggregation(), memory_bytes=MEMORY).patch_scores
        np.testing.assert_allclose(found[name].reshape(5, -1), expected, atol=1e-6)


def test_an_actor_killed_mid_group_changes_nothing_and_what_is_redone_is_counted(
    tmp_path: Path, on_ray: RayExecutor
) -> None:
    n, grid = 32, (40, 40)  # a tile takes a tenth of a second and more
    embeddings = embeddings_of(n, grid[0] * grid[1], D)
    store, group = stored(tmp_path, embeddings)
    stage, ended = Stage(tmp_path, store, [group], on_ray, 2, grid), threading.Event()
    killer = threading.Thread(target=kill_until_something_is_redone, args=(stage, ended))
    killer.start()
    try:
        summary, found = stage.run()
    finally:
        ended.set()
        killer.join()
    assert summary["tasks_redone"] >= 1
    expected = score_group(embeddings, np.arange(n), aggregation=Aggregation(), memory_bytes=MEMORY).patch_scores
    np.testing.assert_allclose(found["g"].reshape(n, -1), expected, atol=1e-6)


def kill_until_something_is_redone(stage: Stage, ended: threading.Event) -> None:
    """Kill an actor amid a tile; once more if its call had not begun yet, or had ended, when it was killed."""
    seen: dict[int, float] = {}
    while not ended.is_set() and not stage.counter.summary()["tasks_redone"]:
        busy = {pid: _cpu_seconds(pid) for pid in _own_pids("ray::ScoreActor.tile")}
        seen = {pid: seen.get(pid, seconds) for pid, seconds in busy.items()}
        # Both have used the processor since they were seen first; a lost one is back before another one is killed.
        worked = [pid for pid in busy if busy[pid] - seen[pid] > 0.02]
        if len(worked) == stage.pool.size:
            os.kill(worked[0], signal.SIGKILL)
        time.sleep(0.02)


@pytest.mark.parametrize(("executor", "actors"), [("inline", 1), ("inline", 2), ("ray", 2)], indirect=["executor"])
def test_a_vector_without_direction_fails_its_group_with_its_text(
    tmp_path: Path, executor: Executor, actors: int
) -> None:
    embeddings = embeddings_of(N, 35, D)
    embeddings[20, 3] = 0
    store, group = stored(tmp_path, embeddings)
    stage = Stage(tmp_path, store, [group], executor, actors)
    stage.run()
    assert re.search(r"patch 3 of image \d+ is zero, infinite or NaN", stage.failed["g"])


def test_gather_finds_rows_in_several_blocks_and_misses_none_silently() -> None:
    columns = [np.array([1, 4]), np.array([0, 7])]
    blocks = [np.array([[[1.0]], [[4.0]]]), np.array([[[0.0]], [[7.0]]])]
    np.testing.assert_array_equal(gather(np.array([7, 1, 0]), columns, blocks).ravel(), [7, 1, 0])
    with pytest.raises(ValueError, match="image 3 is in none"):
        gather(np.array([1, 3]), columns, blocks)


def _own_pids(title: str) -> list[int]:
    """Workers of this process's own Ray that are in the call ``title`` just now."""
    parents = {int(entry.name): int((_stat(entry) or ["", "0"])[1]) for entry in Path("/proc").glob("[0-9]*")}
    ours, found = {os.getpid()}, set[int]()
    while ours:
        ours = {pid for pid, parent in parents.items() if parent in ours}
        found |= ours
    return [pid for pid in found if _command(Path(f"/proc/{pid}")).startswith(title.encode())]


def _command(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""  # it has ended meanwhile


def _stat(entry: Path) -> list[str]:
    """What /proc/PID/stat holds after the name: the state, the parent …; nothing where the process has ended."""
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_seconds(pid: int) -> float:
    """User time that a process has taken; 0 where it has ended."""
    return int((_stat(Path(f"/proc/{pid}")) or ["0"] * 12)[11]) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("executor", "schedule"),
    [
        ("inline", "whole"),
        ("inline", "blocks"),
        ("ray", "blocks"),
        pytest.param("ray", "whole", marks=pytest.mark.slow),
    ],
    indirect=["executor"],
)
def test_a_group_that_cannot_be_scored_stops_no_other(tmp_path: Path, executor: Executor, schedule: str) -> None:
    """The largest comes first, and its embeddings are gone."""
    sizes = {"bad": N, "good": N - 4, "also": 8}
    groups = []
    for number, (name, size) in enumerate(sizes.items()):
        store, group = stored(tmp_path, embeddings_of(size, 35, D, seed=number), name)
        groups.append(group)
    for file in (tmp_path / "embeddings").rglob("bad10*.arrow"):
        file.unlink()
    actors = 1 if schedule == "whole" else 2
    stage = Stage(
        tmp_path, store, groups, executor, actors, **({} if schedule == "whole" else {"schedule": "symmetric"})
    )
    told: list[str] = []
    executor.tell = told.append
    with pytest.raises(PatcheadError, match="bad10"):
        stage.run()
    assert stage.folder.scored_groups(stage.spec.settings.digest) == {"good", "also"}
    assert told == ["1 of 3 groups need damaged files; the others are scored and kept"]

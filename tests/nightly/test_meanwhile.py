"""Scoring meanwhile: whole groups as they land, under the digests of the score stage, which does the rest."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from threading import enumerate as threads

import numpy as np
import pyarrow as pa
import pytest

from patchead.arrow_columns import by_group
from patchead.errors import StoppedError
from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.staging import RunFolder
from patchead.nightly.group import Group, compared_digest
from patchead.nightly.landed import with_receipts
from patchead.nightly.meanwhile import Meanwhile
from patchead.nightly.score import score_groups
from patchead.nightly.score_spec import ScoreSettings, ScoreSpec
from patchead.plan.group_plan import Limits, make_plan
from patchead.plan.tasks import LOAD, PlannedTasks
from patchead.runtime.inline_executor import InlineExecutor
from patchead.runtime.pool import Pool
from patchead.schema import MANIFEST, OK, RECEIPTS, completed, table
from patchead.scoring.leave_one_out import Aggregation, score_group
from patchead.storage import Storage
from tests.helpers.groups import group as embeddings_of

SIZES = {"bad": 9, "few": 3, "large": 60, "late": 7, "one": 8, "two": 6}
P, D = 35, 16
SETTINGS = ScoreSettings(
    aggregation=Aggregation(), precision="fp32", memory_bytes=10**9, grid=(7, 5), digest="settings"
)
LIMITS = Limits(memory_bytes=10**9, max_group_size=1000, actors=2)
POOL = Pool(size=1, num_cpus=1, num_gpus=0, threads=1, decode_cpus=0.25)


class Night:
    """Images whose embeddings are in a lake; of one group a vector has no direction."""

    def __init__(self, lake: Path) -> None:
        self.store, self.folder = (
            EmbeddingStore(str(lake), Storage(), "encoder"),
            RunFolder(str(lake), Storage(), "run"),
        )
        self.receipts, self.embeddings, rows = dict[str, pa.Table](), dict[str, np.ndarray](), []
        for seed, (name, size) in enumerate(SIZES.items()):
            self.embeddings[name] = embeddings_of(size, P, D, seed=seed)
            if name == "bad":
                self.embeddings[name][4, 3] = 0
            ids = [f"{name}{i:04d}" for i in range(size)]
            found = [{"image_id": i, "content_hash": i, "etag": "", "size": 1, "status": OK} for i in ids]
            self.receipts[name] = self.store.write_unit(name, table(found, RECEIPTS), self.embeddings[name])
            rows += [{"image_id": i, "etag": "", "size": 1, "group_id": name} for i in ids]
        self.manifest = completed(pa.Table.from_pylist(rows), MANIFEST)
        self.plan = make_plan([*SIZES.items()], P, D, LIMITS)
        self.executor = InlineExecutor()
        self.spec = ScoreSpec(self.store, self.folder, SETTINGS, POOL, self.executor.call_counter())

    def meanwhile(self) -> Meanwhile:
        return Meanwhile(self.executor, self.spec, POOL, self.plan, replace(LIMITS, actors=1), lambda name: None)

    def score_the_rest(self) -> tuple[list[str], dict[str, str]]:
        """The score stage: what it was told of as finished, and what cannot be scored."""
        everything = pa.concat_tables(self.receipts[name] for name in SIZES)
        groups = {
            name: rows.append_column("same_as", rows["content_hash"])
            for name, rows in by_group(with_receipts(self.manifest, everything)).items()
        }
        digests = {name: SETTINGS.digest_of(compared_digest([rows], [])) for name, rows in groups.items()}
        done = score_groups(
            self.executor,
            self.plan,
            lambda name: Group.of(name, groups[name]),
            self.spec,
            POOL,
            advance=lambda count: None,
            digests=digests,
        )
        return self.spec.counter.tasks(), done.failed


def wait_for(meanwhile: Meanwhile, names: list[str]) -> None:
    while not set(names) <= set(meanwhile.scored):
        assert not meanwhile.work.done(), meanwhile.work.exception()
        time.sleep(0.01)


def test_groups_are_scored_as_they_land_and_the_stage_does_the_rest(tmp_path: Path) -> None:
    night = Night(tmp_path)
    assert [group.group_id for group in night.plan.scored if not group.whole] == ["large"]
    meanwhile = night.meanwhile()
    with meanwhile.scoring(night.manifest) as landed:
        units = pa.table({"group_id": ["two", "large", "few", "one", "bad", "one"], "number": range(6)})
        assert landed.in_order(units)["number"].to_pylist() == [4, 3, 5, 0, 1, 2]  # the largest one actor holds first
        landed.add(pa.concat_tables([night.receipts["one"].slice(0, 3), night.receipts["late"].slice(0, 6)]))
        landed.add(night.receipts["bad"])
        landed.add(night.receipts["large"])
        landed.add(night.receipts["one"].slice(3))
        wait_for(meanwhile, ["one"])
        landed.add(night.receipts["two"])
        wait_for(meanwhile, ["two"])
    assert meanwhile.scored == ["one", "two"]  # not: one that fails, one that is not whole, one in tiles
    assert meanwhile.seconds > 0
    assert night.folder.digests().keys() == {"one", "two"}
    before = [*night.spec.counter.tasks()]
    assert before == ["bad whole", "one whole", "two whole"]

    tasks, failed = night.score_the_rest()
    assert [*failed] == ["bad"]
    assert night.folder.digests().keys() == SIZES.keys() - {"bad", "few"}
    tiles = [task.name for task in PlannedTasks(night.plan) if task.group_id == "large" and task.kind != LOAD]
    # None is done twice; the one that fails is tried again, in a call with the one that came late.
    assert sorted(tasks[3:]) == sorted([*tiles, "bad pack 2"])
    for name in ("one", "two", "late", "large"):
        n = SIZES[name]
        wanted = score_group(night.embeddings[name], np.arange(n), aggregation=Aggregation(), memory_bytes=10**9)
        found = night.folder.read_group(name).patch_scores
        np.testing.assert_allclose(found.reshape(n, -1), wanted.patch_scores, atol=1e-6)


def test_another_try_leaves_staged_groups_to_the_stage_and_an_error_ends_both(tmp_path: Path) -> None:
    night = Night(tmp_path)
    first = night.meanwhile()
    with first.scoring(night.manifest) as landed:
        landed.add(night.receipts["two"])
        wait_for(first, ["two"])
    again = night.meanwhile()
    with pytest.raises(StoppedError, match="asked to end"), again.scoring(night.manifest) as landed:
        landed.add(night.receipts["two"])
        landed.add(night.receipts["one"])
        wait_for(again, ["one"])
        raise StoppedError("asked to end")
    assert again.scored == ["one"]
    assert not any(thread.name.startswith("patchead-meanwhile") for thread in threads())

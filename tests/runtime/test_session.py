"""Pools from the cluster's resources, and worker errors as themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import ray

from patchead.errors import SettingsError, WeightsError, WorkerError
from patchead.runtime import session
from patchead.runtime.pool import PoolRequest
from patchead.runtime.session import pools, pools_together, require_shared_folders
from patchead.runtime.worker_errors import worker_errors


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch):
    def pretend(*resources: dict[str, float]) -> None:
        found = [{"Alive": True, "Resources": node} for node in resources] + [
            {"Alive": False, "Resources": {"CPU": 64}}
        ]
        monkeypatch.setattr(session.ray, "nodes", lambda: found)

    return pretend


def test_a_cpu_cluster_has_one_actor_per_share_of_a_node(nodes) -> None:
    nodes({"CPU": 8}, {"CPU": 4})
    embed, score = pools(PoolRequest())
    assert (embed.size, embed.threads, embed.device) == (3, 4, "cpu")
    assert embed.size * embed.num_cpus + embed.size * embed.decode_cpus <= 12
    assert score == embed


def test_a_small_machine_has_one_actor(nodes) -> None:
    nodes({"CPU": 2})
    assert [(pool.size, pool.threads) for pool in pools(PoolRequest())] == [(1, 2)] * 2


def test_a_gpu_cluster_has_one_actor_per_gpu_and_its_head_none(nodes) -> None:
    nodes({"CPU": 8}, {"CPU": 16, "GPU": 4}, {"CPU": 16, "GPU": 4})
    embed, _ = pools(PoolRequest())
    assert (embed.size, embed.num_gpus, embed.device) == (8, 1.0, "cuda")


def test_encoders_share_a_gpu_where_cores_decode_for_them(nodes) -> None:
    for cpus, share in ((8, 2), (12, 3), (16, 4), (64, 4)):
        nodes({"CPU": 4}, {"CPU": cpus, "GPU": 1}, {"CPU": 2 * cpus, "GPU": 2})
        (embed, score), (beside, meanwhile) = pools(PoolRequest()), pools_together(PoolRequest())
        assert (embed.size, score.size, score.num_gpus) == (3 * share, 3, 1.0)
        assert 1 - share / 10_000 <= share * embed.num_gpus <= 1, "all of them fit, and one more does not"
        assert (beside.size, meanwhile.size) == (3 * share, 3)
        assert share * beside.num_gpus + meanwhile.num_gpus <= 1
    one, _ = pools(PoolRequest(gpus_per_actor=1))
    assert (one.size, one.num_gpus) == (3, 1.0)
    assert pools(PoolRequest(embed_actors=3))[0].size == 3


def test_gpus_without_a_cpu_each_get_no_actor(nodes) -> None:
    nodes({"CPU": 2, "GPU": 4}, {"GPU": 4})
    embed, _ = pools(PoolRequest())
    assert embed.size == 2
    assert embed.size * (embed.num_cpus + embed.decode_cpus) <= 2


def test_a_small_head_does_not_cut_the_actors_of_large_workers(nodes) -> None:
    nodes({"CPU": 1}, {"CPU": 64})
    embed, _ = pools(PoolRequest())
    assert (embed.size, embed.threads) == (16, 4)


def test_pools_that_work_together_share_gpus_or_part_cpus(nodes) -> None:
    nodes({"CPU": 8}, {"CPU": 16, "GPU": 4}, {"CPU": 16, "GPU": 4})
    embed, score = pools_together(PoolRequest())
    assert (embed.size, score.size, embed.num_gpus + score.num_gpus, embed.device) == (8, 8, 1.0, "cuda")
    assert 2 * score.num_gpus > 1  # else two of them might share one, and leave others to encoders
    assert embed.num_cpus + embed.decode_cpus + score.num_cpus == 1
    nodes({"CPU": 9})
    request = PoolRequest(cpus_per_actor=1)
    assert [pool.size for pool in pools_together(request)] == [4, 5]
    assert [pool.size for pool in pools_together(replace(request, embed_actors=6))] == [6, 3]
    assert [pool.size for pool in pools_together(replace(request, score_actors=2))] == [7, 2]
    assert pools_together(replace(request, embed_actors=6, score_actors=4)) is None
    nodes({"CPU": 2})
    assert pools_together(PoolRequest()) is None
    assert [pool.size for pool in pools_together(request)] == [1, 1]


def test_a_run_that_expects_gpus_does_not_start_on_cpus(nodes) -> None:
    nodes({"CPU": 8})
    with pytest.raises(SettingsError, match=r"0 GPUs.*resources\.expect_gpus is 4"):
        pools(PoolRequest(expect_gpus=4, wait_minutes=0))
    nodes({"CPU": 8}, {"CPU": 8, "GPU": 4})
    assert pools(PoolRequest(expect_gpus=4, wait_minutes=0))[0].size == 4


def test_a_cluster_without_workers_says_so(nodes) -> None:
    nodes({"CPU": 0})
    with pytest.raises(SettingsError, match=r"no room for one actor.*expect_gpus"):
        pools(PoolRequest())


def test_decoding_asks_for_other_resources_than_embedding(nodes) -> None:
    """Else Ray Data fuses the two, and decoding no longer overlaps with the forward pass."""
    for shape in ({"CPU": 1}, {"CPU": 2}, {"CPU": 16, "GPU": 2}):
        nodes(shape)
        embed, _ = pools(PoolRequest())
        assert (embed.num_cpus, embed.num_gpus) != (embed.decode_cpus, 0)


def test_more_than_the_cluster_has_is_refused(nodes) -> None:
    nodes({"CPU": 4})
    with pytest.raises(SettingsError, match=r"resources\.embed_actors must be at most 2.*got 3"):
        pools(PoolRequest(embed_actors=3, cpus_per_actor=2))
    with pytest.raises(SettingsError, match="no room for one actor"):
        pools(PoolRequest(cpus_per_actor=8))


def test_a_workers_error_arrives_as_itself(local_ray: None) -> None:
    @ray.remote(num_cpus=0)
    def fail() -> None:
        raise WeightsError("no such file")

    with pytest.raises(WeightsError) as caught, worker_errors():
        ray.get(fail.remote())
    assert type(caught.value) is WeightsError
    assert str(caught.value) == "no such file"


def test_any_other_worker_error_is_one_line_with_its_traceback_as_the_cause(local_ray: None) -> None:
    @ray.remote(num_cpus=0)
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(WorkerError, match=r"^a worker failed: ZeroDivisionError") as caught, worker_errors():
        ray.get(fail.remote())
    assert "Traceback" in str(caught.value.__cause__) or "test_session.py" in str(caught.value.__cause__)


def test_a_folder_that_a_node_does_not_see_is_refused(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here,) = [node for node in ray.nodes() if node["Alive"]]
    require_shared_folders([str(tmp_path / "gone")])  # one node: whatever reads it will say so
    monkeypatch.setattr(session.ray, "nodes", lambda: [here, here])
    require_shared_folders([str(tmp_path), f"file://{tmp_path}", "s3://bucket/elsewhere"])
    with pytest.raises(SettingsError, match=r"does not see .*gone: on several nodes"):
        require_shared_folders([str(tmp_path / "gone")])

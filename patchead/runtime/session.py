"""The Ray session a run works in, and how much of it each stage takes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import floor
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from patchead.errors import SettingsError, bad_value
from patchead.runtime.lost_nodes import Stall
from patchead.runtime.pool import CPUS_PER_ACTOR, Pool, PoolRequest
from patchead.runtime.quiet_ray import known_lines_in_the_log
from patchead.runtime.ray_folder import require_room
from patchead.runtime.ray_start import connect, loopback_only, start
from patchead.runtime.worker_errors import worker_errors

Result = TypeVar("Result")


@contextmanager
def ray_session(local_cpus: int | None) -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS``, or start Ray on this machine and stop it at the end.

    A Ray that the caller has already initialised is used and left running. Ray Data's own progress output is turned
    off: `patchead.nightly.progress` shows the stages.
    """
    from ray.data import DataContext  # only the driver needs it

    DataContext.get_current().enable_progress_bars = False
    DataContext.get_current().raise_original_map_exception = True  # as itself: Ray Data's own wrapper loses its cause
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    if ray.is_initialized():
        with known_lines_in_the_log(), worker_errors():
            require_room()
            yield
        return
    # Threads of a matrix multiplication that wait for each other must not keep the cores from the decoder.
    runtime_env = {"env_vars": {"OMP_WAIT_POLICY": "passive"}}
    with known_lines_in_the_log(), ExitStack() as ended:
        if os.environ.get("RAY_ADDRESS"):
            connect(runtime_env)
        else:
            ended.enter_context(loopback_only())
            start(local_cpus, runtime_env)
        ended.callback(ray.shutdown)
        require_room()
        with worker_errors():
            yield


_ACTORS = ("embed_actors", "score_actors")
_SCORING = 0.6  # of a GPU that an embedding actor shares
_MOST_ENCODERS = 4  # of a GPU: while one writes what it has embedded, another one embeds
_CPUS_PER_ENCODER = 4  # that decode for it


def pools(wanted: PoolRequest) -> tuple[Pool, Pool]:
    """Size the embedding and the scoring pool to what the connected cluster has room for.

    Raises:
        SettingsError: more was asked for than the cluster has.
    """
    fit, shape, on_a_gpu = _fitting(wanted)
    encoder = shape | {"num_gpus": _share(shape["num_gpus"], on_a_gpu)}
    return (
        _pool("resources.embed_actors", wanted.embed_actors, fit * on_a_gpu, encoder),
        _pool("resources.score_actors", wanted.score_actors, fit, shape),
    )


def pools_together(wanted: PoolRequest) -> tuple[Pool, Pool] | None:
    """Size pools that embed and score at the same time; None where there is no room for an actor of each.

    An embedding and a scoring actor share a GPU, so that each has what the other leaves of it; CPUs are parted between
    the two, half and half unless the numbers of both actors are given.

    Raises:
        SettingsError: as `pools`.
    """
    fit, shape, on_a_gpu = _fitting(wanted)
    if gpus := shape["num_gpus"]:
        if gpus > 1 or fit < 1:
            return None
        most = (fit * on_a_gpu, fit)
        embed, score = (
            _size(f"resources.{name}", getattr(wanted, name), n) for name, n in zip(_ACTORS, most, strict=True)
        )
        shape |= {"decode_cpus": 0.5}  # with a quarter for each actor, a core for a GPU as before
        # Two scoring actors do not fit a GPU: they begin first, one on each, and leave the rest to an encoder.
        return (
            Pool(size=embed, **shape | {"num_gpus": _share((1 - _SCORING) * gpus, on_a_gpu)}),
            Pool(size=score, **shape | {"num_gpus": _share(_SCORING * gpus, 1)}),
        )
    embed = wanted.embed_actors or max(1, fit - (wanted.score_actors or fit - fit // 2))
    score = wanted.score_actors or fit - embed
    return (Pool(size=embed, **shape), Pool(size=score, **shape)) if score >= 1 and embed + score <= fit else None


def _fitting(wanted: PoolRequest) -> tuple[int, dict[str, Any], int]:
    """How many actors the cluster has room for, what each of them takes, and how many encoders share that."""
    nodes = _nodes(wanted.expect_gpus, wanted.wait_minutes)
    has_gpus = any(node.get("GPU", 0) for node in nodes) and wanted.device != "cpu"
    gpus = wanted.gpus_per_actor if wanted.gpus_per_actor is not None else float(has_gpus)
    if wanted.device == "cuda" and not gpus:
        raise SettingsError("encoder.device is cuda, but the cluster has no GPU (or resources.gpus_per_actor is 0).")
    if wanted.device == "cpu" and gpus:
        raise SettingsError("encoder.device is cpu, but resources.gpus_per_actor asks for GPUs; drop one of the two.")
    # An actor and the decode task that feeds it share its CPUs. That the two ask for different amounts also keeps Ray
    # Data from fusing decoding into the actor, where it would no longer overlap with the forward pass.
    if gpus:
        fit = sum(min(int(node.get("GPU", 0) // gpus), int(node.get("CPU", 0))) for node in nodes)
        shape: dict[str, Any] = {"num_cpus": 0.25, "num_gpus": gpus, "threads": 1, "decode_cpus": 0.75}
    else:
        cpus = [int(node.get("CPU", 0)) for node in nodes]
        threads = wanted.cpus_per_actor or max(1, min(CPUS_PER_ACTOR, max(cpus, default=1)))
        fit = sum(node // threads for node in cpus)
        shape = {"num_cpus": threads - 0.25, "num_gpus": 0.0, "threads": threads, "decode_cpus": 0.25}
    return fit, shape, _encoders(nodes) if gpus and wanted.gpus_per_actor is None else 1


def _share(gpus: float, actors: int) -> float:
    """What each of some actors takes of a GPU, so that all of them fit: Ray counts in ten thousandths."""
    return floor(round(10_000 * gpus / actors, 6)) / 10_000


def _encoders(nodes: Sequence[Mapping[str, float]]) -> int:
    """How many encoders share a GPU, by the CPUs of each that decode for them."""
    cpus = min(node.get("CPU", 0) / node["GPU"] for node in nodes if node.get("GPU", 0))
    return max(1, min(_MOST_ENCODERS, int(cpus // _CPUS_PER_ENCODER)))


def _nodes(expect_gpus: int | None, wait_minutes: float) -> list[dict[str, float]]:
    """Resources of every live node, once the GPUs that are expected have joined."""
    deadline = time.monotonic() + 60 * wait_minutes
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        if expect_gpus is None or gpus >= expect_gpus:
            return nodes
        if time.monotonic() >= deadline:
            raise SettingsError(
                f"the cluster has {gpus} GPUs after {wait_minutes:g} minutes, but resources.expect_gpus is "
                f"{expect_gpus}. Start the missing workers, or lower resources.expect_gpus."
            )
        time.sleep(1)


def require_shared_folders(uris: Sequence[str], stall: Stall | None = None) -> None:
    """Refuse a folder of this machine on a cluster whose other nodes do not see it.

    Raises:
        SettingsError: a node cannot see one of the local ``uris``.
        WorkerError: as `on_nodes`.
    """
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    folders = [uri.removeprefix("file://") for uri in uris if "://" not in uri or uri.startswith("file://")]
    if len(nodes) < 2 or not folders:
        return
    for node, missing in zip(nodes, on_nodes(nodes, partial(_not_there, folders), stall or Stall()), strict=True):
        if missing:
            raise SettingsError(
                f"node {node} of the cluster does not see {', '.join(missing)}: on several nodes, archive.uri and "
                "lake.uri must be object storage or a folder that all nodes share."
            )


def on_nodes(nodes: Sequence[str], function: Callable[[], Result], stall: Stall) -> list[Result]:
    """Call a function, which must pickle, on each of the nodes with these ids, at the same time.

    Raises:
        WorkerError: nothing comes, and ``stall`` tells why.
    """
    call = ray.remote(num_cpus=0)(_call)
    strategies = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    with worker_errors():
        found = [call.options(scheduling_strategy=strategy).remote(function) for strategy in strategies]
        left = set(found)
        while left:
            left.remove(stall.first([*left]))
        return ray.get(found)


def _call(function: Callable[[], Result]) -> Result:
    return function()


def _not_there(folders: Sequence[str]) -> list[str]:
    return [folder for folder in folders if not Path(folder).exists()]


def _pool(parameter: str, asked: int | None, fit: int, shape: dict[str, Any]) -> Pool:
    """A pool that grows where no number of actors was asked for."""
    return Pool(size=_size(parameter, asked, fit), grows=asked is None, **shape)


def _size(parameter: str, asked: int | None, fit: int) -> int:
    if fit < 1:
        raise SettingsError(
            "the cluster has no room for one actor: wait for its workers (resources.expect_gpus), or lower "
            "resources.cpus_per_actor or resources.gpus_per_actor."
        )
    if asked is not None and asked > fit:
        raise SettingsError(bad_value(parameter, asked, f"at most {fit}, what the cluster has room for"))
    return asked or fit

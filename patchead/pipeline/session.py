"""The Ray session a run works in, and how much of it each stage takes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.data import DataContext
from ray.exceptions import RayError

from patchead.config import Config
from patchead.errors import PatcheadError, SettingsError, bad_value

_DEFAULT_CPUS_PER_ACTOR = 4


@dataclass(frozen=True)
class Pool:
    """A fixed-size pool of equal actors and the decode tasks that feed it."""

    size: int
    num_cpus: float
    num_gpus: float
    threads: int
    decode_cpus: float

    @property
    def device(self) -> str:
        return "cuda" if self.num_gpus else "cpu"


@contextmanager
def ray_session(local_cpus: int | None) -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS``, or start Ray on this machine and stop it at the end.

    A Ray that the caller has already initialised is used and left running. Ray Data's own progress output is turned
    off: `patchead.pipeline.progress` shows the stages.
    """
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    if ray.is_initialized():
        yield
        return
    # Threads of a matrix product that wait for each other must not keep the cores from the decoder.
    runtime_env = {"env_vars": {"OMP_WAIT_POLICY": "passive"}}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, runtime_env=runtime_env)
    else:
        # No dashboard, and a loopback address for the node; Ray would replace 127.0.0.1 by the host's own address.
        ray.init(
            address="local",
            num_cpus=local_cpus,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env=runtime_env,
            _node_ip_address="127.0.0.2",
        )
    try:
        yield
    finally:
        ray.shutdown()


def pools(config: Config) -> tuple[Pool, Pool]:
    """The embedding and the scoring pool that the connected cluster has room for.

    Raises:
        SettingsError: more was asked for than the cluster has.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = config.resources
    has_gpus = any(node.get("GPU", 0) for node in nodes) and config.encoder.device != "cpu"
    gpus = wanted.gpus_per_actor if wanted.gpus_per_actor is not None else float(has_gpus)
    if config.encoder.device == "cuda" and not gpus:
        raise SettingsError("encoder.device is cuda, but the cluster has no GPU (or resources.gpus_per_actor is 0).")
    if gpus:
        fit = sum(int(node.get("GPU", 0) // gpus) for node in nodes)
        shape = {"num_cpus": 1.0, "num_gpus": gpus, "threads": 1, "decode_cpus": 1.0}
    else:
        cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        threads = wanted.cpus_per_actor or min([_DEFAULT_CPUS_PER_ACTOR, *cpus])
        fit = sum(node // threads for node in cpus)
        # Half a CPU of every actor's share stays free for the decode task that feeds it. The different request also
        # keeps Ray Data from fusing decoding into the actor, where it would no longer overlap with the forward pass.
        shape = {"num_cpus": threads - 0.5, "num_gpus": 0.0, "threads": threads, "decode_cpus": 0.5}
    return (
        Pool(size=_size("resources.embed_actors", wanted.embed_actors, fit), **shape),  # type: ignore[arg-type]
        Pool(size=_size("resources.score_actors", wanted.score_actors, fit), **shape),  # type: ignore[arg-type]
    )


def _size(parameter: str, asked: int | None, fit: int) -> int:
    if fit < 1:
        raise SettingsError("the cluster has no room for one actor: lower resources.cpus_per_actor or gpus_per_actor.")
    if asked is not None and asked > fit:
        raise SettingsError(bad_value(parameter, asked, f"at most {fit}, what the cluster has room for"))
    return asked or fit


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise a `PatcheadError` that a worker raised as itself, without Ray's wrapping and traceback."""
    try:
        yield
    except RayError as exc:
        cause: BaseException | None = exc
        while cause is not None:
            inner = getattr(cause, "cause", None) or cause.__cause__
            if isinstance(inner, PatcheadError):
                # Ray's cause derives from both classes; only the plain one has the plain text.
                raise _plain(inner) from exc
            cause = inner
        raise


def _plain(error: PatcheadError) -> PatcheadError:
    kind = next(c for c in type(error).__mro__ if c.__module__ == PatcheadError.__module__)
    return kind(*error.args)

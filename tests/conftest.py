"""Fixtures shared by all tests, and which worker of pytest-xdist a test goes to."""

from __future__ import annotations

import gc
import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.helpers.forked import Forkserver
    from tests.helpers.s3_server import S3Server

# Read when torch and numpy are imported. Threads that wait for each other else spin: on two cores, with other tests
# beside them, the scoring tests then take three times the seconds of the processor, and a product of numpy's thirty.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["OPENBLAS_NUM_THREADS"] = "1"

# The machine is noisy: an example is never judged by how long it took.
hypothesis.settings.register_profile("patchead", deadline=None)
hypothesis.settings.load_profile("patchead")


SHARED = {"ray": {"local_ray", "on_ray", "ray", "RayExecutor"}, "s3": {"s3", "s3_keys"}, "forks": {"forkserver"}}
"""Fixtures, and names of parameters for which a fixture asks for one of these; what needs both is with Ray."""
ENDS: dict[str, Callable[[], object]] = {}
"""How to end what a group shares, once it runs: its daemons take a tenth of a core as long as they live."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """For the whole suite the workers are forks of one process, which imports for them all; a few tests need little."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    from tests.helpers.warm_python import WarmPython, python

    stack = ExitStack()
    config.add_cleanup(stack.close)
    stack.enter_context(WarmPython(Path(stack.enter_context(TemporaryDirectory()))))
    for spec in specs:
        spec.python = shlex.join(python())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Half a million objects of modules and tests stay to the end: none is looked at again for garbage."""
    gc.disable()
    try:
        _import_an_own_share()
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _import_an_own_share() -> None:
    """Each worker imports other test modules first: in a fresh clone pytest rewrites each once, not in every worker."""
    number, workers = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    if workers == "1":
        return
    for path in sorted(Path(__file__).parent.rglob("test_*.py"))[int(number.removeprefix("gw")) :: int(workers)]:
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        importlib.import_module(path.stem)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs all tests of the session's Ray, one those of S3, one those that fork; the others go by files."""
    groups = {item: _shared(item) or _file(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    order = [*SHARED]
    items.sort(key=lambda item: order.index(groups[item]) if groups[item] in order else len(order))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """End what a group shares with the last test of the group; fixtures of its module may still need it before."""
    try:
        return (yield)
    finally:
        group = _shared(item)
        if group in ENDS and nextitem and _shared(nextitem) != group and nextitem.path != item.path:
            ENDS.pop(group)()


def _shared(item: pytest.Item) -> str | None:
    names = _names(item)
    return next((group for group, needed in SHARED.items() if needed & names), None)


def _names(item: pytest.Item) -> set[str]:
    """Names of the fixtures of a test, and of its parameters' values."""
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return {*getattr(item, "fixturenames", ()), *(getattr(value, "__name__", str(value)) for value in values)}


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0].removesuffix(".py")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """For small models: on a busy machine threads that wait for each other cost far more than they gain."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def threads_put_back() -> Iterator[None]:
    """The number of torch's threads is as it was afterwards."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def plain_loops() -> Iterator[None]:
    """A processor that is fast in float32 alone: integer and bfloat16 products by plain loops, of torch and NumKong."""
    import numkong
    import torch

    from patchead.evaluation import encoder_probe
    from patchead.scoring import integer_products, precision_probe

    def forget() -> None:
        encoder_probe._probed.cache_clear()
        precision_probe._probed.cache_clear()
        integer_products.numkong_over_torch.cache_clear()

    forget()
    fast = [name for name, there in numkong.get_capabilities().items() if there and name != "serial"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's word on Intel GPUs
        with torch.backends.mkldnn.flags(enabled=False):
            for name in fast:
                numkong.disable_capability(name)
            yield
    for name in fast:
        numkong.enable_capability(name)
    forget()


@pytest.fixture(scope="session")
def local_ray(s3_keys: S3Server) -> Iterator[None]:
    """One local Ray with two logical CPUs for the whole session, on loopback."""
    import ray

    from tests.helpers import patient_ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        patch.setenv("RAY_worker_niceness", "0")  # with Ray's 15, workers starve on a busy machine
        patch.setenv("RAY_agent_register_timeout_ms", "3600000")
        patch.setenv("RAY_worker_register_timeout_seconds", "3600")
        patch.setenv("RAY_num_workers_soft_limit", "8")  # for the next test: a start takes 3 s
        patient_ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=500 * 10**6,
            _node_ip_address="127.0.0.2",
        )
        node = ray._private.worker._global_node  # no test reads its logs, adds nodes by its monitor, or counts its use
        for end in (node.kill_log_monitor, node.kill_monitor, node.kill_dashboard):
            end(check_alive=False)
        ENDS["ray"] = ray.shutdown
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def s3_keys() -> Iterator[S3Server]:
    """The S3 server, not started; its keys are in the environment, which Ray's workers take over when Ray starts."""
    from tests.helpers.s3_server import S3Server

    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        server = S3Server()
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def s3(s3_keys: S3Server) -> Iterator[S3Server]:
    """One S3 server for the whole session, its endpoint in ``s3.storage``."""
    with ExitStack() as stack:
        server = stack.enter_context(s3_keys)
        ENDS["s3"] = stack.close
        yield server


@pytest.fixture(scope="session")
def forkserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forkserver]:
    """A process that has imported everything and forks others, for tests that end, stop or pause a real process."""
    from tests.helpers.forked import Forkserver

    with Forkserver(tmp_path_factory.mktemp("forked")) as server:
        yield server


@pytest.fixture
def use_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """``use_keys(key, secret)``: as if this process had been started with other keys."""
    from patchead.patient_s3 import PatientS3

    def use(key: str, secret: str) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        PatientS3.clear_instance_cache()

    yield use
    PatientS3.clear_instance_cache()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds for which the storage libraries would pause between two attempts: here they go on at once."""
    import asyncio

    taken: list[float] = []
    sleep = asyncio.sleep

    async def noted(delay: float, result: object = None) -> object:
        taken.append(delay)
        return await sleep(0, result)

    monkeypatch.setattr(asyncio, "sleep", noted)
    return taken

"""Lines that Ray writes on every night with a GPU are in the log, and what else these loggers say stays."""

from __future__ import annotations

import inspect
import logging

import pytest
from ray.data._internal.execution.operators import map_operator
from ray.data._internal.issue_detection import issue_detector_manager
from ray.data._internal.issue_detection.detectors.high_memory_detector import HIGH_MEMORY_PERIODIC_WARNING

from patchead.runtime.quiet_ray import known_lines_in_the_log

_OF_GPUS = "Specifying both num_cpus and num_gpus for map tasks is experimental"


def test_what_ray_says_of_every_gpu_is_in_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    assert _OF_GPUS in inspect.getsource(map_operator), "Ray has another text: the known line must be its"
    with known_lines_in_the_log():
        map_operator.logger.warning(_OF_GPUS)
        map_operator.logger.warning("Something else")
        issue_detector_manager.logger.warning(HIGH_MEMORY_PERIODIC_WARNING)
        issue_detector_manager.logger.warning("A task hangs")
    told = [(record.name, record.getMessage().split("\n")[0]) for record in caplog.records]
    assert [name for name, text in told if text.startswith("Ray: ")] == ["patchead", "patchead"]
    assert [text for name, text in told if name != "patchead"] == ["Something else", "A task hangs"]
    assert logging.getLogger(map_operator.__name__).filters == []

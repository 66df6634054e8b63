"""That tests which share a Ray or an S3 server go to one worker: without it every worker would start its own."""

from __future__ import annotations

import os

import pytest


def test_a_test_is_sent_with_its_group(request: pytest.FixtureRequest) -> None:
    # pytest 9.2 took away what pytest-xdist 3.8 marks it with, without a word.
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    assert request.node.nodeid.endswith("" if alone else "@tests/test_groups")

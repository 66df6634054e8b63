"""Which of the two lakes of tests/lake/conftest.py a test takes."""

from __future__ import annotations

import pytest

SLOW_ON_S3 = pytest.mark.parametrize("lake", ["local", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)
"""The one on a disk always, the one on S3 among the slow tests: each operation on S3 has a quick test of its own."""

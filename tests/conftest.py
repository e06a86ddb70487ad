"""Fixtures that every room's tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real photographs and reference outputs, named by EXNIHILO_TEST_DATA."""
    folder = os.environ.get("EXNIHILO_TEST_DATA")
    if not folder:
        pytest.skip("EXNIHILO_TEST_DATA is not set: no real photographs to test on")
    return Path(folder)

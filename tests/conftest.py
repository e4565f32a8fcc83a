"""Fixtures that several rooms share: real tables where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# One profile for every property test: reproducible, and without a deadline on a busy machine.
settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")

REAL_DATA = Path(
    os.environ.get("ZIPML_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Path of a real data set by file name; skips where it is not at hand."""

    def find(name: str) -> Path:
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"no real data set {name} at hand (ZIPML_TEST_DATA names its folder)")
        return path

    return find

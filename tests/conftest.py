"""Fixtures that several rooms share: real tables where they are at hand."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from zipml_codecs import _native

# One profile for every property test: reproducible, and without a deadline on a busy machine.
settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")

# Some tests run a small part of a benchmark. Behind everything else on the path, so that the
# packages under test stay the installed ones.
sys.path.append(str(Path(__file__).resolve().parents[1]))

REAL_DATA = Path(
    os.environ.get("ZIPML_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background deaf to Ctrl-C, and the programs under test
    # would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Path of a real data set by file name; skips where it is not at hand."""

    def find(name: str) -> Path:
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"no real data set {name} at hand (ZIPML_TEST_DATA names its folder)")
        return path

    return find


@pytest.fixture(params=["avx512", "avx2", "scalar"])
def simd(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set in turn, live for the test; skips what this machine lacks."""
    if request.param not in _native.simd_levels():
        pytest.skip(f"this machine does not run {request.param}")
    live = _native.live_simd()
    _native.select_simd(request.param)
    yield request.param
    _native.select_simd(live)

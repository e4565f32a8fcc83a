"""Training on boards: the executor fpga-device, on stand-ins for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import compressed, regression_npz
from xdma_board import Board, BoardFiles

from zipml_ooc import Dataset, TrainOptions, UsageError, train
from zipml_ooc.errors import ExecutorError
from zipml_ooc.executors import fpga_device, registry
from zipml_ooc.executors.fpga import FpgaExecutor
from zipml_ooc.gateware.emulator import Emulator
from zipml_ooc.gateware.formats import Format, Register
from zipml_ooc.gateware.transports import xdma
from zipml_ooc.training import plan

DEVICE = "fpga-device"


def bare() -> FpgaExecutor:
    """The same executor on the emulator itself, without a bus."""
    return FpgaExecutor("bare", "no bus", lambda form, *_: Emulator(form), lambda: None)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    source = regression_npz(tmp_path / "t.npz", 1500, 12)
    return compressed(source, tmp_path / "t.zarr", bits=4, samples=1, levels="uniform")


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> dict[str, Board]:
    """Boards by the names of their devices, which are opened as they are asked for."""
    made: dict[str, Board] = {}

    class Files(BoardFiles):
        def __init__(self) -> None:
            super().__init__(Board(Format(4)))

        def open(self, path: str, flags: int) -> int:
            folder, _, name = path.rpartition("/")
            if folder not in made:
                made[folder] = self.board
            self.board = made[folder]
            return super().open(name, flags)

    monkeypatch.setattr(xdma, "Files", Files)
    monkeypatch.setenv(fpga_device.VARIABLE, "/dev/a/board")
    return made


def fit(data: Dataset, name: str, /, threads: int = 1, **options: Any) -> Any:
    wanted = TrainOptions(epochs=3, executor=name, executor_options=options)
    return train(data, wanted, threads=threads)


def test_a_board_trains_the_model_that_its_arithmetic_gives(
    data: Dataset, boards: dict[str, Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = "test_gateware_device_executor"
    monkeypatch.setattr(registry, "OURS", registry.OURS | {"bare": f"{here}:bare"})
    found, expected = fit(data, DEVICE), fit(data, "bare")
    assert np.array_equal(found.model.coef, expected.model.coef)
    assert found.counters.cycles == expected.counters.cycles > 0
    assert list(boards) == ["/dev/a"]
    sent = [entry for entry in boards["/dev/a"].model.log if entry[0] == "packet"]
    assert len(sent) == found.counters.beats // (12 + 4) >= 3 * 24


def test_several_boards_are_named_with_commas(
    data: Dataset, boards: dict[str, Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("_MIN_WINDOW_TILES", "_MAX_WINDOW_TILES"):  # several windows in a small table
        monkeypatch.setattr(plan, limit, 4)
    named = TrainOptions(
        epochs=2,
        replicas=2,
        executor=DEVICE,
        executor_options={"path": "/dev/b/board, /dev/c/board"},
    )
    train(data, named, threads=2)
    assert set(boards) == {"/dev/b", "/dev/c"}


def test_what_does_not_fit_is_named(data: Dataset, boards: dict[str, Board]) -> None:
    board = Board(Format(8))
    boards["/dev/a"] = board
    with pytest.raises(ExecutorError, match=r"codes of 8 bits in 64 lanes, .*fpga build --bits 4"):
        fit(data, DEVICE)
    board.model.words[Register.VERSION] = 0
    with pytest.raises(ExecutorError, match="build the bitstream again"):
        fit(data, DEVICE)
    board.command("gone 19")
    with pytest.raises(ExecutorError, match="/dev/a/board_user: the device is gone"):
        fit(data, DEVICE)
    with pytest.raises(UsageError, match="transport xdma has no option 'bitfile'"):
        fit(data, DEVICE, bitfile="x.bit")
    with pytest.raises(UsageError, match="needs the option bitfile"):
        fit(data, DEVICE, transport="pynq")


def test_a_board_that_is_lost_in_mid_run_is_one_line(
    data: Dataset, boards: dict[str, Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    packet = Board(Format(4)).model.__class__.packet

    def until(self: Any, content: bytes) -> None:
        taken.append(content)
        if len(taken) == 30:
            boards["/dev/a"].command("gone 5")
        packet(self, content)

    monkeypatch.setattr("register_model.RegisterModel.packet", until)
    with pytest.raises(ExecutorError, match="the device is gone") as caught:
        fit(data, DEVICE)
    assert "\n" not in str(caught.value)


def test_without_a_board_a_line_says_so(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fpga_device, "_DEVICES", tmp_path)
    monkeypatch.delenv(fpga_device.VARIABLE, raising=False)
    monkeypatch.setattr(fpga_device, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"cannot be used here: there is no board: no .*xdma\*_us"):
        fit(data, DEVICE)
    for name in ("xdma1_user", "xdma0_user", "xdma0_control"):
        (tmp_path / name).write_bytes(b"")
    made = fpga_device.executor()
    assert made.unavailable() is None
    settings = {option.name: option.default for option in made.capabilities().options}
    assert made.devices(settings) == [str(tmp_path / "xdma0"), str(tmp_path / "xdma1")]
    assert made.devices(settings | {"transport": "uio"}) == ["/dev/uio0"]
    with pytest.raises(ExecutorError, match=r"xdma0_h2c_0 is not there"):
        fit(data, DEVICE)

"""Executors that tests register for a while, and datasets for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import compressed, regression_npz

from zipml_ooc import Dataset
from zipml_ooc.executors import Settings, registry
from zipml_ooc.executors.fpga import FpgaExecutor
from zipml_ooc.executors.protocol import Option
from zipml_ooc.gateware.driver import Counters, DeviceError
from zipml_ooc.gateware.emulator import Emulator
from zipml_ooc.gateware.formats import Format

OPENED: list[Any] = []
"""Devices that were made and are not closed."""

RAN: list[int] = []


def runs_here() -> int:
    """How many runs this process has begun."""
    return len(RAN)


class Fragile(Emulator):
    """An accelerator that may be lost: after so many runs, if it is told to."""

    def __init__(self, form: Format, name: str | None, runs: int) -> None:
        super().__init__(form)
        self.name, self.left = name, runs
        OPENED.append(self)

    def run(self, packets: Iterable[np.ndarray], tiles: int) -> Counters:
        if self.left == 0:
            raise DeviceError("the cable is out")
        self.left -= 1
        RAN.append(tiles)
        return super().run(packets, tiles)

    def close(self) -> None:
        if self in OPENED:
            OPENED.remove(self)
        super().close()


def _make(form: Format, device: str | None, settings: Settings) -> Fragile:
    if any(one.name == device for one in OPENED if device is not None):
        raise DeviceError(f"{device} is taken")
    return Fragile(form, device, settings["runs"])


def fragile() -> FpgaExecutor:
    """The accelerator's executor on native arithmetic, with devices that tests can take away."""
    return FpgaExecutor(
        "fragile",
        "a device that may be lost",
        _make,
        lambda: None,
        lambda settings: settings["device"].split("+") if settings["device"] else None,
        (Option("runs", int, "how long it lasts", -1), Option("device", str, "names", "")),
        resource="FRAGILE",
    )


@contextmanager
def registered(**origins: str) -> Iterator[None]:
    """Have executors beside the installed ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "OURS", registry.OURS | origins)
        yield


def table(folder: Path, *, rows: int = 3000, columns: int = 6, **options: Any) -> Dataset:
    """A compressed regression, by default such that the accelerator takes it."""
    name = "-".join(f"{k}{v}" for k, v in options.items()) + f"-{rows}-{columns}.zarr"
    given = {"bits": 4, "samples": 1, "levels": "uniform"} | options
    return compressed(regression_npz(folder / "table.npz", rows, columns), folder / name, **given)

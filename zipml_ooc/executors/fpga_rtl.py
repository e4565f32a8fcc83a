"""The executor `fpga-rtl`: the gateware, simulated cycle by cycle and driven as a board is."""

from __future__ import annotations

from ..errors import UsageError
from ..gateware.driver import Device, Driver
from ..gateware.formats import Format
from ..gateware.simulation import Simulation, require_tools
from .fpga import FpgaExecutor
from .protocol import Settings

__all__ = ["executor"]


def _make(form: Format, device: str | None, settings: Settings) -> Device:
    return Driver(Simulation(form))


def _reason() -> str | None:
    try:
        require_tools()
    except UsageError as error:
        return str(error)
    return None


def executor() -> FpgaExecutor:
    """Make it."""
    return FpgaExecutor(
        "fpga-rtl",
        "the gateware of the accelerator, simulated cycle by cycle",
        _make,
        _reason,
    )

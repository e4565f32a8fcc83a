"""The executor `fpga-device`: the gateware on boards, behind the driver that drives the simulation.

A board is named by what its transport opens first. XDMA's are found by their names in ``/dev``;
UIO and PYNQ have one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ..gateware.driver import Device, DeviceError, Driver
from ..gateware.formats import Format
from ..gateware.transports import open_bus
from .fpga import FpgaExecutor
from .protocol import Option, Settings

__all__ = ["VARIABLE", "executor"]

VARIABLE = "ZIPML_XDMA"
"""Names boards behind XDMA, as the option path does, where they are not in ``/dev``."""

_DEVICES = Path("/dev")
_USER = "_user"

_OPTIONS = (
    Option("transport", str, "how boards are reached", "xdma", ("xdma", "uio", "pynq")),
    Option(
        "path",
        str,
        "xdma: what the names of a board's devices begin with, such as /dev/xdma0; several boards "
        f"with commas; by default {VARIABLE}, or all there are in /dev",
    ),
    Option("channel", int, "xdma: number of the stream's channel, by default 0"),
    Option("offset", int, "xdma: address of the accelerator's registers, by default 0"),
    Option("registers", str, "uio: device of the registers, by default /dev/uio0"),
    Option("buffer", str, "uio: a u-dma-buf, by default /dev/udmabuf0"),
    Option("bitfile", str, "pynq: the overlay's .bit file"),
    Option("accelerator", str, "pynq: its name in the design, by default zipml_accelerator_0"),
    Option("dma", str, "uio: device of the AXI DMA, by default /dev/uio1; pynq: its name"),
    Option("slots", int, "buffers in the ring, by default 4"),
    Option("timeout", float, "seconds without progress after which a board counts as lost"),
)


def _boards(settings: Settings) -> Sequence[str]:
    """Names of the boards."""
    transport = settings["transport"]
    if transport == "uio":
        return [settings["registers"] or "/dev/uio0"]
    if transport == "pynq":
        return [settings["bitfile"] or "the overlay"]
    named = settings["path"] or os.environ.get(VARIABLE, "")
    paths = [path.strip() for path in named.split(",") if path.strip()]
    return paths or _found() or ["/dev/xdma0"]  # which says that it is missing when it is opened


def _found() -> list[str]:
    """Boards behind XDMA in ``/dev``."""
    return [str(path).removesuffix(_USER) for path in sorted(_DEVICES.glob(f"xdma*{_USER}"))]


def _reason() -> str | None:
    if os.environ.get(VARIABLE) or _found() or any(_DEVICES.glob("uio*")) or find_spec("pynq"):
        return None
    return (
        f"there is no board: no {_DEVICES}/xdma*{_USER}, no {_DEVICES}/uio*, and no package pynq. "
        f"Load the board's driver and bitstream, or name its devices in {VARIABLE}"
    )


def _make(form: Format, device: str | None, settings: Settings) -> Device:
    transport = settings["transport"]
    names = [option.name for option in _OPTIONS if option.name != "transport"]
    given = {name: str(settings[name]) for name in names if settings[name] is not None}
    if transport == "xdma":
        given["path"] = str(device)
    bus = open_bus(transport, **given)
    try:
        driver = Driver(bus)
        there = driver.form
        if (there.bits, there.lanes) != (form.bits, form.lanes):
            raise DeviceError(
                f"{device}: its bitstream takes codes of {there.bits} bits in {there.lanes} lanes, "
                f"and the dataset has {form.bits} bits in {form.lanes}: load one that zipml fpga "
                f"build --bits {form.bits} --lanes {form.lanes} made"
            )
        driver.reset()  # whatever an earlier process left it with
    except BaseException:
        bus.close()
        raise
    return driver


def executor() -> FpgaExecutor:
    """Make it."""
    return FpgaExecutor(
        "fpga-device",
        "the gateware of the accelerator on a board",
        _make,
        _reason,
        _boards,
        options=_OPTIONS,
        losses=("squared", "ls-svm", "logistic", "squared-hinge"),
    )

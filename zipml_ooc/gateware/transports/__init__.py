"""Buses of the driver on boards: how registers are reached, and how packets get to the stream.

The driver is the one that runs on the simulation. A transport queues packets in a `ring` of
buffers, so that one is filled while another is sent, a packet to a transfer. docs/accelerator.md
says what a board needs around the gateware for each of them.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import UsageError
from ..driver import Bus
from ..formats import Format

__all__ = ["TRANSPORTS", "open_bus"]

TRANSPORTS = ("xdma", "uio", "pynq", "simulation")

_READ: dict[str, Callable[[str], object]] = {
    "slots": int,
    "timeout": float,
    "offset": lambda text: int(text, 0),
    "channel": int,
    "bits": int,
    "lanes": int,
    "depth": int,
}


def open_bus(transport: str, **options: str) -> Bus:
    """Open the bus of an accelerator.

    Parameters
    ----------
    transport : {"xdma", "uio", "pynq", "simulation"}
    **options : str
        Parameters of `Xdma`, `open_uio` or `open_pynq`; for the simulation ``bits``, ``lanes`` and
        ``depth``.

    Raises
    ------
    UsageError
        The transport or an option is unknown, or a package is missing.
    DeviceError
        The device is not there, or cannot be opened.
    """
    if transport not in TRANSPORTS:
        listed = ", ".join(TRANSPORTS)
        raise UsageError(f"transport {transport!r} is unknown; choose one of {listed}")
    known = {
        "xdma": ("path", "offset", "channel", "slots", "timeout"),
        "uio": ("registers", "dma", "buffer", "slots", "timeout"),
        "pynq": ("bitfile", "accelerator", "dma", "slots", "timeout"),
        "simulation": ("bits", "lanes", "depth"),
    }[transport]
    given: dict[str, object] = {}
    for name, text in options.items():
        if name not in known:
            raise UsageError(
                f"transport {transport} has no option {name!r}; it has {', '.join(known)}"
            )
        try:
            given[name] = _READ.get(name, str)(text)
        except ValueError:
            raise UsageError(f"transport {transport}: {name} is {text!r}, not a number") from None
    if transport == "simulation":
        from ..simulation import Simulation

        return Simulation(Format(**{"bits": 4, **given}))  # type: ignore[arg-type]
    if transport == "xdma":
        from .xdma import Xdma

        return Xdma(**given)  # type: ignore[arg-type]
    if transport == "uio":
        from .uio import open_uio

        return open_uio(**given)  # type: ignore[arg-type]
    from .pynq_overlay import open_pynq

    if "bitfile" not in given:
        raise UsageError("transport pynq needs the option bitfile: the overlay's .bit or .xsa")
    return open_pynq(**given)  # type: ignore[arg-type]

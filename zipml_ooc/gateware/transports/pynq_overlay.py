"""Boards that run PYNQ: bitstream, registers and buffers by its package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ..driver import DeviceError, TransferError
from .axi_dma import DMA_BYTES, REGISTER_BYTES, AxiDmaBus, Buffer

__all__ = ["open_pynq"]


def open_pynq(
    bitfile: str,
    *,
    accelerator: str = "zipml_accelerator_0",
    dma: str = "axi_dma_0",
    slots: int = 4,
    timeout: float = 10.0,
) -> AxiDmaBus:
    """Load an overlay, and open the bus of its accelerator.

    Parameters
    ----------
    bitfile : str
        The overlay's ``.bit``, its ``.hwh`` beside it.
    accelerator, dma : str
        Names in the design.
    slots : int
    timeout : float
        Seconds without progress after which the accelerator counts as stopped.

    Raises
    ------
    UsageError
        The package is missing, or the file.
    DeviceError
        The overlay cannot be loaded, or has no such parts.
    """
    try:
        import pynq
    except ModuleNotFoundError as error:
        raise UsageError(
            "transport pynq needs the package pynq, which boards with PYNQ's image have: pip "
            "install pynq"
        ) from error
    if not Path(bitfile).is_file():
        raise UsageError(f"{bitfile} is not there: name the overlay's .bit file")
    try:
        overlay = pynq.Overlay(bitfile)
    except Exception as error:
        raise DeviceError(f"{bitfile} cannot be loaded: {error}") from error
    windows = []
    for name, least in ((accelerator, REGISTER_BYTES), (dma, DMA_BYTES)):
        about = overlay.ip_dict.get(name)
        if about is None:
            listed = ", ".join(sorted(overlay.ip_dict)) or "nothing"
            raise DeviceError(f"{bitfile} has no {name!r}; it has {listed}")
        if about["addr_range"] < least:
            raise DeviceError(
                f"{bitfile}: {name} has {about['addr_range']:,} bytes of addresses, and {least:,} "
                "are needed: give it more in the design"
            )
        windows.append(_Registers(pynq.MMIO(about["phys_addr"], about["addr_range"])))

    def allocate(count: int, size: int) -> Sequence[Buffer]:
        try:
            made = [pynq.allocate(shape=(size,), dtype="u1", cacheable=False) for _ in range(count)]
        except Exception as error:
            raise TransferError(
                f"PYNQ has no {count} buffers of {size:,} bytes ({error}): ask for fewer slots, or "
                "give contiguous memory more room"
            ) from error
        return [(buffer, int(buffer.device_address)) for buffer in made]

    return AxiDmaBus(windows[0], windows[1], allocate, slots=slots, timeout=timeout)


class _Registers:
    """PYNQ's MMIO as a window."""

    def __init__(self, mmio: Any) -> None:
        self._mmio = mmio

    def read(self, offset: int) -> int:
        """Read a word."""
        return int(self._mmio.read(offset))

    def write(self, offset: int, value: int) -> None:
        """Write a word."""
        self._mmio.write(offset, value)

    def close(self) -> None:
        """Do nothing: PYNQ unmaps what nobody uses."""

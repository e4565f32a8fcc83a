"""Boards that the accelerator might run on: clocks, bandwidths, and what a run takes there.

A model, not a measurement: a run takes as long as the slowest of the clock, the memory that the
data lie in, and the link that they come over. Each number has its source beside it; "assumed"
means that nobody has placed, routed or run the gateware there. docs/accelerator.md discusses them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from .formats import Format

__all__ = [
    "PROFILES",
    "Modelled",
    "Profile",
    "float32_bytes",
    "get_profile",
    "modelled",
    "modelled_float32",
    "stream_bytes",
]

# Of the accelerator with 64 lanes of 4 bits and all losses, as placed and routed for ECP5
# (docs/accelerator.md): look-up tables, bits of block RAM in a word of its memories, beside the
# beat that the row buffer holds, and the block RAM of four lanes' table of the sigmoid.
_LUTS = 36_373
_TABLE_BITS = 144
_SIGMOID_BITS = 18_432
_USABLE = 0.75  # of a device's logic, before routing suffers: assumed


@dataclass(frozen=True)
class Profile:
    """A board.

    Attributes
    ----------
    name, title : str
    clock_hz : float
        Of the accelerator.
    bus_bits : int
        That reach it in a cycle, at most.
    memory_bytes_per_s, link_bytes_per_s : float
        Of the memory that holds the data, and of what is between that memory and the accelerator,
        for one accelerator.
    luts, ram_bits : int
        Of the device: look-up tables, bits of block RAM.
    """

    name: str
    title: str
    clock_hz: float
    bus_bits: int
    memory_bytes_per_s: float
    link_bytes_per_s: float
    luts: int
    ram_bits: int

    @property
    def pipelines(self) -> int:
        """Accelerators that fit, by their look-up tables on ECP5: assumed for other devices."""
        return int(self.luts * _USABLE / _LUTS)

    def columns_limit(self, form: Format) -> int:
        """The most columns whose tables and row buffer the block RAM of one accelerator holds."""
        share = self.ram_bits // max(self.pipelines, 1) - form.lanes // 4 * _SIGMOID_BITS
        depth = 64
        while depth < 16384 and 2 * depth * (form.beat_bits + _TABLE_BITS) <= share:
            depth *= 2
        return depth - 24


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "pynq-z1",
            "PYNQ-Z1, Zynq-7020",
            clock_hz=100e6,  # assumed; what PYNQ's own overlays run at
            bus_bits=256,  # four high-performance ports of 64 bits (UG585)
            memory_bytes_per_s=2.1e9,  # DDR3, 16 bits at 1050 MT/s (Digilent, reference manual)
            link_bytes_per_s=3.2e9,  # those ports at 100 MHz, a word a cycle (UG585, table 22-2)
            luts=53_200,  # 13,300 slices of four (reference manual)
            ram_bits=140 * 36_864,  # 630 KB (reference manual)
        ),
        Profile(
            "harp",
            "Xeon+FPGA of the first generation (HARP): shared memory, Stratix V",
            clock_hz=200e6,  # of the platform's interface; reaching it is assumed
            bus_bits=512,  # a cache line
            memory_bytes_per_s=6.5e9,  # what the FPGA reads of the processor's memory, over QPI
            link_bytes_per_s=6.5e9,  # the same path
            luts=234_720,  # 5SGXEA7: adaptive logic modules, each at least one (device overview)
            ram_bits=2_560 * 20_480,  # M20K (device overview)
        ),
        Profile(
            "alveo-hbm",
            "Alveo U280, one of its 32 HBM channels an accelerator",
            clock_hz=300e6,  # assumed; the usual kernel clock of these cards
            bus_bits=512,  # assumed: a port of 256 bits at 450 MHz, widened
            memory_bytes_per_s=14.375e9,  # a pseudo channel, of 460 GB/s in all (UG1393)
            link_bytes_per_s=15.75e9,  # PCIe 3.0 x16: 8 GT/s, 128 of 130 bits
            luts=1_304_000,  # data sheet DS963
            ram_bits=2_016 * 36_864,  # block RAM without UltraRAM (DS963)
        ),
        Profile(
            "ecp5-85",
            "ECP5-85 with a DDR3 chip, on PCIe",
            clock_hz=122.7e6,  # placed and routed, speed grade 8 (docs/accelerator.md)
            bus_bits=256,  # assumed: as wide as a beat of 4 bits
            memory_bytes_per_s=1.6e9,  # 800 Mb/s a pin (FPGA-DS-02012), a chip of 16 bits assumed
            link_bytes_per_s=1.0e9,  # PCIe 1.0 x4: 2.5 GT/s, 8 of 10 bits (assumed board)
            luts=83_640,  # nextpnr
            ram_bits=208 * 18_432,  # nextpnr
        ),
    )
}
"""All profiles by name."""


def get_profile(name: str) -> Profile:
    """Look a profile up.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    if name not in PROFILES:
        raise UsageError(f"there is no profile {name!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[name]


@dataclass(frozen=True)
class Modelled:
    """How long a stage takes on a board.

    Attributes
    ----------
    cycles, bytes : int
    clock_seconds, memory_seconds, link_seconds : float
        What each of these needs by itself.
    """

    cycles: int
    bytes: int
    clock_seconds: float
    memory_seconds: float
    link_seconds: float

    @property
    def seconds(self) -> float:
        """Of the stage: that of the slowest."""
        return max(self.clock_seconds, self.memory_seconds, self.link_seconds)

    @property
    def bound_by(self) -> str:
        """Which that is: ``clock``, ``memory`` or ``link``."""
        taken = {
            "memory": self.memory_seconds,
            "link": self.link_seconds,
            "clock": self.clock_seconds,
        }
        return max(taken, key=lambda name: taken[name])


def stream_bytes(form: Format, columns: int, tiles: int) -> int:
    """Bytes of the packets of so many tiles."""
    return tiles * (columns + form.target_beats) * form.beat_bits // 8


def float32_bytes(columns: int, rows: int) -> int:
    """Bytes of the same rows at full precision: values and target of 32 bits."""
    return 4 * (columns + 1) * rows


def modelled(profile: Profile, cycles: int, size: int) -> Modelled:
    """How long a run of so many cycles and bytes takes.

    Where beats are wider than the bus, each takes as many cycles as it needs.

    Examples
    --------
    >>> found = modelled(PROFILES["pynq-z1"], cycles=1_000_000, size=32_000_000)
    >>> round(found.seconds, 4), found.bound_by
    (0.0152, 'memory')
    """
    words = -(-8 * size // profile.bus_bits)
    return Modelled(
        max(cycles, words),
        size,
        max(cycles, words) / profile.clock_hz,
        size / profile.memory_bytes_per_s,
        size / profile.link_bytes_per_s,
    )


def modelled_float32(profile: Profile, columns: int, rows: int) -> Modelled:
    """How long an accelerator of values of 32 bits takes for so many rows, at the best.

    It is taken to keep up with what bus, memory and link bring, and never to wait for an update.
    """
    return modelled(profile, 0, float32_bytes(columns, rows))

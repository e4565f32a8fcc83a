"""Widths, limits and register addresses of the accelerator: what gateware and its hosts share.

docs/accelerator.md explains them. Nothing here needs Amaranth.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from numbers import Integral

from ..errors import UsageError

__all__ = [
    "BATCH_TILES_LIMIT",
    "DELAYED_COLUMNS",
    "FEWEST_COLUMNS",
    "LEAST_EXPONENT",
    "NO_ROW",
    "VERSION",
    "Error",
    "Format",
    "Loss",
    "Register",
    "Status",
    "Table",
    "intercept_code",
    "margin_shift",
]

VERSION = 0x0002_0000  # of register map, stream and arithmetic: major, minor
IDENTITY = 0x4C4D505A  # "ZPML" in the order of bytes

MODEL_BITS = RESIDUAL_BITS = TARGET_BITS = TABLE_BITS = STEP_BITS = DRAW_BITS = 16
FLOAT_FRACTION = 12  # bits behind the point of a value in float32, once it is a code
LEAST_EXPONENT = 11  # of the logistic loss, up to 4 bits; 3 more are possible
LOGISTIC_BITS = 14  # of a residual of the logistic loss behind the point
RISE_BITS = 9  # of a curvature, of which 256 are a quarter
CURVATURE_SHIFT = 3  # of a sum of its curvatures, for the least exponent
LOGISTIC_LATENCY = 11  # cycles more than residuals of the other losses take
BATCH_TILES_LIMIT = 64
FEWEST_COLUMNS = 4  # shorter tiles would overtake their own targets and sums
DELAYED_COLUMNS = 40  # an update has to be through before the tile after the next one
LARGEST_SHIFT = 31
NO_ROW = -(1 << (TARGET_BITS - 1))  # the target of a slot without a row


def intercept_code(bits: int) -> int:
    """The code of the intercept's entry: of the size of other codes, or their entries differ."""
    return 1 << max(0, bits - 4)


def margin_shift(bits: int) -> int:
    """How many bits a unit of residuals and targets is above one of the model."""
    return max(4, bits)


class Loss(enum.IntEnum):
    """What the register LOSS chooses."""

    SQUARED = 0
    LOGISTIC = 1
    SQUARED_HINGE = 2


class Register(enum.IntEnum):
    """Byte addresses of the registers, each of 32 bits."""

    IDENTITY = 0x00
    VERSION = 0x04
    FORMAT = 0x08
    COLUMNS_LIMIT = 0x0C
    CONTROL = 0x10
    STATUS = 0x14
    COLUMNS = 0x18
    BATCH_TILES = 0x1C
    TILES = 0x20
    STEP = 0x24
    SHIFT = 0x28
    LOSS = 0x2C
    MODE = 0x30
    EXPONENT = 0x34
    SEED_LOW = 0x38
    SEED_HIGH = 0x3C
    CYCLES_LOW = 0x40
    CYCLES_HIGH = 0x44
    BEATS_LOW = 0x48
    BEATS_HIGH = 0x4C
    STALLS_LOW = 0x50
    STALLS_HIGH = 0x54


class Table(enum.IntEnum):
    """What bits 16 and up of an address choose; entry `j` lies at 4 `j`."""

    MODEL = 1
    CENTRE = 2
    PACE = 3
    VARIANCE = 4


class Error(enum.IntEnum):
    """Numbers of the bits of STATUS that say why a run ended."""

    EARLY_LAST = 8
    MISSING_LAST = 9
    CONFIGURATION = 10


class Status(enum.IntEnum):
    """Numbers of the other bits of STATUS."""

    BUSY = 0
    DONE = 1
    MODEL_SATURATED = 16
    RESIDUAL_SATURATED = 17


@dataclass(frozen=True)
class Format:
    """What a bitstream is built for.

    Attributes
    ----------
    bits : {1, 2, 4, 8, 16}
        Bits of a stored code; 16: values come as float32, and become codes of 16 bits at the door.
    lanes : {8, 16, 32, 64}
        Rows of a tile, which are the codes of a beat. Chunks have tiles of 64 rows: fewer lanes
        are for tests and small devices.
    depth : int
        Words of the memories, a power of two: at most ``depth - 24`` columns.
    """

    bits: int
    lanes: int = 64
    depth: int = 1024

    def __post_init__(self) -> None:
        for name, choices in (("bits", (1, 2, 4, 8, 16)), ("lanes", (8, 16, 32, 64))):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value not in choices:
                listed = ", ".join(map(str, choices))
                raise UsageError(f"accelerator: {name} is {value}; choose one of {listed}")
        is_whole = isinstance(self.depth, Integral)
        if not (is_whole and 64 <= self.depth <= 16384 and self.depth & (self.depth - 1) == 0):
            raise UsageError(
                f"accelerator: depth is {self.depth}; choose a power of two from 64 to 16384"
            )

    @property
    def columns_limit(self) -> int:
        """The most columns: beats of the next tile need room too."""
        return self.depth - 24

    @property
    def is_float(self) -> bool:
        """Whether values come as float32."""
        return self.bits == 16

    @property
    def value_bits(self) -> int:
        """Bits of a value on the stream."""
        return 32 if self.is_float else self.bits

    @property
    def beat_bits(self) -> int:
        """Width of the stream."""
        return self.lanes * self.value_bits

    @property
    def codes_bits(self) -> int:
        """Bits of a column's codes in a tile."""
        return self.lanes * self.bits

    @property
    def target_beats(self) -> int:
        """Beats ahead of a tile's codes."""
        return TARGET_BITS // self.bits

    @property
    def entry_bits(self) -> int:
        """Bits of the number of an entry."""
        return self.depth.bit_length() - 1

    @property
    def lane_bits(self) -> int:
        """Levels of a tree over the lanes."""
        return self.lanes.bit_length() - 1

    @property
    def product_latency(self) -> int:
        """Cycles of a product with a code."""
        return max(1, self.bits.bit_length() - 1)

    @property
    def residual_latency(self) -> int:
        """Cycles from a tile's last codes and their model to its residuals."""
        return max(3, self.product_latency + 1) + 3

    @property
    def update_wait(self) -> int:
        """Cycles from a mini-batch's last beat to the first that meets the new model.

        The logistic loss takes `LOGISTIC_LATENCY` more.
        """
        return 10 + self.residual_latency + self.product_latency + self.lane_bits

    @property
    def margin_shift(self) -> int:
        """How many bits a unit of residuals and targets is above one of the model."""
        return margin_shift(self.bits)

    @property
    def margin_bits(self) -> int:
        """Bits of a sum of products of model and codes, targets taken off."""
        return max(MODEL_BITS + self.bits, TARGET_BITS + self.margin_shift) + self.entry_bits + 1

    @property
    def curvature_bits(self) -> int:
        """Bits of a mini-batch's sum of curvatures."""
        return (self.lanes * BATCH_TILES_LIMIT).bit_length() + RISE_BITS - 1

    @property
    def tile_sum_bits(self) -> int:
        """Bits of a tile's sum of products of residuals and codes."""
        return RESIDUAL_BITS + self.bits + self.lane_bits

    @property
    def gradient_bits(self) -> int:
        """Bits of that sum over the largest mini-batch."""
        return self.tile_sum_bits + BATCH_TILES_LIMIT.bit_length() - 1

    @property
    def centre_fraction(self) -> int:
        """Bits of a centre behind the point."""
        return TABLE_BITS - self.bits

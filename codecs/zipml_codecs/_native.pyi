"""What the codecs use of the native core; the training kernels are not described here."""

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

_Float = npt.NDArray[np.floating[Any]]
_Bytes = npt.NDArray[np.uint8]

def simd_levels() -> list[str]: ...
def live_simd() -> str: ...
def select_simd(name: str) -> None: ...
def crc32c(data: _Bytes, before: int = 0) -> int: ...
def read_checked(file: int, start: int, out: _Bytes, aside: int) -> tuple[int, int]: ...
def read_object(path: str, start: int, size: int, to_end: bool) -> memoryview | None: ...
def begins_alike(data: Buffer, head: bytes, start: int, stop: int) -> bool: ...
def all_finite(values: npt.NDArray[np.float64]) -> bool: ...
def codes_size(rows: int, columns: int, stored_bits: int) -> int: ...
def grid_levels(
    exponent: _Ints,
    origin: _Longs,
    counts: _Longs,
    sums: _Longs,
    low: _Doubles,
    high: _Doubles,
    zeros: _Longs,
    at: _Doubles,
    more: _Doubles,
    top: int,
    places: npt.NDArray[np.uint16],
    found: _Doubles,
    uniform: _Doubles,
    spread: _Doubles,
) -> None: ...
def column_bounds(values: _Float | _Bytes, low: _Float, high: _Float) -> bool: ...
def row_magnitudes(values: _Float | _Bytes, largest: _Float) -> bool: ...
def decode_f16(
    codes: _Bytes,
    chunk_rows: int,
    first_tile: int,
    lower: _Float | None,
    upper: _Float,
    bits: int,
    samples: int,
    half: bool,
    out: npt.NDArray[np.uint16],
    stream: bool = False,
    values: _Float | None = None,
    woven: bool = False,
) -> None: ...
def decode_f32(
    codes: _Bytes,
    chunk_rows: int,
    first_tile: int,
    lower: _Float | None,
    upper: _Float,
    bits: int,
    samples: int,
    half: bool,
    out: _Float,
    stream: bool = False,
    values: _Float | None = None,
    woven: bool = False,
) -> None: ...
def decode_f64(
    codes: _Bytes,
    chunk_rows: int,
    first_tile: int,
    lower: _Float | None,
    upper: _Float,
    bits: int,
    samples: int,
    half: bool,
    out: _Float,
    stream: bool = False,
    values: _Float | None = None,
    woven: bool = False,
) -> None: ...
def take_f16(
    codes: _Bytes,
    chunk_rows: int,
    rows: npt.NDArray[np.int64],
    lower: _Float | None,
    upper: _Float,
    bits: int,
    samples: int,
    half: bool,
    out: npt.NDArray[np.uint16],
    values: _Float | None = None,
    woven: bool = False,
) -> None: ...
def take_f32(
    codes: _Bytes,
    chunk_rows: int,
    rows: npt.NDArray[np.int64],
    lower: _Float | None,
    upper: _Float,
    bits: int,
    samples: int,
    half: bool,
    out: _Float,
    values: _Float | None = None,
    woven: bool = False,
) -> None: ...
def take_f64(
    codes: _Bytes,
    chunk_rows: int,
    rows: npt.NDArray[np.int64],
    lower: _Float | None,
    upper: _Float,
    bits: int,
    samples: int,
    half: bool,
    out: _Float,
    values: _Float | None = None,
    woven: bool = False,
) -> None: ...

LEVEL_DIGITS: int
LEVEL_ROWS: int

_Doubles = npt.NDArray[np.float64]
_Longs = npt.NDArray[np.int64]
_Ints = npt.NDArray[np.int32]

def solve_levels(points: _Doubles, weights: _Doubles, chosen: _Ints) -> None: ...
def count_values(
    values: _Float,
    scale: _Doubles,
    shift: _Doubles,
    packed: npt.NDArray[np.uint64],
    zeros: _Longs,
) -> None: ...
def unpack_counts(
    packed: npt.NDArray[np.uint64],
    exponent: _Ints,
    origin: _Longs,
    counts: _Longs,
    sums: _Longs,
) -> None: ...
def add_bins(
    exponent: _Ints,
    origin: _Longs,
    counts: _Longs,
    sums: _Longs,
    other_exponent: _Ints,
    other_origin: _Longs,
    other_counts: _Longs,
    other_sums: _Longs,
) -> None: ...
def histogram_levels(
    exponent: _Ints,
    origin: _Longs,
    counts: _Longs,
    sums: _Longs,
    low: _Doubles,
    high: _Doubles,
    zeros: _Longs,
    levels: _Doubles,
) -> None: ...
def histogram_variance(
    exponent: _Ints,
    origin: _Longs,
    counts: _Longs,
    sums: _Longs,
    low: _Doubles,
    high: _Doubles,
    zeros: _Longs,
    levels: _Doubles,
    variance: _Doubles,
) -> None: ...
def quantize_draws(seed: int, tile: int, column: int, out: npt.NDArray[np.uint16]) -> None: ...
def __getattr__(name: str) -> Any: ...

"""The zipml chunk format: stochastic quantisation, packing, and the codecs that Zarr finds.

Plain ``zarr``, ``xarray`` and ``dask.array`` read and write through the entry points, without
importing this package. Import it to encode or decode chunks by hand. It needs numpy and its
native core only; the two codec classes live in modules of their own, so that neither zarr nor
numcodecs is imported before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .chunk import EncodedChunk, encode_chunk
from .errors import ChunkError, ValueRefusedError
from .header import ChunkHeader
from .quantizer import TILE_ROWS, Quantizer

if TYPE_CHECKING:
    from .levels import LevelHistograms, optimal_levels

__all__ = [
    "TILE_ROWS",
    "ChunkError",
    "ChunkHeader",
    "EncodedChunk",
    "LevelHistograms",
    "Quantizer",
    "ValueRefusedError",
    "encode_chunk",
    "optimal_levels",
]


def __getattr__(name: str) -> Any:
    """Import what reading and writing do not need when it is first asked for."""
    if name not in ("LevelHistograms", "optimal_levels"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import levels

    return getattr(levels, name)

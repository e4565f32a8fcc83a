"""Blocks of a source to the bytes of a dataset's chunks, by what its attributes say.

What comes out depends on the rows and the attributes alone, so that a chunk can be made again at
any time: to resume a run, or to repair a dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, EncodedChunk, encode_chunk

from .dataset_layout import DatasetLayout
from .errors import DataError
from .features import FeatureEncoder
from .targets import TargetEncoder
from .value_codec import CHECKSUM_BYTES, ValueCodec, add_checksum

if TYPE_CHECKING:
    from .sources import Block

__all__ = ["ChunkEncoder", "variance_sums"]


class ChunkEncoder:
    """Encodes the rows of chunks.

    Parameters
    ----------
    layout : DatasetLayout
    codecs : mapping, optional
        Of targets and weights, where they are not the usual one.
    """

    def __init__(
        self, layout: DatasetLayout, codecs: Mapping[str, ValueCodec | None] | None = None
    ) -> None:
        spec = layout.spec
        self._layout, self._spec = layout, spec
        self._features = FeatureEncoder.from_dict(spec.encoder["features"])
        self._target = None
        if spec.task is not None:
            self._target = TargetEncoder(
                spec.task, spec.targets, spec.classes, spec.target_statistics
            )
        fill = spec.encoder["fill"]
        self._fill = None if fill is None else np.asarray(fill, np.float64)
        usual = {
            name: ValueCodec.usual(layout.zarr_format, layout.dtype(name))
            for name in layout.arrays[1:]
        }
        given = {name: codec for name, codec in (codecs or {}).items() if codec is not None}
        self._codecs = usual | given

    def read(self, block: Block) -> dict[str, npt.NDArray[Any]]:
        """Return the values that a block has for each array."""
        out: dict[str, npt.NDArray[Any]] = {"X": self._features.transform(block)}
        if self._target is not None:
            if block.target is None:
                raise DataError(
                    f"the source has no target {', '.join(self._spec.targets)} any more"
                )
            out["y"] = self._target.transform(block.target, block.first_row)
        if self._spec.weight is not None:
            assert block.weight is not None  # the source was opened with that column
            out["sample_weight"] = block.weight
        return out

    def encode(self, array: str, values: npt.NDArray[Any], chunk: int) -> bytes:
        """Encode the values of a chunk as they are stored.

        Raises
        ------
        zipml_codecs.ValueRefusedError
            Values that the first pass did not see.
        """
        if array == "X":
            return self._encode_features(values, chunk)
        padded = self._layout.empty_chunk(array)
        padded[: len(values)] = values.reshape(len(values), *padded.shape[1:])
        return self._codecs[array].encode(padded)

    def _encode_features(self, values: npt.NDArray[np.float64], chunk: int) -> bytes:
        spec = self._spec
        if self._fill is not None:
            values = np.where(np.isnan(values), self._fill, values)
        encoded = encode_chunk(
            ((values - spec.mean) / spec.scale).astype(np.float32),
            spec.quantizer,
            lower=spec.lower,
            upper=spec.upper,
            first_tile=chunk * spec.chunk_rows // TILE_ROWS,
            chunk_shape=(spec.chunk_rows, values.shape[1]),
            levels=None if spec.level_tables is None else spec.level_tables.places,
        )
        return add_checksum(encoded)


def variance_sums(stored: bytes) -> npt.NDArray[Any]:
    """The sums of rounding variance in a stored chunk."""
    return EncodedChunk.parse(memoryview(stored)[:-CHECKSUM_BYTES]).variance_sums

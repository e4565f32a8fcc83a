"""The quantiser as an array-to-bytes codec of Zarr format 3, found by its entry point."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec

from .chunk import EncodedChunk, encode_chunk
from .quantizer import Quantizer

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer
    from zarr.core.chunk_grids import ChunkGrid
    from zarr.core.common import JSON
    from zarr.core.dtype.wrapper import TBaseDType, TBaseScalar, ZDType

__all__ = ["QuantizeCodec"]

NAME = "zipml.quantize"


@dataclass(frozen=True)
class QuantizeCodec(ArrayBytesCodec):
    """Serializer of float arrays as stochastically quantised codes of 1 to 8 bits.

    Parameters
    ----------
    quantizer : Quantizer
        See `zipml_codecs.Quantizer`; in Zarr metadata its fields are the ``configuration``.

    Examples
    --------
    >>> import numpy as np, zarr
    >>> array = zarr.create_array(
    ...     {}, shape=(1000, 10), chunks=(512, 10), dtype="f4",
    ...     serializer={"name": "zipml.quantize", "configuration": {"bits": 4}},
    ...     compressors=[{"name": "crc32c"}],
    ... )
    >>> array[:] = np.linspace(0, 1, 10_000, dtype="f4").reshape(1000, 10)
    >>> array[:].shape
    (1000, 10)
    """

    is_fixed_size = False

    quantizer: Quantizer = field(default_factory=Quantizer)

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Build from a codec entry of Zarr metadata."""
        if data.get("name") != NAME:
            raise ValueError(f"expected the codec {NAME!r}, got {data.get('name')!r}")
        configuration: Any = data.get("configuration") or {}
        return cls(Quantizer.from_dict(configuration))

    def to_dict(self) -> dict[str, JSON]:
        """Return the codec entry of Zarr metadata."""
        return {"name": NAME, "configuration": self.quantizer.to_dict()}

    def validate(
        self,
        *,
        shape: tuple[int, ...],
        dtype: ZDType[TBaseDType, TBaseScalar],
        chunk_grid: ChunkGrid,
    ) -> None:
        """Refuse arrays that hold no floats when they are created, not when they are written."""
        native = dtype.to_native_dtype()
        if native.kind != "f" or native.itemsize not in (2, 4, 8):
            raise TypeError(
                f"{NAME} stores float16, float32 and float64 arrays, the array is {native}"
            )

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        dtype = chunk_spec.dtype.to_native_dtype()
        chunk = EncodedChunk.parse(chunk_bytes.to_bytes())
        chunk.require_shape(chunk_spec.shape, dtype.itemsize)
        decoded = chunk.decode().astype(dtype, copy=False)
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(decoded)  # type: ignore[arg-type]

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_array, chunk_spec)

    def _encode_sync(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        encoded = encode_chunk(np.asarray(chunk_array.as_ndarray_like()), self.quantizer)
        return chunk_spec.prototype.buffer.from_bytes(encoded)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known before encoding: the size depends on the padding that is left out."""
        raise NotImplementedError  # what Zarr expects of codecs of variable size

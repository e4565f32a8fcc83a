"""The quantiser as a numcodecs codec: Zarr format 2, and anything else that speaks numcodecs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy

from .chunk import EncodedChunk, encode_chunk
from .errors import ChunkError
from .quantizer import Quantizer

__all__ = ["Quantize"]

# The limit of numcodecs' own compressors. A decoder that is not told the array's shape needs one:
# a few bytes can say that a chunk of any size is nothing but padding.
_MAX_BYTES = 2**31 - 1


class Quantize(Codec):  # type: ignore[misc]
    """Store float arrays as stochastically quantised codes of 1 to 8 bits.

    Use it as the first filter of a Zarr format 2 array. Decoding gives one of the two levels next
    to each value, equal to the value in expectation.

    Parameters
    ----------
    bits, samples, scale, seed, nan, levels, layout, precisions
        See `zipml_codecs.Quantizer`.

    Examples
    --------
    >>> import numpy as np
    >>> from zipml_codecs.numcodecs_codec import Quantize
    >>> values = np.linspace(0, 1, 1000, dtype="f4").reshape(100, 10)
    >>> codec = Quantize(bits=4)
    >>> encoded = codec.encode(values)
    >>> decoded = codec.decode(encoded)
    >>> decoded.shape, decoded.dtype
    ((100, 10), dtype('float32'))
    >>> bool(abs(decoded - values).max() <= 1 / 15)
    True

    See Also
    --------
    zipml_codecs.zarr_codec.QuantizeCodec : the same for Zarr format 3.
    """

    codec_id = "zipml.quantize"

    def __init__(
        self,
        bits: int = 4,
        samples: int = 1,
        scale: str = "column",
        seed: int = 0,
        nan: str = "error",
        levels: str = "uniform",
        layout: str = "packed",
        precisions: Sequence[int] = (),
    ) -> None:
        self.quantizer = Quantizer(
            bits=bits,
            samples=samples,
            scale=scale,
            seed=seed,
            nan=nan,
            levels=levels,
            layout=layout,
            precisions=tuple(precisions),
        )

    def encode(self, buf: Any) -> bytearray:
        """Encode a float array of less than 2 GiB; see `zipml_codecs.encode_chunk`."""
        values = np.asanyarray(buf)
        if values.nbytes > _MAX_BYTES:
            raise ValueError(
                f"a chunk of {values.nbytes} bytes is too large, the limit is {_MAX_BYTES}: "
                "use smaller chunks"
            )
        return encode_chunk(values, self.quantizer)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode to the array that was encoded; with `out`, into that buffer."""
        chunk = EncodedChunk.parse(ensure_contiguous_ndarray(buf).view(np.uint8))
        size = math.prod(chunk.header.shape) * chunk.header.item_size
        if size > _MAX_BYTES:
            raise ChunkError(
                f"the chunk claims to decode to {size} bytes, the limit is {_MAX_BYTES}"
            )
        return ndarray_copy(chunk.decode(), out)

    def get_config(self) -> dict[str, Any]:
        """Return the JSON form that `numcodecs.get_codec` reads."""
        return {"id": self.codec_id, **self.quantizer.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Quantize:
        """Build from `get_config`'s form, without the ``id``."""
        return cls(**Quantizer.from_dict(config).to_dict())

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in self.quantizer.to_dict().items())
        return f"Quantize({options})"

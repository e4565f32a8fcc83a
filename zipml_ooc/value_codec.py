"""How chunks of targets and weights are stored: Zstandard and a checksum, or what metadata say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
from numcodecs.zstd import Zstd
from zipml_codecs import ChunkError
from zipml_codecs.checksum import crc32c

__all__ = ["CHECKSUM_BYTES", "ValueCodec", "add_checksum", "require_size", "without_checksum"]

CHECKSUM_BYTES = 4


def add_checksum(data: bytes | bytearray) -> bytes:
    """Append the CRC-32C that Zarr's codec `crc32c` expects."""
    checksum = crc32c(data)
    return b"".join((data, checksum.to_bytes(CHECKSUM_BYTES, "little")))


def without_checksum(data: memoryview) -> memoryview:
    """What stands before a CRC-32C, once that is right.

    Raises
    ------
    ChunkError
        It is not.
    """
    body = data[:-CHECKSUM_BYTES]
    stated = int.from_bytes(data[-CHECKSUM_BYTES:], "little")
    if crc32c(body) != stated:
        raise ChunkError("its checksum does not match: truncated or corrupted")
    return body


class ValueCodec:
    """Encodes and decodes the bytes of a chunk.

    Parameters
    ----------
    compressor : numcodecs codec or None
        None: the bytes as they are.
    checksum : bool
        Whether a CRC-32C follows.
    """

    def __init__(self, compressor: Any, *, checksum: bool) -> None:
        self._compressor, self._checksum = compressor, checksum

    @classmethod
    def usual(cls, zarr_format: int, dtype: np.dtype[Any]) -> ValueCodec:
        """The one that values of a type are written with.

        Format 2 has one compressor, so that the checksum is Zstandard's own. In format 3 floats are
        stored as they are: Zstandard rarely halves them, and decoding them took half as long as
        reading all of X.
        """
        if zarr_format == 2:
            return cls(Zstd(checksum=True), checksum=False)
        return cls(None if dtype.kind == "f" else Zstd(level=0), checksum=True)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], codecs: Any = None) -> ValueCodec | None:
        """The one that an array's metadata name; None if it is another than is known here.

        Parameters
        ----------
        metadata : mapping
            Of the array.
        codecs : list, optional
            Those of the inner chunks, where the array has shards.
        """
        if metadata["zarr_format"] == 2:
            config = metadata["compressor"]
            if metadata["filters"]:
                return None
            return cls(config and numcodecs.get_codec(dict(config)), checksum=False)
        listed = codecs or metadata["codecs"]
        names = [codec["name"] for codec in listed]
        packed = names[1:2] == ["zstd"]
        checks = [["crc32c"], []] if packed else [["crc32c"]]
        if names[:1] != ["bytes"] or names[1 + packed :] not in checks:
            return None
        compressor = Zstd(**listed[1]["configuration"]) if packed else None
        return cls(compressor, checksum=names[-1] == "crc32c")

    @property
    def checked(self) -> bool:
        """Whether there is a checksum, of its own or the compressor's."""
        return self._checksum or bool(getattr(self._compressor, "checksum", False))

    @property
    def as_they_are(self) -> bool:
        """Whether a chunk is the bytes of its values and a checksum."""
        return self._checksum and self._compressor is None

    def to_metadata(self) -> Any:
        """Return what Zarr calls compressors."""
        if not self._checksum:
            return self._compressor
        if self._compressor is None:
            return [{"name": "crc32c"}]
        options = self._compressor.get_config()
        del options["id"]
        return [{"name": "zstd", "configuration": options}, {"name": "crc32c"}]

    def encode(self, values: npt.NDArray[Any]) -> bytes:
        """Encode the values of a chunk, padding included."""
        raw = np.ascontiguousarray(values)
        data = raw.tobytes() if self._compressor is None else bytes(self._compressor.encode(raw))
        return add_checksum(data) if self._checksum else data

    def decode(self, data: memoryview, out: npt.NDArray[Any]) -> None:
        """Decode to an array of the values of the chunk.

        Raises
        ------
        ChunkError
            Damaged, or another number of values.
        """
        body = without_checksum(data) if self._checksum else data
        size = len(body) if self._compressor is None else out.nbytes
        if isinstance(self._compressor, Zstd):
            size = _content_size(body)
        require_size(size, out.nbytes)
        if self._compressor is None:
            out.reshape(-1).view(np.uint8)[:] = np.frombuffer(body, np.uint8)
            return
        try:
            self._compressor.decode(body, out)
        except (RuntimeError, ValueError) as error:
            raise ChunkError(f"it cannot be decompressed: {error}") from error


def require_size(size: int, expected: int) -> None:
    """Refuse a chunk whose values take another number of bytes."""
    if size != expected:
        raise ChunkError(f"it does not hold {expected} bytes of values")


def _content_size(data: memoryview) -> int:
    """What a Zstandard frame (RFC 8878) says about its size: asked before anything is allocated."""
    if len(data) < 18 or bytes(data[:4]) != b"\x28\xb5\x2f\xfd":
        return -1
    single = data[4] >> 5 & 1
    size = (single, 2, 4, 8)[data[4] >> 6]
    start = 5 + (1 - single) + (0, 1, 2, 4)[data[4] & 3]
    return int.from_bytes(data[start : start + size], "little") + 256 * (size == 2)

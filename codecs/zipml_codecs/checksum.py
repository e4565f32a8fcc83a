"""CRC-32C, the checksum of stored chunks: by the native core, without copying what is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import _native

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["crc32c"]


def crc32c(data: Buffer) -> int:
    """Return the CRC-32C of contiguous bytes.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    return _native.crc32c(np.frombuffer(memoryview(data), np.uint8))

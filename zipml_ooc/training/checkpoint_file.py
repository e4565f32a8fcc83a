"""The container of a checkpoint: one JSON text, some arrays, and a digest of everything.

Nothing in it can run code, and nothing is believed before the digest has been compared. Writing is
atomic: the bytes reach the disk under a temporary name and take the real one in a single step.
What the parts mean is not for here, see `course`.

Layout: 8 bytes of magic, the length of the JSON text (8 bytes, little-endian), the text, the arrays
one behind the other, and the SHA-256 of all that. In the text an array stands as
``{"array": [type, shape]}``, in the order in which they follow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from ..durable import try_to_sync
from ..errors import DataError

__all__ = ["read_checkpoint", "write_checkpoint"]

_MAGIC = b"zipmlCP1"
_DIGEST_BYTES = 32
_TYPES = ("<f4", "<f8")


def write_checkpoint(path: Path, tree: Any) -> None:
    """Write a tree of JSON values and of float32 and float64 arrays, whole or not at all.

    Raises
    ------
    OSError
        There is no room, or no permission; an older file of that name is as it was.
    """
    arrays: list[bytes] = []
    text = json.dumps(_without_arrays(tree, arrays)).encode()
    digest = hashlib.sha256()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            for part in (_MAGIC, len(text).to_bytes(8, "little"), text, *arrays):
                digest.update(part)
                file.write(part)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    try_to_sync(path.parent)


def read_checkpoint(path: Path) -> Any:
    """Read what `write_checkpoint` wrote.

    Raises
    ------
    DataError
        The file cannot be read, is truncated, or a bit of it has changed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror or error}") from error
    body = data[:-_DIGEST_BYTES]
    if not body.startswith(_MAGIC):
        raise DataError("it is no checkpoint, or its beginning is damaged")
    if hashlib.sha256(body).digest() != data[-_DIGEST_BYTES:]:
        raise DataError("its digest does not match: truncated or damaged")
    start = len(_MAGIC) + 8
    end = start + int.from_bytes(body[len(_MAGIC) : start], "little")
    try:
        tree, used = _with_arrays(json.loads(body[start:end]), memoryview(body), end)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"it cannot be understood ({error})") from error
    if used != len(body):
        raise DataError(f"it holds {len(body)} bytes and describes {used}")
    return tree


def _without_arrays(value: Any, arrays: list[bytes]) -> Any:
    if isinstance(value, np.ndarray):
        kind = value.dtype.newbyteorder("<").str
        if kind not in _TYPES:
            raise TypeError(f"a checkpoint holds arrays of {', '.join(_TYPES)}, not of {kind}")
        arrays.append(value.astype(kind, copy=False).tobytes())
        return {"array": [kind, list(value.shape)]}
    if isinstance(value, dict):
        return {key: _without_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(item, arrays) for item in value]
    return value


def _with_arrays(value: Any, data: memoryview, offset: int) -> tuple[Any, int]:
    if isinstance(value, dict) and value.keys() == {"array"}:
        kind, shape = value["array"]
        if kind not in _TYPES or min(shape, default=0) < 0:
            raise ValueError(f"an array of type {kind} and shape {shape}")
        count = math.prod(shape)
        array = np.frombuffer(data, kind, count, offset).reshape(shape)
        return array.copy(), offset + array.nbytes
    if isinstance(value, dict):
        out: dict[str, Any] = {}
        for key, item in value.items():
            out[key], offset = _with_arrays(item, data, offset)
        return out, offset
    if isinstance(value, list):
        items = []
        for item in value:
            found, offset = _with_arrays(item, data, offset)
            items.append(found)
        return items, offset
    return value, offset

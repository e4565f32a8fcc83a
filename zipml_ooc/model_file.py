"""The container of a `.zipml` model file: a plain ZIP of one JSON text and a few `.npy` arrays.

Any language can read it and nothing in it can run code. Writing is atomic and reproducible; reading
trusts no size, no type and no checksum that it has not compared. This module is not for what the
parts mean: `zipml_ooc.model` makes a model of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import secrets
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .durable import try_to_sync
from .errors import DataError, UsageError

__all__ = ["read_model_file", "write_model_file"]

FloatArray = NDArray[np.float64]

_FORMAT, _MAJOR, _VERSION = "zipml-model", 1, "1.0"
_HEADER = "model.json"


def write_model_file(
    path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, FloatArray]
) -> None:
    """Write `header` and `arrays` to `path`, whole or not at all.

    The bytes go to a temporary file in the same directory, reach the disk and take the name in one
    step, so that an interruption leaves an older file as it was. The same parts give the same
    bytes.

    Parameters
    ----------
    path : path-like
        The file to write or replace.
    header : mapping
        JSON-able; the format and its version are added.
    arrays : mapping of str to ndarray, float64
        Each becomes the member ``<name>.npy``.

    Raises
    ------
    UsageError
        The directory is missing or not writable, or `path` is a directory.
    DataError
        The disk is full or failed.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{target} is a directory; give the name of a file in it")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            _write_archive(file, header, arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        try_to_sync(target.parent)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise UsageError(
            f"cannot write the model to {target}: {error.strerror}; "
            "give a path in an existing directory that you may write to"
        ) from error
    except OSError as error:
        raise DataError(
            f"writing the model to {target} failed: {error.strerror or error}; "
            "free some space or choose another disk"
        ) from error
    finally:  # gone already when the rename was done
        with contextlib.suppress(OSError):
            temporary.unlink()


def read_model_file(
    path: str | os.PathLike[str], names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """Read back the header and the arrays `names`.

    Nothing is unpickled, and no member can claim more bytes than the file has.

    Raises
    ------
    UsageError
        The file is missing, a directory or not readable.
    DataError
        The file is truncated, corrupted, of another kind or of another major version. The
        message does not repeat the path: the caller, who checks further, names it once.
    """
    try:
        with open(path, "rb") as file:
            members = [_HEADER, *(f"{name}.npy" for name in names)]
            parts = _read_archive(file, members, os.fstat(file.fileno()).st_size)
    except FileNotFoundError as error:
        raise UsageError(
            f"the model file {os.fspath(path)} does not exist; check the path"
        ) from error
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise UsageError(
            f"cannot open the model file {os.fspath(path)}: {error.strerror}; check the path"
        ) from error
    except OSError as error:
        raise DataError(f"reading it failed ({error}); try another copy") from error
    header = _read_header(parts[_HEADER])
    return header, {name: _read_array(f"{name}.npy", parts[f"{name}.npy"]) for name in names}


def _write_archive(
    file: BinaryIO, header: Mapping[str, Any], arrays: Mapping[str, FloatArray]
) -> None:
    text = {"format": _FORMAT, "version": _VERSION, **header}
    members = {_HEADER: json.dumps(text, allow_nan=False, indent=1).encode()}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(
            buffer, array.astype("<f8", copy=False), version=(1, 0), allow_pickle=False
        )
        members[f"{name}.npy"] = buffer.getvalue()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix on every system: the same model, the same bytes
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)


def _read_archive(file: BinaryIO, members: Sequence[str], file_bytes: int) -> dict[str, bytes]:
    """The bytes of the members, each checked against the ZIP's sizes and checksums."""
    parts: dict[str, bytes] = {}
    # zipfile meets damage with whatever its parsing stumbles over, hence the width of the net.
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            for name in members:
                if names.count(name) != 1:
                    raise DataError(f"it holds {names.count(name)} members {name!r} instead of 1")
                info = archive.getinfo(name)
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
                    raise DataError(f"{name} is compressed or encrypted; a model file is neither")
                if info.file_size != info.compress_size or info.file_size > file_bytes:
                    raise DataError(
                        f"{name} declares {info.file_size} bytes, but the whole file has "
                        f"{file_bytes}"
                    )
                parts[name] = archive.read(info)
    except DataError:
        raise
    except zipfile.BadZipFile as error:
        raise DataError(
            f"truncated, corrupted or not a model file ({error}); use another copy"
        ) from error
    except Exception as error:
        raise DataError(
            f"the archive is corrupted ({type(error).__name__}: {error}); use another copy"
        ) from error
    return parts


def _read_array(name: str, data: bytes) -> FloatArray:
    """A float64 array from the bytes of an `.npy` member, sized before anything is allocated."""
    buffer = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(buffer) != (1, 0):
            raise DataError(f"{name} is not an .npy array of version 1.0")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(buffer)
    except DataError:
        raise
    except Exception as error:  # the header parser of NumPy raises more than it documents
        reason = str(error).partition("\n")[0]
        raise DataError(f"{name} is not an .npy array ({reason})") from error
    if dtype != np.dtype("<f8"):
        raise DataError(f"{name} has dtype {dtype}, but a model stores little-endian float64")
    body = data[buffer.tell() :]
    if min(shape, default=0) < 1 or 8 * math.prod(shape) != len(body):
        raise DataError(f"{name} declares shape {shape}, but holds {len(body)} bytes of values")
    return np.frombuffer(body, dtype="<f8").reshape(shape, order="F" if fortran_order else "C")


def _read_header(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"model.json is not valid JSON ({error})") from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise DataError(f"model.json does not say format {_FORMAT!r}; this is another kind of file")
    version = header.get("version")
    major, _, minor = version.partition(".") if isinstance(version, str) else ("", "", "")
    if not (major.isdecimal() and minor.isdecimal()):
        raise DataError(f"model.json says version {version!r}, not a version like {_VERSION!r}")
    if int(major[:9]) != _MAJOR:
        raise DataError(
            f"it has format version {version:.40}, but this program reads version {_MAJOR}.x; "
            "use the version of zipml-ooc that wrote it, or a newer one"
        )
    return header

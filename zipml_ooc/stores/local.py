"""Stores on this machine: a folder, and a Zip file whose members lie in it as they are."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from zipml_codecs import ChunkError, _native

from ..errors import DataError
from ..value_codec import CHECKSUM_BYTES, without_checksum
from .base import MARKERS, Range, Traffic, from_start, short

__all__ = ["LocalStore", "ZipStore"]

_MEMBER = struct.Struct("<4s22xHH")  # the header before a member: magic, lengths of name and extra
_MEMBER_MAGIC = b"PK\x03\x04"


class LocalStore:
    """A folder of this machine."""

    remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = str(folder)
        self.traffic = Traffic()

    def exists(self) -> bool:
        """See `Store`."""
        return self._folder.exists()

    def size(self, key: str) -> int:
        """See `Store`."""
        return (self._folder / key).stat().st_size

    def stamp(self, keys: Sequence[str]) -> str:
        """See `Store`."""
        paths = [self._folder / key for key in keys]
        return str(max((p.stat().st_mtime_ns for p in paths if p.exists()), default=0))

    def read(self, key: str, ranges: Sequence[Range] | None = None) -> memoryview:
        """See `Store`."""
        with (self._folder / key).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            out = _read(file, key, [(0, size)] if ranges is None else ranges, 0, size)
        self.traffic.add(len(out), 1 if ranges is None else len(ranges))
        return out

    def read_checked(
        self, key: str, part: Range | None = None, expected_bytes: int = 0
    ) -> memoryview:
        """See `Store`."""
        path = f"{self.place}/{key}"
        start, size = part or (0, expected_bytes)
        out = None
        if start >= 0 and size == expected_bytes >= CHECKSUM_BYTES:
            out = _native.read_object(path, start, size, part is None)
        if out is None:  # it is another one, damaged, or not to be read: this says which
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(file).st_size
                out = _read_checked(file, key, part or (0, size), 0, size)
            finally:
                os.close(file)
        self.traffic.add(len(out) + CHECKSUM_BYTES, 1)
        return out


class ZipStore:
    """A Zip file of this machine. Members that are stored as they are, are ranges of the file."""

    remote = False

    def __init__(self, file: Path) -> None:
        self._file = file
        self.place = str(file) if file.suffix == ".zip" else f"zip://{file}"
        self.traffic = Traffic()
        self._starts: dict[str, int] = {}

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._file)
        except zipfile.BadZipFile as error:
            raise DataError(f"{self._file} is no whole Zip file: {error}") from error

    @cached_property
    def _top(self) -> str:
        """What stands before keys: the folder of the group, where that was zipped by its name.

        Whatever else there may be: folders around it, or what a system adds of its own.
        """
        folders = set()
        for name in self._archive.namelist():
            folder, slash, last = name.rpartition("/")
            if last in MARKERS:
                folders.add(folder + slash)
        depth = min((folder.count("/") for folder in folders), default=0)
        outermost = [folder for folder in folders if folder.count("/") == depth]
        return outermost[0] if len(outermost) == 1 else ""

    def _member(self, key: str) -> zipfile.ZipInfo:
        try:
            return self._archive.getinfo(self._top + key)
        except KeyError:
            raise FileNotFoundError(f"{self._file} has no member {key}") from None

    def exists(self) -> bool:
        """See `Store`."""
        return self._file.exists()

    def size(self, key: str) -> int:
        """See `Store`."""
        return self._member(key).file_size

    def stamp(self, keys: Sequence[str]) -> str:
        """See `Store`."""
        return str(self._file.stat().st_mtime_ns)

    def read(self, key: str, ranges: Sequence[Range] | None = None) -> memoryview:
        """See `Store`."""
        member = self._member(key)
        parts = [(0, member.file_size)] if ranges is None else ranges
        if member.compress_type == zipfile.ZIP_STORED:
            with self._file.open("rb", buffering=0) as file:
                start = self._start(file, member)
                out = _read(file, key, parts, start, member.file_size)
        else:
            whole = self._unpacked(member)
            counted = [from_start(part, len(whole)) for part in parts]
            for part, (start, length) in zip(parts, counted, strict=True):
                if start < 0 or start + length > len(whole):
                    raise short(key, part)
            out = memoryview(b"".join(whole[start : start + n] for start, n in counted))
        self.traffic.add(len(out), len(parts))
        return out

    def read_checked(
        self, key: str, part: Range | None = None, expected_bytes: int = 0
    ) -> memoryview:
        """See `Store`."""
        member = self._member(key)
        if member.compress_type != zipfile.ZIP_STORED:
            return without_checksum(self.read(key, None if part is None else [part]))
        start, size = part or (0, member.file_size)
        base = self._starts.get(member.filename)
        out = None
        inside = 0 <= start <= member.file_size - size
        if base is not None and inside and size == expected_bytes >= CHECKSUM_BYTES:
            out = _native.read_object(str(self._file), base + start, size, False)
        if out is None:
            with self._file.open("rb", buffering=0) as file:
                base = self._start(file, member)
                out = _read_checked(file.fileno(), key, (start, size), base, member.file_size)
        self.traffic.add(len(out) + CHECKSUM_BYTES, 1)
        return out

    def _start(self, file: BinaryIO, member: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin: behind a header of its own, which may have any length."""
        known = self._starts.get(member.filename)
        if known is None:
            file.seek(member.header_offset)
            header = file.read(_MEMBER.size)
            if len(header) < _MEMBER.size or not header.startswith(_MEMBER_MAGIC):
                raise OSError(f"the Zip file has no member at byte {member.header_offset}")
            _, name, extra = _MEMBER.unpack(header)
            known = member.header_offset + _MEMBER.size + name + extra
            self._starts[member.filename] = known
        return known

    def _unpacked(self, member: zipfile.ZipInfo) -> bytes:
        try:
            return self._archive.read(member)
        except Exception as error:  # each way of packing has errors of its own
            raise OSError(f"member {member.filename} cannot be unpacked: {error}") from error


def _read(file: BinaryIO, key: str, parts: Sequence[Range], base: int, size: int) -> memoryview:
    """Read ranges of an object that is `size` bytes from `base` on."""
    counted = [from_start(part, size) for part in parts]
    for part, (start, length) in zip(parts, counted, strict=True):
        if start < 0 or start + length > size:  # before anything is allocated
            raise short(key, part)
    out = np.empty(sum(length for _, length in counted), np.uint8).data
    done = 0
    for part, (start, length) in zip(parts, counted, strict=True):
        file.seek(base + start)
        end = done + length
        while done < end:
            got = file.readinto(out[done:end])  # type: ignore[attr-defined]
            if not got:
                raise short(key, part)
            done += got
    return out


def _read_checked(file: int, key: str, part: Range, base: int, size: int) -> memoryview:
    """Read a range that ends with its checksum, which is taken on the way."""
    start, length = from_start(part, size)
    if start < 0 or start + length > size:
        raise short(key, part)
    if length < CHECKSUM_BYTES:
        raise ChunkError(f"its {length} bytes have no room for a checksum: truncated")
    out = np.empty(length, np.uint8)
    got, checksum = _native.read_checked(file, base + start, out, CHECKSUM_BYTES)
    if got < length:
        raise short(key, part)
    if checksum != int.from_bytes(out[-CHECKSUM_BYTES:].data, "little"):
        raise ChunkError("its checksum does not match: truncated or corrupted")
    return out[:-CHECKSUM_BYTES].data

"""From what the user typed to the files to read: paths, globs, directories and URLs.

Also finds the format and the compression from the names, and opens files as byte streams. Nothing
here looks inside a file.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from zipml_ooc.errors import UsageError, ZipmlError

FORMATS = {
    "csv": (".csv", ".tsv"),
    "parquet": (".parquet", ".pq"),
    "npy": (".npy",),
    "npz": (".npz",),
    "svmlight": (".svm", ".svmlight", ".libsvm"),
    "hdf5": (".h5", ".hdf5", ".he5"),
    "zarr": (".zarr", ".zarr.zip"),
}
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
_COMPRESSIBLE = ("csv", "svmlight")
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")


@dataclass(frozen=True)
class SourceFile:
    """One file, or one Zarr directory, that exists.

    Parameters
    ----------
    path
        As shown in messages and fingerprints: a local path or a URL.
    inner
        The path as its file system knows it.
    filesystem
        An fsspec file system, None for local files.
    directory
        Whether it is a directory.
    compression
        gzip, bz2, xz or zstd, from the name.
    """

    path: str
    inner: str
    filesystem: Any | None
    directory: bool = False
    compression: str | None = None

    @property
    def local(self) -> bool:
        """Whether it lies on this machine's file system."""
        return self.filesystem is None

    def open(self) -> Any:
        """The bytes as they are stored, seekable where the file system can."""
        if self.filesystem is None:
            return open(self.inner, "rb")
        return self.filesystem.open(self.inner, "rb")

    def open_text(self) -> Any:
        """The bytes after decompression, as a sequential stream."""
        import pyarrow as pa

        if self.local and self.compression != "xz":
            return pa.input_stream(self.inner, compression=self.compression)
        raw = self.open()
        if self.compression == "gzip":
            return gzip.open(raw)
        if self.compression == "bz2":
            return bz2.open(raw)
        if self.compression == "xz":
            return lzma.open(raw)
        if self.compression == "zstd":
            return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
        return raw

    def size(self) -> int | None:
        """Stored bytes; None where the file system does not say."""
        if self.filesystem is not None:
            if self.directory:
                return int(self.filesystem.du(self.inner))
            return cast("int | None", self.filesystem.size(self.inner))
        path = Path(self.inner)
        if self.directory:
            return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        return path.stat().st_size


def resolve_files(paths: Sequence[str], format: str | None) -> tuple[list[SourceFile], str]:  # noqa: A002
    """The files behind `paths`, in order, and their one format."""
    if format is not None and format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; choose one of {', '.join(FORMATS)}")
    if not paths:
        raise UsageError("no source given; name at least one file, directory, glob or URL")
    files: list[SourceFile] = []
    formats: dict[str, str] = {}
    for path in paths:
        for file in _expand(path, format):
            kind = format or _format_of(file)
            formats.setdefault(kind, file.path)
            files.append(_with_compression(file, kind))
    if len(formats) > 1:
        mix = ", ".join(f"{kind} ({path})" for kind, path in formats.items())
        raise UsageError(f"the files have different formats: {mix}; read one format at a time")
    return files, next(iter(formats))


def _expand(path: str, format: str | None) -> list[SourceFile]:  # noqa: A002
    found = _expand_url(path) if "://" in path else _expand_local(path)
    files: list[SourceFile] = []
    for file in found:
        if file.directory and not _is_zarr(file, format):
            files.extend(_directory_files(file, format))
        else:
            files.append(file)
    return files


def _expand_local(path: str) -> list[SourceFile]:
    local = Path(path)
    if local.exists():
        return [SourceFile(path, path, None, directory=local.is_dir())]
    if not glob.has_magic(path):
        raise UsageError(f"{path}: no such file or directory")
    matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    if not matches:
        raise UsageError(f"{path}: no file matches this pattern")
    return [SourceFile(match, match, None, directory=Path(match).is_dir()) for match in matches]


def _expand_url(url: str) -> list[SourceFile]:
    import fsspec

    try:
        filesystem, inner = fsspec.core.url_to_fs(url)
        if isinstance(filesystem, fsspec.implementations.local.LocalFileSystem):
            return _expand_local(inner)
        # A question mark in a web address starts its query.
        magic = "*" in inner or (glob.has_magic(inner) and not inner.startswith("http"))
        if magic and not filesystem.exists(inner):
            matches = sorted(filesystem.glob(inner))
            if not matches:
                raise UsageError(f"{url}: no file matches this pattern")
            return [
                _remote(filesystem, match, filesystem.unstrip_protocol(match)) for match in matches
            ]
        if not filesystem.exists(inner):
            raise UsageError(f"{url}: no such file or directory")
        return [_remote(filesystem, inner, url)]
    except ZipmlError:
        raise
    except ImportError as error:
        raise UsageError(f"{url}: a package is missing for this kind of URL: {error}") from error
    except Exception as error:  # every file system has exceptions of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{url}: cannot be reached: {reason}") from error


def _remote(filesystem: Any, inner: str, url: str) -> SourceFile:
    return SourceFile(url, inner, filesystem, directory=bool(filesystem.isdir(inner)))


def _is_zarr(file: SourceFile, format: str | None) -> bool:  # noqa: A002
    if format is not None:
        return format == "zarr"
    if _plain_name(file.path).endswith(".zarr"):
        return True
    if file.filesystem is None:
        return any((Path(file.inner) / mark).exists() for mark in _ZARR_MARKS)
    return any(file.filesystem.exists(f"{file.inner}/{mark}") for mark in _ZARR_MARKS)


def _directory_files(directory: SourceFile, format: str | None) -> list[SourceFile]:  # noqa: A002
    kind = format or "parquet"
    suffixes = FORMATS[kind]
    if kind in _COMPRESSIBLE:
        suffixes += tuple(s + c for s in FORMATS[kind] for c in COMPRESSIONS)
    filesystem, root = directory.filesystem, directory.inner.rstrip("/")
    if filesystem is None:
        inside = sorted(str(path) for path in Path(root).rglob("*") if path.is_file())
    else:
        inside = sorted(filesystem.find(root))
    files: list[SourceFile] = []
    for inner in inside:
        relative = inner[len(root) :].strip("/") if root != "." else inner
        # Writers leave _SUCCESS, _metadata and hidden temporary files beside the data.
        hidden = any(part.startswith(("_", ".")) for part in relative.split("/"))
        if not hidden and relative.lower().endswith(suffixes):
            path = inner if filesystem is None else filesystem.unstrip_protocol(inner)
            files.append(SourceFile(path, inner, filesystem))
    if not files:
        raise UsageError(
            f"{directory.path}: the directory holds no {kind} file ({', '.join(suffixes)}); "
            "name the files, or their format with format= (--format)"
        )
    return files


def _plain_name(path: str) -> str:
    """The lower-case file name without the query of a URL and without a trailing slash."""
    if path.startswith("http"):
        path = path.split("?")[0].split("#")[0]
    return path.split("::")[0].rstrip("/").rsplit("/", 1)[-1].lower()


def _compression_of(path: str) -> tuple[str | None, str]:
    name = _plain_name(path)
    for suffix, compression in COMPRESSIONS.items():
        if name.endswith(suffix):
            return compression, name.removesuffix(suffix)
    return None, name


def _format_of(file: SourceFile) -> str:
    if file.directory:
        return "zarr"
    _, name = _compression_of(file.path)
    for kind, suffixes in FORMATS.items():
        if name.endswith(suffixes):
            return kind
    known = ", ".join(suffix for suffixes in FORMATS.values() for suffix in suffixes)
    raise UsageError(
        f"{file.path}: the format cannot be told from the name (known: {known}); "
        f"name it with format= (--format), one of {', '.join(FORMATS)}"
    )


def _with_compression(file: SourceFile, kind: str) -> SourceFile:
    compression, _ = _compression_of(file.path)
    if compression is None or file.directory:
        return file
    if kind not in _COMPRESSIBLE:
        raise UsageError(
            f"{file.path}: a compressed {kind} file cannot be read; decompress it first"
        )
    return replace(file, compression=compression)


def is_tab_separated(file: SourceFile) -> bool:
    """Whether the name says that tabs separate the fields."""
    return _compression_of(file.path)[1].endswith(".tsv")

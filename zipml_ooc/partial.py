"""An unfinished dataset: a folder beside its destination, held by one process at a time.

`.NAME.partial` holds the dataset so far, a journal (without which there is nothing to go on with)
and a lock. What ends badly stays there to be resumed, but for data that cannot be stored at all;
what ends well takes the destination's name. A process that dies leaves its lock to the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .durable import sync_folder, sync_tree, write_durably
from .errors import DataError, UsageError, ZipmlError
from .outputs import FolderOutput
from .url_partial import UrlPartial

__all__ = ["Partial", "partial_dataset", "partial_of", "settle_published"]


class Partial:
    """What lies beside a destination.

    Parameters
    ----------
    place : Path
    kind : str
        What the folder's name ends in.

    Attributes
    ----------
    place : Path
        The destination.
    folder : Path
        Everything that is unfinished.
    data : Path
        The dataset so far.
    scratch : Path
        For files that are being written.
    output : FolderOutput
    """

    def __init__(self, place: Path, kind: str = "partial") -> None:
        self.place = place
        self.folder = place.with_name(f".{place.name}.{kind}")
        self.data = self.folder / "dataset"
        self.scratch = self.folder / "scratch"
        self.output = FolderOutput(self.data, self.scratch)
        self._journal = self.folder / "journal.json"
        self._old = self.folder / "replaced"

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.place} unfinished, in {self.folder.name}"

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with."""
        return self._journal.exists()

    @property
    def published(self) -> bool:
        """Whether a run ended after the dataset took its name, but before it had cleaned up."""
        return self.begun and not self.data.exists() and self.place.exists()

    def begin(self, journal: Mapping[str, Any]) -> None:
        """Start a dataset: from here on it is resumed rather than removed."""
        self.data.mkdir()
        self.scratch.mkdir(exist_ok=True)
        write_durably(self._journal, [json.dumps(journal).encode()], self.scratch)

    def read(self) -> dict[str, Any]:
        """Return the journal, and clear away what was half written.

        Raises
        ------
        UsageError
            It cannot be read.
        """
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(exist_ok=True)
        try:
            journal = json.loads(self._journal.read_bytes())
        except (ValueError, RecursionError):
            journal = None
        if not isinstance(journal, dict):
            raise UsageError(f"{self._journal} is damaged: start again with --force")
        return journal

    def require_space(self, needed: int) -> None:
        """Refuse a disk that has less left than the dataset takes.

        Raises
        ------
        DataError
        """
        there = sum(f.stat().st_size for f in self.data.rglob("*") if f.is_file())
        free = shutil.disk_usage(self.place.parent).free
        if needed - there > free:
            raise DataError(
                f"{self.place} will take up to {needed - there:,} bytes and its disk has "
                f"{free:,} left: free some space, store fewer bits, or choose another destination"
            )

    def discard(self) -> None:
        """Give up what is unfinished."""
        self.clear()

    def publish(self) -> None:
        """Give the finished dataset its name; one that is there already stays until then."""
        sync_tree(self.data)
        if self.place.exists():
            self.place.rename(self._old)
            try:
                self.data.rename(self.place)
            except BaseException:
                self._old.rename(self.place)
                raise
        else:
            self.data.rename(self.place)
        sync_folder(self.place.parent)
        self.clear()

    def recover(self) -> None:
        """Put right what a run left behind that died while it published."""
        if self._old.exists() and not self.place.exists():
            self._old.rename(self.place)
        if self.published:
            self.clear()

    def clear(self) -> None:
        """Remove everything but the lock; first the journal, without which the rest is nothing."""
        self._journal.unlink(missing_ok=True)
        for path in (self.data, self.scratch, self._old):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, made if need be; an empty one is removed at the end.

        Raises
        ------
        UsageError
            Another process holds it.
        DataError
            It cannot be made.
        """
        try:
            descriptor = self._lock()
        except OSError as error:
            what = f"cannot write in {self.place.parent}"
            if self.folder.exists() and not self.folder.is_dir():
                what = f"{self.folder} is in the way of the unfinished dataset: remove it"
            raise DataError(f"{what}: {error.strerror or error}") from error
        try:
            yield
        finally:
            if not any(path.name != "lock" for path in self.folder.iterdir()):
                (self.folder / "lock").unlink()
                with contextlib.suppress(OSError):  # somebody else has come to lock it
                    self.folder.rmdir()
            os.close(descriptor)

    def _lock(self) -> int:
        path = self.folder / "lock"
        while True:
            self.folder.mkdir(exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # its last holder has just removed the folder
                continue
            try:
                self._take(descriptor)
                if _is_at(descriptor, path):
                    os.truncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}".encode(), 0)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # the holder removed it; there may be a new one

    def _take(self, descriptor: int) -> None:
        holder = os.pread(descriptor, 300, 0).decode(errors="replace")
        pid, _, host = holder.partition(" ")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        except OSError:  # a file system without locks: go by the process that is named
            if not (host == socket.gethostname() and _alive(pid)):
                return
        else:
            return
        raise UsageError(
            f"{self.place} is being written by process {pid or '?'} on {host or 'this machine'}: "
            "wait until it is done, or choose another destination"
        )


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _alive(pid: str) -> bool:
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def partial_of(dest: str | os.PathLike[str]) -> str | None:
    """Where the unfinished dataset of a destination lies, if there is one that can be seen."""
    text = os.fspath(dest).removeprefix("file://")
    try:
        if "://" in text:
            return text if UrlPartial(text).begun else None
        place = Path(text).absolute()
        partial = Partial(place.resolve() if place.is_symlink() else place)
        return os.fspath(partial.folder) if partial.begun else None
    except (OSError, RuntimeError, UsageError):
        return None


def _of(place: Path | str) -> Partial | UrlPartial:
    return UrlPartial(place) if isinstance(place, str) else Partial(place)


def settle_published(place: Path | str) -> bool:
    """Finish a run that died when nothing but the cleaning up was left."""
    partial = _of(place)
    if not partial.published:
        return False
    with partial.locked():
        partial.recover()
    return True


@contextmanager
def partial_dataset(
    place: Path | str, *, force: bool, resume: bool
) -> Iterator[Partial | UrlPartial]:
    """Hold the unfinished dataset of a destination, and decide at the end what becomes of it.

    Parameters
    ----------
    place : Path, or str for a URL
    force : bool
        Start again where an unfinished dataset is.
    resume : bool
        Go on with it.

    Raises
    ------
    UsageError
        Another process holds it, or neither was asked for.
    DataError
        It cannot be written.
    """
    partial = _of(place)
    with partial.locked():
        partial.recover()
        begun = partial.begun
        if begun and not (resume or force):
            raise UsageError(
                f"an earlier run left {partial.title}: go on with --resume, or start again with "
                "--force"
            )
        if not (begun and resume):
            partial.discard()
        try:
            yield partial
        except BaseException as error:
            try:
                kept = partial.begun and _worth_keeping(error, resumed=begun and resume)
                if not kept:
                    partial.discard()
            except (OSError, UsageError):  # a store that does not answer: it holds what it holds
                kept = True
            _say(error, partial, kept=kept)
            raise


def _worth_keeping(error: BaseException, *, resumed: bool) -> bool:
    """Whether the same run could end better: not where the data themselves are refused."""
    if not isinstance(error, ZipmlError) or isinstance(error.__cause__, OSError):
        return True
    return resumed and isinstance(error, UsageError)


def _say(error: BaseException, partial: Partial | UrlPartial, *, kept: bool) -> None:
    """Turn an error of the file system into ours, and add what becomes of the dataset."""
    outcome = "nothing was left behind"
    if kept:
        outcome = "what is written is kept: --resume goes on with it"
    if isinstance(error, OSError):
        reason = error.strerror or error
        raise DataError(f"writing {partial.place} failed: {reason}; {outcome}") from error
    if kept and isinstance(error, ZipmlError) and isinstance(error.__cause__, OSError):
        raise type(error)(f"{error}; {outcome}") from error

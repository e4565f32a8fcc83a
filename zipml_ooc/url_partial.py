"""An unfinished dataset behind a URL: under its own name, for there are no renames.

A journal lies beside its objects until it is whole. Nobody opens it before: the metadata that make
it a dataset come last. There are no locks: that one process writes is up to whoever starts it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .errors import UsageError
from .outputs import UrlOutput

__all__ = ["UrlPartial"]

_JOURNAL = ".zipml-journal.json"
_MARKS = ("zarr.json", ".zgroup")
# What a dataset consists of. Nothing else is ever removed.
_OBJECTS = (*_MARKS, ".zattrs", ".zmetadata", _JOURNAL)
_ARRAYS = ("X/", "y/", "sample_weight/")


class UrlPartial:
    """What `zipml_ooc.partial.Partial` is for a folder.

    Attributes
    ----------
    place : str
    output : UrlOutput
    """

    def __init__(self, url: str) -> None:
        self.place = url.rstrip("/")
        self.output = UrlOutput(self.place)
        self._store = self.output.store()

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.place} unfinished"

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with."""
        return self._has(_JOURNAL)

    @property
    def complete(self) -> bool:
        """Whether there is a dataset."""
        return any(self._has(mark) for mark in _MARKS)

    def _has(self, key: str) -> bool:
        try:
            return self._store.has(key)
        except OSError as error:
            raise self._closed(error) from error

    def _closed(self, error: OSError) -> UsageError:
        return UsageError(f"{self.place} cannot be looked into: {error}")

    def require_ours(self, *, force: bool) -> None:
        """Refuse a place that holds anything but a dataset, or one without `force`.

        Raises
        ------
        UsageError
        """
        try:
            keys = self._store.every_key()
        except OSError as error:
            raise self._closed(error) from error
        foreign = [key for key in keys if not _is_ours(key)]
        if foreign:
            raise UsageError(
                f"{self.place} holds other objects ({foreign[0] or 'itself one'}"
                + (f" and {len(foreign) - 1:,} more" if len(foreign) > 1 else "")
                + "): choose a place where there is nothing"
            )
        if keys and not force and not (self.begun and not self.complete):
            raise UsageError(f"{self.place} exists: choose another destination or use --force")

    @property
    def published(self) -> bool:
        """Whether a run ended after the dataset was whole, but before it had cleaned up."""
        return self.complete and self.begun

    def begin(self, journal: Mapping[str, Any]) -> None:
        """Start a dataset; what was there is removed, first what makes it one."""
        self.clear()
        self._store.put(_JOURNAL, json.dumps(journal).encode())

    def read(self) -> dict[str, Any]:
        """Return the journal."""
        try:
            journal = json.loads(bytes(self._store.read(_JOURNAL)))
        except (ValueError, RecursionError):
            journal = None
        if not isinstance(journal, dict):
            raise UsageError(f"the journal of {self.place} is damaged: start again with --force")
        return journal

    def require_space(self, needed: int) -> None:
        """Object stores do not say."""

    def publish(self) -> None:
        """Everything is in place already."""
        self._store.remove(_JOURNAL)

    def recover(self) -> None:
        """Clean up after a run that was whole."""
        if self.published:
            self._store.remove(_JOURNAL)

    def discard(self) -> None:
        """Give up what is unfinished."""
        if self.begun:
            self.clear()

    def clear(self) -> None:
        """Remove the objects of a dataset, first what makes it one."""
        for mark in _MARKS:
            self._store.remove(mark)
        keys = [key for key in self._store.every_key() if _is_ours(key) and key != _JOURNAL]
        self._store.remove_many(keys)
        self._store.remove(_JOURNAL)  # last: without it, what is left would be nobody's

    @contextmanager
    def locked(self) -> Iterator[None]:
        """There is no lock."""
        yield


def _is_ours(key: str) -> bool:
    return key in _OBJECTS or key.startswith(_ARRAYS)

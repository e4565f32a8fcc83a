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
        return self._store.has(_JOURNAL)

    @property
    def complete(self) -> bool:
        """Whether there is a dataset."""
        return any(self._store.has(mark) for mark in _MARKS)

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
        except ValueError:
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
        """Remove everything."""
        for mark in _MARKS:
            self._store.remove(mark)
        self._store.remove_all()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """There is no lock."""
        yield

"""The one error that encoded bytes can raise, and the one that values can."""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["ChunkError", "ValueRefusedError"]


class ChunkError(ValueError):
    """Encoded bytes that are not a whole, valid zipml chunk; the message names the cause."""


class ValueRefusedError(ValueError):
    """A value that cannot be quantised (NaN, infinite, outside of fixed bounds).

    Attributes
    ----------
    row, column : int
        Where the value lies in the array as rows x columns (the last axis holds the columns).
    """

    def __init__(self, message: str, *, row: int, column: int) -> None:
        super().__init__(message)
        self.row = row
        self.column = column

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are pickled by their positional arguments; the place is given by keyword.
        return functools.partial(type(self), row=self.row, column=self.column), self.args

"""The errors that a user may meet: one class for a wrong request, one for data that cannot be used.

Every message says what was wrong, where (file, column, row, chunk) and what to do. The command
line turns a `UsageError` into exit code 2 and any other `ZipmlError` into exit code 1.
"""

from __future__ import annotations

__all__ = [
    "REMEDY",
    "DamagedError",
    "DataError",
    "ExecutorError",
    "UsageError",
    "ZipmlError",
]

REMEDY = "zipml repair makes what is damaged in a folder again from the source"
"""What to do about chunks of a dataset."""


class ZipmlError(Exception):
    """Base class of the errors that zipml-ooc raises on purpose."""


class UsageError(ZipmlError):
    """The request itself is wrong: a missing file, an unknown column, an option out of range."""


class DataError(ZipmlError):
    """The data, a stored dataset or a model file cannot be used as it is."""


class DamagedError(DataError):
    """A chunk is missing or is not what was written; a store that fails is another matter."""


class ExecutorError(ZipmlError):
    """What an executor computes with does not answer, or not as it should: a device is lost."""

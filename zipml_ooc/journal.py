"""What an unfinished dataset remembers of its run: options, source, and the first pass's outcome.

A run is resumed with these alone, so that it goes on to the same bytes; other options, another
source or another version of this package are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .dataset_spec import DatasetSpec
from .errors import DataError, UsageError

if TYPE_CHECKING:
    from .compression import CompressOptions
    from .sources import Source, SourceOptions

__all__ = ["Run", "stamps_of"]

# What the stored bytes do not depend on.
_FREE = ("threads",)


class Run:
    """One compression: what its bytes depend on, to be compared with that of a journal.

    Parameters
    ----------
    source : Source
    source_options : SourceOptions
    options : CompressOptions
    """

    def __init__(
        self, source: Source, source_options: SourceOptions, options: CompressOptions
    ) -> None:
        chosen = {k: v for k, v in asdict(options).items() if k not in _FREE}
        self._options = _plain({**chosen, **asdict(source_options)})
        self._source = _plain({**source.fingerprint(), "changed": stamps_of(source.paths)})

    def journal(self, plan: DatasetSpec) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON values."""
        return {
            "version": __version__,
            "options": self._options,
            "source": self._source,
            "plan": plan.to_attributes(),
        }

    def resume(self, journal: Mapping[str, Any], place: Path | str) -> DatasetSpec:
        """Return the plan of a journal of the same run.

        Raises
        ------
        UsageError
            Of another run; the message says in what they differ.
        """
        again = "start again with --force and without --resume"
        if journal.get("version") != __version__:
            raise UsageError(
                f"{place} was begun by version {journal.get('version')} of zipml-ooc, this is "
                f"{__version__}: {again}"
            )
        before = journal.get("options")
        if not isinstance(before, Mapping):
            raise UsageError(f"the journal of {place} is damaged: {again}")
        differing = [k for k, v in self._options.items() if before.get(k) != v]
        if differing:
            name = differing[0]
            raise UsageError(
                f"{place} was begun with {name.replace('_', '-')} {before.get(name)!r}, not "
                f"{self._options[name]!r}: resume with the same options, or {again}"
            )
        if journal.get("source") != self._source:
            raise UsageError(
                f"{place} was begun from another source, or its files have changed since: {again}"
            )
        try:
            return DatasetSpec.from_attributes(journal.get("plan"), f"the journal of {place}")
        except DataError as error:
            raise UsageError(f"the journal of {place} is damaged: {again}") from error


def _plain(value: Any) -> Any:
    """What comes back from JSON: lists for tuples."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def stamps_of(paths: Sequence[str]) -> list[Any]:
    """What changes with a file although its size does not; None where that is not known."""
    return [_remote_stamp(path) if "://" in path else _local_stamp(Path(path)) for path in paths]


def _local_stamp(path: Path) -> int:
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    return max((f.stat().st_mtime_ns for f in files), default=0)


def _remote_stamp(url: str) -> str | None:
    import fsspec

    try:
        files, inner = fsspec.core.url_to_fs(url)
        return str(files.ukey(inner))
    except Exception:  # a file system that cannot say, each in its own way
        return None

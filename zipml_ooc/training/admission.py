"""Whether the workers of a cluster can do our tasks: their versions, and whether they see the data.

Different versions could compute different bits, or fail with an error from the depths of pickle;
a dataset that a worker does not see fails in the middle of an epoch. Both are found out before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from zipml_codecs import _native
from zipml_codecs.header import MAJOR

from ..errors import DataError, ZipmlError

__all__ = ["require_able", "sight"]

_PACKAGES = ("zipml-ooc", "numpy", "dask", "distributed")
# Of these a different patch release changes neither bits nor pickles.
_BY_MINOR = ("python", "numpy")


def require_able(client: Any, workers: Sequence[str], place: str, fingerprint: str | None) -> None:
    """Check the scheduler and some workers.

    Parameters
    ----------
    client : distributed.Client
    workers : sequence of str
        Addresses.
    place : str
        Path or URL of the dataset.
    fingerprint : str or None
        See `zipml_ooc.training.checkpoints.fingerprint`.

    Raises
    ------
    ZipmlError
        It names the worker, what is wrong with it and what to do.
    """
    versions = client.get_versions(packages=list(_PACKAGES))
    here = versions["client"]["packages"]
    others = {f"worker {address}": versions["workers"].get(address) for address in workers}
    for who, there in {"the scheduler": versions["scheduler"], **others}.items():
        if there:  # else it has just gone
            _require_versions(who, there["packages"], here)
    # Exceptions come back as values; a worker that goes away meanwhile is not our business.
    seen = client.run(sight, place, workers=list(workers), on_error="return")
    for address, found in sorted(seen.items()):
        if isinstance(found, OSError):
            continue
        if isinstance(found, Exception):
            raise ZipmlError(f"worker {address} cannot run zipml-ooc: {found}") from found
        problem, core, digest = found
        if core != _core():
            raise ZipmlError(
                f"worker {address} has another native core (chunk format {core}) than this machine "
                f"({_core()}): install zipml-ooc from the same sources on all machines"
            )
        # What this machine does not see either is damage, which the run reports or leaves out.
        if problem is not None and sight(place)[0] is None:
            raise DataError(
                f"worker {address} cannot open the dataset ({problem}): put it on a file system "
                "that all machines see under the same path, or give its URL"
            )
        if fingerprint is not None and digest not in ("", fingerprint):
            raise DataError(
                f"worker {address} sees another dataset at {place}: put the dataset on a file "
                "system that all machines share, or give its URL"
            )


def _require_versions(who: str, there: dict[str, str | None], here: dict[str, str | None]) -> None:
    for package in ("python", *_PACKAGES):
        ours, theirs = (_comparable(package, found.get(package)) for found in (here, there))
        if ours is not None and ours != theirs:
            what = "Python" if package == "python" else package
            has = f"has {what} {theirs}" if theirs else f"has no {what}"
            raise ZipmlError(
                f"{who} {has} and this machine {ours}: install the same version on all machines"
            )


def _comparable(package: str, version: str | None) -> str | None:
    if version is None or package not in _BY_MINOR:
        return version
    return ".".join(version.split(".")[:2])


def _core() -> str:
    """Major version of the chunk format, and a digest of what the native core offers."""
    names = " ".join(name for name in sorted(dir(_native)) if not name.startswith("_"))
    return f"{MAJOR}, core {hashlib.sha256(names.encode()).hexdigest()[:8]}"


def sight(place: str) -> tuple[str | None, str, str]:
    """What a worker sees: why it cannot open the dataset, its core, and the dataset's fingerprint.

    The metadata and the first chunk are read: a folder may be visible and its content not.
    """
    from ..dataset import open_cached
    from .checkpoints import fingerprint

    try:
        dataset = open_cached(place)
        dataset.read_chunk(0)
    except ZipmlError as error:
        return str(error), _core(), ""  # no fingerprint
    return None, _core(), fingerprint(dataset.spec)

"""Finding executors: ours, and what other packages register under an entry-point group.

What cannot be loaded is no error before somebody asks for it: it is listed with the reason.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from ..errors import UsageError, ZipmlError
from .machine import check_simd, simd_levels
from .protocol import Capabilities, Executor

__all__ = ["GROUP", "NATIVE", "OURS", "ExecutorInfo", "executors", "get_executor", "offered"]

GROUP = "zipml_ooc.executors"
NATIVE = "native"
OURS = {
    NATIVE: "zipml_ooc.executors.native:executor",
    "reference": "zipml_ooc.executors.reference:executor",
    "fpga-emulator": "zipml_ooc.executors.fpga_emulator:executor",
    "fpga-rtl": "zipml_ooc.executors.fpga_rtl:executor",
    "fpga-device": "zipml_ooc.executors.fpga_device:executor",
}
"""Our own, as pyproject.toml registers them; they are there without being registered, too."""

_METHODS = ("capabilities", "unavailable", "check", "largest_step", "devices", "open")


@dataclass(frozen=True)
class ExecutorInfo:
    """An executor and what it can do here.

    Attributes
    ----------
    name : str
    origin : str
        Where it comes from: module and name of what makes it.
    summary : str
    reason : str or None
        Why it cannot be used on this machine, and what to do; None where it can.
    capabilities : Capabilities or None
        None where it could not be loaded.
    simd : str or None
        Of ``native``, the instruction set that is live: the best that the processor runs, or what
        the environment variable ``ZIPML_SIMD`` asks for.
    simd_levels : tuple of str
        All that this machine runs, best first. Every one computes the same bits.
    """

    name: str
    origin: str
    summary: str
    reason: str | None
    capabilities: Capabilities | None
    simd: str | None = None
    simd_levels: tuple[str, ...] = ()

    @property
    def available(self) -> bool:
        """Whether it can be used on this machine."""
        return self.reason is None


_OFFERED: dict[str, Executor] = {}


@contextmanager
def offered(executor: Executor) -> Iterator[None]:
    """Have an executor for a while in this process, in the place of any other of its name."""
    before = _OFFERED.get(executor.name)
    _OFFERED[executor.name] = executor
    try:
        yield
    finally:
        del _OFFERED[executor.name]
        if before is not None:
            _OFFERED[executor.name] = before


def _places() -> Iterator[tuple[str, str]]:
    """Names and origins: ours first, then the others by name."""
    yield from OURS.items()
    # Installed in several places of the path, the same entry point is found several times.
    found = {(e.name, e.value) for e in entry_points(group=GROUP)} - set(OURS.items())
    yield from sorted(found)


@dataclass(frozen=True)
class _Loaded:
    """An executor, and what it says of itself."""

    executor: Executor
    capabilities: Capabilities
    reason: str | None
    summary: str


def _load(name: str, origin: str) -> _Loaded:
    """Make an executor.

    Raises
    ------
    ZipmlError
        It says itself what is wrong, or its package is broken: whatever goes wrong there, also an
        end of the process that it asks for.
    """
    try:
        return _loaded(name, origin)
    except ZipmlError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{origin} cannot be loaded ({error!r}): repair or remove the package that it is from"
        ) from error


def _loaded(name: str, origin: str) -> _Loaded:
    module, _, path = origin.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    made = found()
    missing = [method for method in _METHODS if not callable(getattr(made, method, None))]
    if missing:
        raise TypeError(f"it lacks {', '.join(missing)}, which an executor has")
    if made.name != name:
        raise TypeError(f"it calls itself {made.name!r}")
    able, reason = made.capabilities(), made.unavailable()
    if not isinstance(able, Capabilities):
        raise TypeError(f"its capabilities are {able!r}")
    if not isinstance(reason, str | None):
        raise TypeError(f"it is unavailable for {reason!r}, which is no text")
    return _Loaded(made, able, reason, str(made.summary))


def _describe(name: str, origin: str) -> ExecutorInfo:
    if name in OURS and origin != OURS[name]:
        taken = f"the name {name} is that of one of ours: its package must give it another"
        return ExecutorInfo(name, origin, "", taken, None)
    try:
        found = _load(name, origin)
        simd = (check_simd(), simd_levels()) if name == NATIVE else ()
    except ZipmlError as error:
        return ExecutorInfo(name, origin, "", str(error), None)
    return ExecutorInfo(name, origin, found.summary, found.reason, found.capabilities, *simd)


def executors() -> list[ExecutorInfo]:
    """List the executors that are installed, also those that cannot be used."""
    return [_describe(name, origin) for name, origin in _places()]


def get_executor(name: str) -> Executor:
    """Make an executor that can be used.

    Raises
    ------
    UsageError
        There is none of that name, or it cannot be used; with the reason, and what to do.
    """
    if name in _OFFERED:
        return _OFFERED[name]
    places = list(_places())
    origins = [origin for other, origin in places if other == name]
    if not origins:
        names = ", ".join(dict.fromkeys(other for other, _ in places))
        raise UsageError(f"there is no executor {name!r}: choose one of {names}")
    if len(origins) > 1 and name not in OURS:
        raise UsageError(
            f"{len(origins)} packages register an executor {name!r} ({', '.join(origins)}): "
            "remove all but one"
        )
    try:
        found = _load(name, origins[0])
    except ZipmlError as error:
        raise UsageError(f"executor {name}: {error}") from error
    if found.reason is not None:
        raise UsageError(f"executor {name} cannot be used here: {found.reason}")
    return found.executor

"""Windows on an executor: which one, what it counts, and what becomes of a window if it is lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import ExecutorError
from ..executors.native import run_window
from ..executors.protocol import Counters, Trained, Window
from ..executors.sessions import Key, borrowed, close_sessions, lost

if TYPE_CHECKING:
    from .loading import LoadedTiles

__all__ = ["Chosen", "Lost", "added", "carry_out", "first_lost"]


@dataclass(frozen=True)
class Chosen:
    """The executor of a run.

    Attributes
    ----------
    name : str
    settings : tuple of (str, value)
        Values of all its options, in the order of their names.
    arithmetic : str
        What it multiplies codes by.
    run : str
        A tag of the run, which has sessions of its own.
    falls_back : bool
        Whether windows whose device is lost are run by the native core.
    resource : str or None
        What workers must declare.
    """

    name: str
    settings: tuple[tuple[str, Any], ...]
    arithmetic: str
    run: str
    falls_back: bool = False
    resource: str | None = None

    @property
    def key(self) -> Key:
        """What its sessions are known by."""
        return self.run, self.name, self.settings

    def close(self) -> None:
        """Close the sessions of this process."""
        close_sessions(self.key)


@dataclass(frozen=True)
class Lost:
    """Where an executor was given up.

    Attributes
    ----------
    executor : str
    epoch, window : int
        Of the first window that the native core ran in its place.
    reason : str
    """

    executor: str
    epoch: int
    window: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, the epoch counted from 1."""
        return {
            "executor": self.executor,
            "epoch": self.epoch + 1,
            "window": self.window,
            "reason": self.reason,
        }


def added(*found: Counters | None) -> Counters | None:
    """The sum of what was counted; None if nothing was."""
    there = [one for one in found if one is not None]
    return sum(there[1:], there[0]) if there else None


def first_lost(*found: Lost | None) -> Lost | None:
    """The first in the order of the run."""
    there = [one for one in found if one is not None]
    return min(there, key=lambda one: one.epoch, default=None)


def carry_out(
    chosen: Chosen | None, window: Window, tiles: LoadedTiles
) -> tuple[Trained, Counters | None, Lost | None]:
    """Run a window, on the executor that was chosen.

    Raises
    ------
    ExecutorError
        Its device is lost, and there is nothing to fall back to.
    """
    if chosen is None:
        return run_window(window, tiles), None, None
    reason = lost(chosen.key) if chosen.falls_back else None
    if reason is None:
        try:
            return *_on_session(chosen, window, tiles), None
        except ExecutorError as error:
            reason = str(error)
            if not chosen.falls_back:
                raise ExecutorError(
                    f"executor {chosen.name} was lost in window {window.number} of epoch "
                    f"{window.epoch + 1}: {reason}; see to the device and run again (a run with "
                    "--checkpoint goes on with --resume), or use --fallback native"
                ) from error
            lost(chosen.key, reason)
    given_up = Lost(chosen.name, window.epoch, window.number, reason)
    return run_window(window, tiles), None, given_up


def _on_session(chosen: Chosen, window: Window, tiles: LoadedTiles) -> tuple[Trained, Counters]:
    problem = replace(window.problem, arithmetic=chosen.arithmetic)
    with borrowed(chosen.key, problem) as session:
        before = session.counters()
        session.load(replace(window, problem=problem))
        session.run(tiles)
        return session.read(), session.counters() - before

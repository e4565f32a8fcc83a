"""Sessions that stay open between the tasks of a process, and who has which.

Opening a device takes long and its tables stay in it, so that a process keeps what it has opened
until the run ends. A task borrows a session; where an executor has so many devices and no more, it
waits for one.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import ExecutorError
from .protocol import Executor, Session, Settings
from .registry import get_executor

if TYPE_CHECKING:
    from ..training.problem import Problem

__all__ = ["Key", "borrowed", "close_sessions", "lost"]

Key = tuple[str, str, tuple[tuple[str, Any], ...]]
"""The run, the name of its executor, and settings in the order of their names."""


@dataclass
class _Pool:
    """The sessions of an executor with some settings in this process."""

    executor: Executor
    settings: Settings
    names: list[str | None] | None
    """Devices that are not open; None: as many as wanted."""
    opened: int = 0
    idle: list[tuple[str | None, Session]] = field(default_factory=list)
    lost: str | None = None
    """Why there is no device any more."""
    closed: bool = False
    """Whether the run has ended: nothing is opened any more, and what comes back is closed."""


_POOLS: dict[Key, _Pool] = {}
_ENDED: set[str] = set()
"""Runs that have ended: a task that was left behind must not open a device again."""
_CHANGED = threading.Condition()
"""Of all pools: who waits for one of them is woken for the others too, so all are."""


def _pool(key: Key) -> _Pool:
    run, name, given = key
    if run in _ENDED:
        raise ExecutorError("the run has ended")
    if key not in _POOLS:
        executor, settings = get_executor(name), dict(given)
        found = executor.devices(settings)
        _POOLS[key] = _Pool(executor, settings, None if found is None else list(found))
    return _POOLS[key]


@contextlib.contextmanager
def borrowed(key: Key, problem: Problem) -> Iterator[Session]:
    """Have a session for a while; one in which something fails is closed and not used again.

    Parameters
    ----------
    key : Key
    problem : Problem
        What a new session is opened for.

    Raises
    ------
    ExecutorError
        No device can be opened.
    """
    with _CHANGED:
        pool = _pool(key)
    name, session = _taken(pool, problem)
    try:
        yield session
    except BaseException:
        with contextlib.suppress(Exception):  # what went wrong first is what counts
            session.close()
        with _CHANGED:
            pool.opened -= 1
            if pool.names is not None:
                pool.names.append(name)
            _CHANGED.notify_all()
        raise
    with _CHANGED:
        if not pool.closed:
            pool.idle.append((name, session))
            _CHANGED.notify_all()
            return
    session.close()  # the run has ended meanwhile


def _taken(pool: _Pool, problem: Problem) -> tuple[str | None, Session]:
    """An idle session, or a new one; waits for one if all devices are in use."""
    with _CHANGED:
        while not (pool.closed or pool.idle or pool.names is None or pool.names) and pool.opened:
            _CHANGED.wait()
        if pool.closed:
            raise ExecutorError("the run has ended")
        if pool.idle:
            return pool.idle.pop()
        names: list[str | None] = [None] if pool.names is None else list(pool.names)
        if not names:
            raise ExecutorError(f"executor {pool.executor.name} has no device")
        failed: ExecutorError | None = None
        for name in names:  # one that another process has is passed over
            try:
                session = pool.executor.open(name, problem, pool.settings)
            except ExecutorError as error:
                failed = failed or error
                continue
            pool.opened += 1
            if pool.names is not None:
                pool.names.remove(name)
            return name, session
        assert failed is not None
        raise failed


def lost(key: Key, reason: str | None = None) -> str | None:
    """Why this process has given an executor up, if it has; with a reason, it does so now."""
    with _CHANGED:
        pool = _pool(key)
        pool.lost = pool.lost or reason
        return pool.lost


def close_sessions(key: Key | None = None) -> None:
    """Close what is open of a run, which has ended, or everything."""
    with _CHANGED:
        if key is not None:
            _ENDED.add(key[0])
        keys = list(_POOLS) if key is None else [key]
        pools = [_POOLS.pop(one) for one in keys if one in _POOLS]
        for pool in pools:
            pool.closed = True
        _CHANGED.notify_all()  # those that wait for a device of it need not wait on
    for pool in pools:
        for _, session in pool.idle:
            with contextlib.suppress(Exception):
                session.close()


atexit.register(close_sessions)

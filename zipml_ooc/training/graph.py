"""Dask graphs, written down task by task.

`dask.delayed` would take every argument apart and copy the graph so far for each list of values:
for the rounds of an epoch that costs ten times what the rounds do. A graph here is what Dask's
specification says: a dictionary of tuples.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["BOUND", "Graph", "same"]

BOUND = "advance-"
"""What the names of tasks begin with that run on an executor."""


class Graph:
    """Tasks by key.

    Keys begin with what the task does, which Dask's dashboard groups them by, and end in a tag of
    their own: a scheduler takes equal keys for the same task, and several runs may share it.

    Attributes
    ----------
    resource : str or None
        Of Dask, which tasks of an executor (`BOUND`) take one of.
    homes : dict of str to str
        Workers that tasks had better run on, by key: they are the ones that have the chunks.
    """

    def __init__(self, resource: str | None = None) -> None:
        self.resource = resource
        self._tag = secrets.token_hex(5)
        self.tasks: dict[str, tuple[Any, ...]] = {}
        self.homes: dict[str, str] = {}

    def add(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        home: str | None = None,
        **options: Any,
    ) -> str:
        """Add a task and return its key; keys of other tasks may stand among `args`, also in lists.

        Parameters
        ----------
        name : str
            What the task does, and on what: ``advance-epoch3-round5``. Unique in the graph.
        function : callable
        *args
            Not taken apart, but for lists.
        home : str, optional
            The worker that had better run it.
        **options
            Likewise, and without keys.
        """
        key = f"{name}-{self._tag}"
        assert key not in self.tasks, key
        called = partial(function, **options) if options else function
        self.tasks[key] = (called, *args)
        if home is not None:
            self.homes[key] = home
        return key


def same(value: Any) -> Any:
    """A value as a task: what several others share reaches a worker once."""
    return value

"""Where a Dask graph is computed: threads of this process, a local cluster, or any scheduler."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import UsageError
from .bound import Needs
from .graph import Graph

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Runner", "open_runner"]


class Runner(Protocol):
    """Computes graphs.

    Attributes
    ----------
    distant : bool
        Whether a task costs messages: then few larger ones are better than many small ones.
    """

    distant: bool

    def threads(self) -> int:
        """How many tasks run side by side."""

    def places(self, graph: Graph) -> list[str]:
        """Workers that the steps of a graph may run on, each as often as it has room for one."""

    def share(self, name: str, value: Any) -> Any:
        """Give what stands for a value in graphs; the same object reaches a worker once.

        Of each name the last value is kept.
        """

    def compute(self, graph: Graph, key: str) -> Any:
        """Compute one task and everything that it depends on."""

    def everywhere(self, function: Callable[[], None]) -> None:
        """Call a function in all processes that compute; those that have gone are no matter."""


class _Threads:
    distant = False

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def threads(self) -> int:
        return self._threads

    def places(self, graph: Graph) -> list[str]:
        return [""] * self._threads

    def share(self, name: str, value: Any) -> Any:
        return value

    def compute(self, graph: Graph, key: str) -> Any:
        import dask.threaded

        # Its own function: looking a scheduler up by name would import distributed, for half a
        # second.
        return dask.threaded.get(graph.tasks, key, num_workers=self._threads)

    def everywhere(self, function: Callable[[], None]) -> None:
        function()


@contextmanager
def open_runner(
    *,
    threads: int | None = None,
    workers: int | None = None,
    scheduler: str | Client | None = None,
    scheduler_file: str | os.PathLike[str] | None = None,
    place: str | None = None,
    fingerprint: str | None = None,
    needs: Needs | None = None,
) -> Iterator[Runner]:
    """Open a runner for the length of a run.

    Parameters
    ----------
    threads : int, optional
        Threads of this process (the default: one for each core), or of each local worker.
    workers : int, optional
        Start a cluster of so many worker processes on this machine.
    scheduler : str or distributed.Client, optional
        Address of a running Dask scheduler, or a client that is connected to it and stays so. Its
        workers must see the dataset under the same path.
    scheduler_file : path, optional
        File that the scheduler wrote its address to (``dask scheduler --scheduler-file``).
    place, fingerprint : str, optional
        Path or URL of the dataset, and what its attributes amount to: the workers of a running
        scheduler are asked whether they see it.
    needs : Needs, optional
        What steps need of workers, if they run on an executor.

    Raises
    ------
    UsageError
        Options that exclude each other, or a number below one.
    ZipmlError
        The scheduler cannot be reached, or its workers cannot be used.
    """
    for name, number in (("threads", threads), ("workers", workers)):
        if number is not None and number < 1:
            raise UsageError(f"{name} must be positive, got {number}")
    running = [
        name
        for name, given in (("--scheduler", scheduler), ("--scheduler-file", scheduler_file))
        if given is not None
    ]
    if len(running) == 2:
        raise UsageError("--scheduler and --scheduler-file say the same: give one of them")
    if running and (workers is not None or threads is not None):
        raise UsageError(
            f"{running[0]} excludes --workers and --threads: the cluster is already there"
        )
    if not running and workers is None:
        yield _Threads(threads or os.cpu_count() or 1)
        return
    from . import cluster

    if workers is not None:
        with cluster.local(workers, threads or 1, needs=needs) as runner:
            yield runner
        return
    if scheduler is not None and not isinstance(scheduler, str):
        yield cluster.adopt(scheduler, place=place, fingerprint=fingerprint, needs=needs)
        return
    address = scheduler
    if scheduler_file is not None:
        address = cluster.address_in(scheduler_file)
    assert address is not None
    with cluster.connect(address, place=place, fingerprint=fingerprint, needs=needs) as runner:
        yield runner

"""Where a Dask graph is computed: threads of this process, a local cluster, or any scheduler."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..errors import UsageError, ZipmlError
from .signals import signals_ignored

__all__ = ["Runner", "open_runner"]

_ADDRESS = re.compile(r"((tcp|tls|ucx)://)?[^\s/]+:\d+|wss?://\S+|inproc://\S+")


class Runner(Protocol):
    """Computes delayed values."""

    def compute(self, value: Any) -> Any:
        """Compute one delayed value and everything that it depends on."""


class _Threads:
    def __init__(self, threads: int) -> None:
        self._threads = threads

    def compute(self, value: Any) -> Any:
        import dask
        import dask.threaded

        # The function and not its name: looking a name up would import distributed, for half a
        # second.
        return dask.compute(value, scheduler=dask.threaded.get, num_workers=self._threads)[0]


class _Cluster:
    def __init__(self, client: Any) -> None:
        self._client = client

    def compute(self, value: Any) -> Any:
        return self._client.compute(value).result()


@contextmanager
def open_runner(
    *, threads: int | None = None, workers: int | None = None, scheduler: str | None = None
) -> Iterator[Runner]:
    """Open a runner for the length of a run.

    Parameters
    ----------
    threads : int, optional
        Threads of this process (the default: one for each core), or of each local worker.
    workers : int, optional
        Start a cluster of so many worker processes on this machine.
    scheduler : str, optional
        Address of a running Dask scheduler. Its workers must see the dataset under the same path.

    Raises
    ------
    UsageError
        Options that exclude each other, or a number below one.
    ZipmlError
        The scheduler cannot be reached.
    """
    for name, number in (("threads", threads), ("workers", workers)):
        if number is not None and number < 1:
            raise UsageError(f"{name} must be positive, got {number}")
    if scheduler is not None and (workers is not None or threads is not None):
        raise UsageError(
            "--scheduler excludes --workers and --threads: the cluster is already there"
        )
    if scheduler is None and workers is None:
        yield _Threads(threads or os.cpu_count() or 1)
        return
    if scheduler is not None and not _ADDRESS.fullmatch(scheduler):
        # Distributed would try for long and then fail with a traceback from its event loop.
        raise UsageError(f"{scheduler!r} is no scheduler address: one looks like tcp://host:8786")
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout="10s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise ZipmlError(f"no Dask scheduler answers at {scheduler}: {error}") from error
        with client:
            yield _Cluster(client)
        return
    with signals_ignored(signal.SIGINT):  # the workers leave Ctrl-C to this process
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=threads or 1,
            processes=True,
            dashboard_address=None,
        )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield _Cluster(client)

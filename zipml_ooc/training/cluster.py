"""Graphs on a Dask cluster: connecting to it, and what to say when it goes away.

Imports distributed, which takes half a second: `runner` imports this module where it is needed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster

from ..errors import ExecutorError, UsageError, ZipmlError
from .admission import require_able
from .bound import AtHome, Bound, Needs, has_place, places, require_executor
from .graph import Graph, same
from .signals import signals_ignored

__all__ = ["Cluster", "address_in", "adopt", "connect", "local"]

_ADDRESS = re.compile(r"((tcp|tls)://)?[^\s/]+:\d+|wss?://\S+|inproc://\S+")
_CONNECT_SECONDS = 10
# A scheduler file may be written only just now, and in several steps.
_FILE_SECONDS = 10.0
# A cluster may be without workers for so long: they are being started, or started again.
_NO_WORKERS_SECONDS = 60.0
# How often a result that does not come makes us look at the cluster, and how old what we know of
# its workers may be when a graph is sent.
_LOOK_SECONDS, _KNOWN_SECONDS = 2.0, 5.0
# What nobody looks at in a cluster without a dashboard, and what would take values that all workers
# share away from them again: a quarter of the cost of a round.
_QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.scheduler.active-memory-manager.start": False,
}
_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)


class Cluster:
    """A runner on the workers of a scheduler.

    Parameters
    ----------
    client : distributed.Client
    address : str
        As the user knows it.
    place, fingerprint : str or None
        Of the dataset that workers must see; None where they are on this machine.
    needs : Needs or None
        What steps need of workers, if they run on an executor.
    """

    distant = True

    def __init__(
        self,
        client: Client,
        address: str,
        place: str | None = None,
        fingerprint: str | None = None,
        needs: Needs | None = None,
    ) -> None:
        self._client, self._address, self._needs = client, address, needs
        self._equipped: set[str] = set()
        self._place, self._fingerprint = place, fingerprint
        self._shared: dict[str, tuple[Any, Any]] = {}
        self._admitted: set[str] = set()
        self._room: dict[str, int] = {}
        self._known = -_KNOWN_SECONDS

    def threads(self) -> int:
        """Threads of all workers; those that have come since are looked at first."""
        if time.monotonic() - self._known > _KNOWN_SECONDS:
            workers = self._workers()
            if not workers:
                self._wait_for_workers()
                workers = self._workers()
            if self._place is not None and not workers.keys() <= self._admitted:
                new = sorted(workers.keys() - self._admitted)
                require_able(self._client, new, self._place, self._fingerprint)
                self._admitted |= set(new)
            self._room = {worker: int(info["nthreads"]) for worker, info in workers.items()}
            self._known = time.monotonic()
        return max(1, sum(self._room.values()))

    def places(self, graph: Graph) -> list[str]:
        """See `Runner`."""
        self.threads()
        found = self._room if graph.resource is None else self.equipped(_NO_WORKERS_SECONDS)
        return [worker for worker, count in found.items() for _ in range(count)]

    def equipped(self, patience: float = 0.0) -> dict[str, int]:
        """Workers that steps may run on, and how many on each; new ones must have the executor.

        Raises
        ------
        ExecutorError
            There are none, and for some seconds none comes.
        """
        if self._needs is None:
            return {}
        deadline = time.monotonic() + patience
        while True:
            try:
                found = places(self._workers(), self._needs, self._address)
                break
            except ExecutorError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)
        new = sorted(found.keys() - self._equipped)
        if new:
            require_executor(self._client, new, self._needs.executor)
            self._equipped |= set(new)
        return found

    def _workers(self) -> dict[str, Any]:
        if self._client.status != "running":
            raise self._lost()
        return dict(self._client.scheduler_info(n_workers=-1)["workers"])

    def _wait_for_workers(self) -> None:
        deadline = time.monotonic() + _NO_WORKERS_SECONDS
        while not self._workers():
            if time.monotonic() > deadline:
                raise ZipmlError(
                    f"the scheduler at {self._address} has had no workers for "
                    f"{_NO_WORKERS_SECONDS:g} s: start some (dask worker {self._address})"
                )
            time.sleep(0.2)

    def share(self, name: str, value: Any) -> Any:
        """See `Runner`: a task whose result is the value, so that it can be had again if lost."""
        held = self._shared.get(name)
        if held is None or held[0] is not value:
            graph = Graph()
            key = graph.add(f"share-{name}", same, value)
            held = value, self._client.get(graph.tasks, key, sync=False)
            self._shared[name] = held
        return held[1]

    def compute(self, graph: Graph, key: str) -> Any:
        """See `Runner`.

        Raises
        ------
        ZipmlError
            The scheduler or all of its workers have gone, or a task has killed its workers.
        ExecutorError
            All workers have gone that an executor's tasks may run on.
        """
        self.threads()  # nothing goes to a worker that has not been admitted
        takes = None if graph.resource is None else Bound(graph.resource)
        with dask.annotate(workers=AtHome(graph.homes), allow_other_workers=True):
            future = self._client.get(graph.tasks, key, sync=False, resources=takes)
        try:
            self._wait(future, self._needs if takes is not None else None)
            return future.result()
        except _CANCELLED as error:
            raise self._lost() from error
        except KilledWorker as error:
            raise ZipmlError(
                f"{error.task} was given up after its workers died {error.allowed_failures + 1} "
                "times in a row: look into their logs, most often they are out of memory"
            ) from error
        finally:
            future.release()

    def everywhere(self, function: Callable[[], None]) -> None:
        """See `Runner`."""
        with contextlib.suppress(Exception):  # what cannot be reached has nothing to close
            self._client.run(function, on_error="ignore")

    def _wait(self, future: Any, needs: Needs | None) -> None:
        seen = time.monotonic()
        while True:
            try:
                # `result` raises what there is. `distributed.wait` would look for a current client,
                # and setting that changes Dask's configuration for all threads.
                future.exception(timeout=_LOOK_SECONDS)
            except TimeoutError:
                workers = self._workers()
                if workers and (needs is None or has_place(workers, needs)):
                    seen = time.monotonic()
                elif time.monotonic() - seen > _NO_WORKERS_SECONDS:
                    if workers and needs is not None:
                        places(workers, needs, self._address)
                    raise ZipmlError(
                        f"all workers of the scheduler at {self._address} have been gone for "
                        f"{_NO_WORKERS_SECONDS:g} s"
                    ) from None
            else:
                return

    def _lost(self) -> ZipmlError:
        return ZipmlError(f"the connection to the Dask scheduler at {self._address} is lost")


def address_in(path: str | os.PathLike[str]) -> str:
    """Address of a scheduler from the file that it wrote, for which a few seconds are given.

    Raises
    ------
    UsageError
        There is no such file, or no address in it.
    """
    file, deadline = Path(path), time.monotonic() + _FILE_SECONDS
    while True:
        try:
            address = json.loads(file.read_text())["address"]
            if isinstance(address, str):
                return address
            raise TypeError("the address is no text")
        except (OSError, ValueError, KeyError, TypeError) as error:
            if time.monotonic() < deadline:
                time.sleep(0.1)
            elif isinstance(error, OSError):
                raise UsageError(
                    f"the scheduler file {file} cannot be read ({error.strerror or error}): is the "
                    "scheduler running with --scheduler-file, on a file system that both sides "
                    "share?"
                ) from error
            else:
                raise UsageError(
                    f"{file} is no scheduler file: dask scheduler --scheduler-file writes one"
                ) from error


@contextmanager
def local(workers: int, threads: int, *, needs: Needs | None = None) -> Iterator[Cluster]:
    """Start worker processes on this machine, with what steps need of them."""
    with (
        dask.config.set(_QUIET),
        signals_ignored(signal.SIGINT),  # the workers leave Ctrl-C to this process
    ):
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            processes=True,
            dashboard_address=None,
            resources={} if needs is None else needs.declared(),
        )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield Cluster(client, cluster.scheduler_address, needs=needs)


@contextmanager
def connect(
    address: str,
    *,
    place: str | None = None,
    fingerprint: str | None = None,
    needs: Needs | None = None,
) -> Iterator[Cluster]:
    """Connect to a running scheduler.

    Raises
    ------
    UsageError
        This is no address.
    ZipmlError
        Nobody answers there, there are no workers, or they cannot be used.
    """
    if not _ADDRESS.fullmatch(address):
        # Distributed would try for long and then fail with a traceback from its event loop.
        raise UsageError(f"{address!r} is no scheduler address: one looks like tcp://host:8786")
    if address.startswith("tls://") and not dask.config.get("distributed.comm.tls.ca-file", None):
        raise UsageError(
            f"{address}: TLS needs certificates, and Dask's configuration names none: set "
            "distributed.comm.tls"
        )
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except Exception as error:  # each transport has its own
        raise ZipmlError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        yield adopt(client, address, place=place, fingerprint=fingerprint, needs=needs)


def adopt(
    client: Client,
    address: str | None = None,
    *,
    place: str | None = None,
    fingerprint: str | None = None,
    needs: Needs | None = None,
) -> Cluster:
    """Use a client that is connected already.

    Raises
    ------
    ZipmlError
        There are no workers, or they cannot be used, or not by the executor.
    """
    if address is None:
        address = str(client.scheduler_info(n_workers=0)["address"])
    cluster = Cluster(client, address, place, fingerprint, needs)
    cluster.threads()  # workers that cannot be used are named before anything is computed
    cluster.equipped()
    return cluster

"""Where tasks of a cluster run: those that need a device, and those that have a home.

A worker says so with a resource of Dask (``dask worker --resources FPGA=1``): a task of a device
takes one of them while it runs, and goes to no other worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ExecutorError, ZipmlError
from .graph import BOUND

__all__ = ["AtHome", "Bound", "Needs", "has_place", "places", "require_executor"]


@dataclass(frozen=True)
class Needs:
    """What a run's steps need of workers.

    Attributes
    ----------
    executor : str
    resource : str or None
        None: any worker will do.
    each : int
        How much of it a local worker is given.
    """

    executor: str
    resource: str | None
    each: int = 1

    def declared(self) -> dict[str, float]:
        """What a local worker declares."""
        return {} if self.resource is None else {self.resource: self.each}


@dataclass(frozen=True)
class Bound:
    """What each task of a graph takes, by its key: what Dask's annotations may be."""

    resource: str

    def __call__(self, key: Any) -> dict[str, float]:
        return {self.resource: 1} if str(key).startswith(BOUND) else {}


@dataclass(frozen=True)
class AtHome:
    """The workers that tasks of a graph had better run on, by key: likewise."""

    homes: Mapping[str, str]

    def __call__(self, key: Any) -> list[str]:
        home = self.homes.get(key)
        return [] if home is None else [home]


def places(workers: Mapping[str, Any], needs: Needs, address: str) -> dict[str, int]:
    """How many tasks each worker may run that has what they need.

    Raises
    ------
    ExecutorError
        None has.
    """
    if needs.resource is None:
        return {worker: int(info["nthreads"]) for worker, info in workers.items()}
    found = {w: int(info["resources"].get(needs.resource, 0)) for w, info in workers.items()}
    there = {worker: count for worker, count in found.items() if count > 0}
    if not there:
        raise ExecutorError(
            f"executor {needs.executor} runs on workers that declare {needs.resource}, and none of "
            f"the {len(found)} at {address} does: start those that have a device with "
            f"dask worker {address} --resources {needs.resource}=1"
        )
    return there


def has_place(workers: Mapping[str, Any], needs: Needs) -> bool:
    """Whether any worker has what they need."""
    resource = needs.resource
    declared = (info["resources"].get(resource, 0) for info in workers.values())
    return resource is None or any(count >= 1 for count in declared)  # a task takes a whole one


def require_executor(client: Any, workers: list[str], executor: str) -> None:
    """See to it that workers have an executor.

    Raises
    ------
    ZipmlError
        It names the worker, and why it cannot be used there.
    """
    found = client.run(_unavailable, executor, workers=workers, on_error="return")
    for address, reason in sorted(found.items()):
        if isinstance(reason, OSError):
            continue  # it has just gone
        if reason is not None:
            raise ZipmlError(f"worker {address}: {reason}")


def _unavailable(executor: str) -> str | None:
    from ..executors.registry import get_executor

    try:
        get_executor(executor)
    except ZipmlError as error:
        return str(error)
    return None

"""Where the replicas of a run are at home on a cluster: the worker that keeps their chunks.

A replica goes through windows of its own in every epoch (`plan`). On the same worker each time it
finds their chunks in that worker's cache, and what it needs next can be fetched ahead there. A home
is a wish: tasks of a worker that has died run on others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from .graph import Graph
from .plan import Plan, Step
from .runner import Runner

__all__ = ["Homes", "at_home", "find_homes"]


class Homes:
    """Replicas in groups of neighbours, a group for each task that runs beside others.

    Parameters
    ----------
    plan : Plan
    places : iterable of str
        Addresses of workers, each as often as it has room for a task.
    """

    def __init__(self, plan: Plan, places: Iterable[str]) -> None:
        self._plan = plan
        # One for each worker before any has a second one; always in the same order.
        turns: defaultdict[str, int] = defaultdict(int)
        spread = []
        for address in sorted(places):
            spread.append((turns[address], address))
            turns[address] += 1
        self._groups = [address for _, address in sorted(spread)[: plan.replicas]]
        self._near: defaultdict[str, set[int]] = defaultdict(set)
        for replica in range(plan.replicas):
            self._near[self._groups[self._group(replica)]].add(replica)

    def _group(self, replica: int) -> int:
        return replica * len(self._groups) // self._plan.replicas

    def of(self, window: int) -> tuple[str, frozenset[int]]:
        """The home of a window, and all replicas that are at home there."""
        address = self._groups[self._group(self._plan.replica_of(window))]
        return address, frozenset(self._near[address])

    def groups(self, steps: list[Step]) -> list[list[Step]]:
        """The steps of a round in the groups of their replicas, those without steps left out."""
        found: defaultdict[int, list[Step]] = defaultdict(list)
        for step in steps:
            found[self._group(self._plan.replica_of(step.window))].append(step)
        return [found[group] for group in sorted(found)]


def find_homes(runner: Runner, plan: Plan, graph: Graph) -> Homes | None:
    """The homes of a plan's replicas, for the tasks of a graph; None if there is one process."""
    return Homes(plan, runner.places(graph)) if runner.distant else None


def at_home(homes: Homes | None, window: int, *, knows: bool = True) -> dict[str, Any]:
    """What `Graph.add` takes to send the task of a window home.

    With `knows` the task is told, as `near`, which replicas are at home there.
    """
    if homes is None:
        return {}
    home, near = homes.of(window)
    return {"home": home, "near": near} if knows else {"home": home}

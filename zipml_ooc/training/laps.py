"""Rounds as tasks: who advances which replicas, and where they are merged.

There are two forms with the same result. In the first a round is a task for each group of replicas
and one that merges them. In the second every group merges the whole round before it by itself:
then nobody waits for a merged model, which on a cluster saves two messages a round, some 7 ms of a
round of 15, and each worker gets all replicas, which only small models are worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .channels import Channel
from .graph import Graph, same
from .homes import Homes, at_home
from .plan import Step
from .replicas import Sent, State, merge, outset
from .sizes import Sized
from .tasks import Anchor, Job, advance

__all__ = ["rounds"]

# Numbers of a model up to which every group of replicas gets all of the others: 8 replicas of 12
# bytes each are then at most 786 kB, 6 ms of a network of 1 Gbit/s.
SMALL = 8192
# Groups up to which that is done: each depends on all of the round before. With 64 of them on 64
# workers the scheduler spends 52 ms on a round, and 31 ms where one task merges.
PARTS = 8


@dataclass(frozen=True)
class _Lap(Sized):
    """What a group of replicas did in a round; the first group has the model it began with."""

    start: State | None
    ends: list[State | Sent]


def rounds(
    graph: Graph,
    job: Any,
    numbered: Sequence[tuple[int, list[Step]]],
    state: State,
    anchor: Any,
    *,
    channel: Channel | None,
    homes: Homes | None,
) -> str:
    """Add the tasks of some rounds to a graph; the result is the state after them.

    Parameters
    ----------
    graph : Graph
    job, anchor : Job and Anchor, or what stands for them in the graph
    numbered : sequence of (number, steps)
    state : State
    channel : Channel or None
    homes : Homes or None
        Of a cluster, where messages are what costs; None: each replica advances by itself.
    """
    distant = homes is not None
    epoch = numbered[0][1][0].epoch
    value = graph.add(f"begin-epoch{epoch}-round{numbered[0][0]}", same, state)
    widest = max(len(_groups(steps, homes)) for _, steps in numbered)
    folds = distant and channel is None and state.model.size <= SMALL and widest <= PARTS
    laps: list[str] = []
    for number, steps in numbered:
        name = f"epoch{epoch}-round{number}"
        groups = _groups(steps, homes)
        at = [at_home(homes, group[0].window) for group in groups]
        if folds:
            before: Any = laps or value
            laps = [
                graph.add(
                    f"advance-{name}-part{i}",
                    _lap,
                    job,
                    group,
                    before,
                    anchor,
                    first=i == 0,
                    **at[i],
                )
                for i, group in enumerate(groups)
            ]
            continue
        begin = value
        if distant:  # what has been summed up before need not travel
            begin = graph.add(f"outset-{name}", outset, value)
        ends = [
            graph.add(f"advance-{name}-part{i}", _advance, job, group, begin, anchor, **at[i])
            for i, group in enumerate(groups)
        ]
        value = graph.add(f"merge-{name}", _merge, value, ends, channel)
    if folds:
        value = graph.add(f"merge-epoch{epoch}-round{numbered[-1][0]}", _merge_laps, laps)
    return value


def _groups(steps: list[Step], homes: Homes | None) -> list[list[Step]]:
    return [[step] for step in steps] if homes is None else homes.groups(steps)


def _advance(
    job: Job,
    steps: list[Step],
    start: State,
    anchor: Anchor | None,
    *,
    near: frozenset[int] | None = None,
) -> list[State | Sent]:
    return [advance(job, step, start, anchor, near=near) for step in steps]


def _merge(start: State, groups: list[list[State | Sent]], channel: Channel | None) -> State:
    return merge(start, [end for group in groups for end in group], channel)


def _lap(
    job: Job,
    steps: list[Step],
    before: State | list[_Lap],
    anchor: Anchor | None,
    *,
    first: bool,
    near: frozenset[int] | None,
) -> _Lap:
    start = before if isinstance(before, State) else _merge_laps(before)
    return _Lap(start if first else None, _advance(job, steps, start, anchor, near=near))


def _merge_laps(laps: list[_Lap]) -> State:
    start = laps[0].start
    assert start is not None
    return merge(start, [end for lap in laps for end in lap.ends])

"""A cache of read-only buffers with a byte budget, shared by all threads of a process.

It is for data that are gone through again and again in an order that changes: what has come in
first stays, for making room by dropping what was used long ago would drop just what comes next. A
part of the budget is for what is fetched ahead of its use.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

__all__ = ["ByteCache", "Group", "Item"]

T = TypeVar("T")

# What waits for its use takes at most this part of the budget.
_AHEAD = 4
# Several, because a store that is far away answers late.
_THREADS = 4
_UNKNOWN_BYTES = 1 << 20
# Items whose threads may still be at work on them.
_RECENT = 256


@dataclass(frozen=True)
class Group:
    """Values that are used side by side.

    Attributes
    ----------
    owner : hashable
        The dataset.
    kind : str
    family : hashable
        What there is one of at a time within a kind: another one takes its room.
    rank : int
        What it costs to get values again, beside their size: a higher rank takes the room of a
        lower one.
    """

    owner: Hashable
    kind: str
    family: Hashable = None
    rank: int = 0

    def yields_to(self, other: Group) -> bool:
        """Whether values of another group may take the room of those of this one."""
        if self.owner != other.owner:
            return True
        return self.rank < other.rank or (self.kind == other.kind and self.family != other.family)


@dataclass(frozen=True)
class Item(Generic[T]):
    """A value that can be loaded: its group and number, how, and how large it is then."""

    group: Group
    number: int
    load: Callable[[], T]
    size: Callable[[T], int]

    @property
    def key(self) -> tuple[Group, int]:
        """Tells it from others."""
        return self.group, self.number


@dataclass
class _Entry:
    value: Any
    nbytes: int


class ByteCache:
    """Keeps values whose sizes add up to at most a budget.

    A value that another thread is loading is waited for. One that finds no room is handed out and
    not kept.

    Parameters
    ----------
    budget_bytes : int
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._lock = threading.Lock()
        self._kept: dict[Group, OrderedDict[int, _Entry]] = {}
        self._ahead: OrderedDict[tuple[Group, int], _Entry] = OrderedDict()
        self._queued: dict[tuple[Group, int], int] = {}  # for which room is reserved
        self._loading: dict[tuple[Group, int], Future[Any]] = {}
        self._typical: dict[Group, int] = {}
        self._recent: OrderedDict[tuple[Group, int], None] = OrderedDict()
        self._held = self._waiting = 0  # bytes kept; bytes ahead, reserved ones included
        self._pool: ThreadPoolExecutor | None = None

    @property
    def held_bytes(self) -> int:
        """What is kept, what waits for its use, and what is on its way."""
        with self._lock:
            return self._held + self._waiting

    @property
    def budget_bytes(self) -> int:
        """The budget; values are dropped at once if it becomes less than they take."""
        return self._budget

    @budget_bytes.setter
    def budget_bytes(self, budget: int) -> None:
        if budget == self._budget:
            return
        with self._lock:
            self._budget = budget
            self._shrink(budget)

    def get(self, item: Item[T]) -> T:
        """Return the value of an item, loading it if it is not held."""
        key = item.key
        with self._lock:
            self._recent[key] = None
            self._recent.move_to_end(key)
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
            found = self._find(key)
            if found is not None:
                return cast(T, found.value)
            other = self._loading.get(key)
            if other is None:
                mine = self._loading[key] = Future()
                self._waiting -= self._queued.pop(key, 0)
        if other is not None:
            try:
                value = cast(T, other.result())
            except Exception:
                return item.load()  # with an error that is this thread's own
            with self._lock:
                self._find(key)  # it waits no more
            return value
        try:
            value = item.load()
        except BaseException as error:
            with self._lock:
                del self._loading[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._loading[key]
            self._keep(key, _Entry(value, self._size(item, value)))
        mine.set_result(value)
        return value

    def look_ahead(self, now: Sequence[Item[Any]], items: Sequence[Item[Any]]) -> None:
        """Begin to load what is used next, in this order, as far as there is room.

        What was fetched ahead before and is neither among these items nor among those that are used
        `now` is dropped; what was handed out just before is not loaded again.
        """
        with self._lock:
            wanted = {item.key for item in (*now, *items)}
            for key in [key for key in self._ahead if key not in wanted]:
                self._waiting -= self._ahead.pop(key).nbytes
            for item in items:
                key = item.key
                if key in self._ahead or key in self._queued or key in self._loading:
                    continue
                if key in self._recent:
                    continue
                if key[1] in self._kept.get(key[0], ()):
                    continue
                expected = self._typical.get(item.group, _UNKNOWN_BYTES)
                if self._waiting + expected > self._budget // _AHEAD:
                    break
                self._queued[key] = expected
                self._waiting += expected
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="zipml-ahead")
                self._pool.submit(self._fetch, item)
            self._shrink(self._budget)

    def clear(self) -> None:
        """Drop everything that is held."""
        with self._lock:
            self._shrink(0)

    def _fetch(self, item: Item[Any]) -> None:
        """Load an item ahead, unless somebody needed it sooner; errors are for who needs it."""
        key = item.key
        with self._lock:
            if key not in self._queued:
                return
            reserved = self._queued.pop(key)
            mine = self._loading[key] = Future()
        try:
            value = item.load()
        except BaseException as error:
            with self._lock:
                self._waiting -= reserved
                del self._loading[key]
            mine.set_exception(error)
            return
        with self._lock:
            entry = _Entry(value, self._size(item, value))
            self._waiting += entry.nbytes - reserved
            self._ahead[key] = entry
            del self._loading[key]
            self._shrink(self._budget)
        mine.set_result(value)

    def _size(self, item: Item[T], value: T) -> int:
        nbytes = item.size(value)
        self._typical[item.group] = nbytes
        return nbytes

    def _find(self, key: tuple[Group, int]) -> _Entry | None:
        kept = self._kept.get(key[0])
        if kept is not None and key[1] in kept:
            return kept[key[1]]
        entry = self._ahead.pop(key, None)
        if entry is not None:  # it stays if there is room besides what will be ahead
            self._waiting -= entry.nbytes
            self._keep(key, entry, ahead=True)
        return entry

    def _keep(self, key: tuple[Group, int], entry: _Entry, *, ahead: bool = False) -> None:
        group, number = key
        room = self._budget - (
            max(self._waiting, self._budget // _AHEAD) if ahead else self._waiting
        )
        if entry.nbytes > room:
            return
        if self._held + entry.nbytes > room:
            for other in list(self._kept):
                if other.yields_to(group):
                    self._drop(other, room - entry.nbytes)
        if self._held + entry.nbytes > room:
            return
        self._kept.setdefault(group, OrderedDict())[number] = entry
        self._held += entry.nbytes

    def _drop(self, group: Group, most: int) -> None:
        """Drop values of a group, the last that came first, until all kept are so few bytes."""
        entries = self._kept[group]
        while entries and self._held > most:
            self._held -= entries.popitem()[1].nbytes
        if not entries:
            del self._kept[group]

    def _shrink(self, budget: int) -> None:
        """Make what is held fit: what waits for its use stays, as long as it can."""
        for group in sorted(self._kept, key=lambda group: group.rank):
            if self._held + self._waiting > budget:
                self._drop(group, max(budget - self._waiting, 0))
        while self._ahead and self._held + self._waiting > budget:
            self._waiting -= self._ahead.popitem()[1].nbytes

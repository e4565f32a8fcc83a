"""The cache of encoded chunks: its budget holds, whatever is kept, fetched ahead, or in a hurry."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from zipml_ooc.cache import ByteCache, Group, Item

X, Y = Group("set", "X"), Group("set", "y", rank=2)


class Source:
    """Numbers that take `size` bytes, and how often each was loaded."""

    def __init__(self, size: int = 10, seconds: float = 0.0) -> None:
        self.size, self.seconds = size, seconds
        self.loaded: Counter[int] = Counter()
        self._lock = threading.Lock()

    def item(self, number: int, group: Group = X) -> Item[int]:
        def load() -> int:
            with self._lock:
                self.loaded[number] += 1
            time.sleep(self.seconds)
            return number

        return Item(group, number, load, lambda _: self.size)

    def items(self, numbers: Iterable[int]) -> list[Item[int]]:
        return [self.item(number) for number in numbers]


def settled(cache: ByteCache) -> None:
    """Wait until nothing is on its way."""
    end = time.monotonic() + 10
    while cache._queued or cache._loading:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_what_came_first_stays_and_the_rest_is_handed_out() -> None:
    cache, source = ByteCache(35), Source()
    for _ in range(4):  # four passes over five values: room for three
        assert [cache.get(item) for item in source.items(range(5))] == list(range(5))
    assert source.loaded == {0: 1, 1: 1, 2: 1, 3: 4, 4: 4}
    assert cache.held_bytes == 30
    huge = Source(size=100)
    assert cache.get(huge.item(9)) == 9 and cache.held_bytes == 30


def test_another_dataset_and_another_family_take_the_room() -> None:
    cache, source = ByteCache(30), Source()
    for group in (X, Group("set", "X", 2), Group("other", "X", 2)):
        for number in range(3):
            cache.get(source.item(number, group))
        before = source.loaded.total()
        for number in range(3):
            cache.get(source.item(number, group))
        assert source.loaded.total() == before and cache.held_bytes == 30


def test_a_higher_rank_takes_the_room_of_a_lower_one() -> None:
    cache, source, targets = ByteCache(30), Source(), Source(size=4)
    for item in source.items(range(3)):
        cache.get(item)
    for _ in range(2):
        for number in range(5):
            assert cache.get(targets.item(number, Y)) == number
    assert targets.loaded == dict.fromkeys(range(5), 1)
    assert cache.held_bytes == 30
    for item in source.items(range(3)):
        cache.get(item)
    assert source.loaded == {0: 1, 1: 2, 2: 2}


def test_threads_that_want_the_same_value_load_it_once() -> None:
    cache, source = ByteCache(100), Source(seconds=0.05)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: cache.get(source.item(3)), range(8))) == [3] * 8
    assert source.loaded == {3: 1}


def test_what_comes_next_is_there_when_it_is_needed() -> None:
    cache, source = ByteCache(80), Source()
    cache.get(source.item(0))  # now it is known how large a value is
    cache.look_ahead(source.items([0]), source.items([1, 2, 3, 4]))
    settled(cache)
    assert set(source.loaded) == {0, 1, 2}  # a quarter of the budget
    for number in (1, 2):
        assert cache.get(source.item(number)) == number
    assert source.loaded == {0: 1, 1: 1, 2: 1}
    cache.look_ahead(source.items([2]), source.items([1, 3, 4]))  # 1 was just used
    settled(cache)
    assert source.loaded == dict.fromkeys(range(5), 1)


def test_what_is_not_used_after_all_is_dropped() -> None:
    cache, source = ByteCache(80), Source()
    cache.get(source.item(0))
    cache.look_ahead([], source.items([1, 2]))
    settled(cache)
    assert cache.held_bytes == 30
    cache.look_ahead(source.items([2]), source.items([5]))
    settled(cache)
    assert set(source.loaded) == {0, 1, 2, 5} and cache.held_bytes == 30
    cache.look_ahead([], [])
    assert cache.held_bytes == 10


def test_an_error_ahead_is_met_by_who_needs_the_value() -> None:
    cache, failing = ByteCache(80), [True]

    def load() -> int:
        if failing[0]:
            raise OSError("gone")
        return 7

    item: Item[int] = Item(X, 1, load, lambda _: 10)
    cache.look_ahead([], [item])
    settled(cache)
    assert cache.held_bytes == 0
    with pytest.raises(OSError, match="gone"):
        cache.get(item)
    failing[0] = False
    assert cache.get(item) == 7 and cache.held_bytes == 10


@pytest.mark.parametrize("budget", [0, 9, 25, 64, 1000])
def test_the_budget_holds_under_threads(budget: int) -> None:
    cache, source = ByteCache(budget), Source(seconds=0.0005)
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            most[0] = max(most[0], cache.held_bytes)

    def work(start: int) -> None:
        for step in range(60):
            number = (start * 7 + step) % 20
            group = X if number % 3 else Y
            assert cache.get(source.item(number, group)) == number
            cache.look_ahead(
                [source.item(number, group)],
                [
                    source.item(n % 20, X if n % 20 % 3 else Y)
                    for n in range(number + 1, number + 6)
                ],
            )

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    settled(cache)
    done.set()
    watcher.join()
    assert most[0] <= budget
    cache.budget_bytes = 5
    assert cache.held_bytes <= 5

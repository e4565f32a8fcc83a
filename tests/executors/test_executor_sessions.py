"""Sessions between tasks: who waits for a device gets it, or is told that the run has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import executor_cases as cases
import pytest

from zipml_ooc import TrainOptions
from zipml_ooc.errors import ExecutorError
from zipml_ooc.executors import sessions
from zipml_ooc.executors.sessions import Key, borrowed, close_sessions
from zipml_ooc.training.problem import Problem, make_problem

SECONDS = 10.0


@pytest.fixture(autouse=True)
def fragile() -> Iterator[None]:
    with cases.registered(fragile="executor_cases:fragile"):
        yield
    assert not cases.OPENED


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    return make_problem(cases.table(tmp_path_factory.mktemp("data"), rows=200).spec, TrainOptions())


def key(run: str) -> Key:
    """Of a run with one device of its own."""
    return run, "fragile", (("delayed", False), ("device", run), ("exponent", None), ("runs", -1))


class Waiter:
    """A task on a thread of its own, which waits for a session."""

    def __init__(self, run: Key, problem: Problem) -> None:
        self.found: list[Any] = []
        before = waiting()
        self._thread = threading.Thread(target=self._borrow, args=(run, problem), daemon=True)
        self._thread.start()
        until = time.monotonic() + SECONDS
        while waiting() == before:
            assert time.monotonic() < until and not self.found, self.found
            time.sleep(0.001)

    def _borrow(self, run: Key, problem: Problem) -> None:
        try:
            with borrowed(run, problem) as session:
                self.found.append(session)
        except ExecutorError as error:
            self.found.append(str(error))

    def result(self) -> Any:
        """What it got, or why it got nothing; it must come."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        (found,) = self.found
        return found


def waiting() -> int:
    return len(sessions._CHANGED._waiters)  # type: ignore[attr-defined]


def test_who_waits_for_a_device_is_told_that_the_run_has_ended(problem: Problem) -> None:
    """Else its thread would wait for ever, and the process with it."""
    run = key("ended")
    with borrowed(run, problem) as session:
        waiter = Waiter(run, problem)
        close_sessions(run)
        assert waiter.result() == "the run has ended"
    with pytest.raises(ExecutorError, match="session is closed"):
        session.counters()


def test_who_waits_behind_a_failure_gets_the_device(problem: Problem) -> None:
    run = key("failed")
    with pytest.raises(RuntimeError, match="lost"), borrowed(run, problem) as session:
        waiter = Waiter(run, problem)
        raise RuntimeError("lost")
    assert waiter.result() not in (session, "the run has ended")
    close_sessions(run)


def test_runs_that_wait_do_not_take_each_other_s_turn(problem: Problem) -> None:
    first, second = key("first"), key("second")
    with borrowed(first, problem) as held:
        before = Waiter(first, problem)
        with borrowed(second, problem) as session:
            behind = Waiter(second, problem)
        assert behind.result() is session
    assert before.result() is held
    close_sessions(first)
    close_sessions(second)

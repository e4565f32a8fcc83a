"""Work on ranges of rows, side by side: in threads of this process, or on the workers of a cluster.

Results come in the order of the tasks, whoever finishes first, so that what is made of them does
not depend on how many there were at work.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Generic, TypeVar

from .errors import UsageError, ZipmlError
from .sources import Source, SourceOptions, open_source
from .sources.weights import WeightedSource

if TYPE_CHECKING:
    from .training.runner import Runner

__all__ = ["SourceRecipe", "StoppedError", "Workforce", "open_workforce", "row_ranges"]

Task = TypeVar("Task")
Result = TypeVar("Result")
Report = Callable[[int], None]

# Ranges are read from the start of what a source reads at once; with fewer than so many of these
# in a range, most of what is read would be thrown away.
_GRAINS = 2


class StoppedError(Exception):
    """Another task failed, or the run was interrupted: nobody waits for this one."""


@dataclass(frozen=True)
class SourceRecipe:
    """How to open a source, here or on another machine that sees the same files.

    Parameters
    ----------
    paths : tuple of str
    options : SourceOptions
    weight : str or None
        The column of weights.
    stamps : tuple of str
        What changes with the files: a worker that has opened them before opens them again then.
    """

    paths: tuple[str, ...]
    options: SourceOptions
    weight: str | None = None
    stamps: tuple[str, ...] = ()

    def open(self) -> Source:
        """Open the source."""
        source = open_source(self.paths, self.options)
        return source if self.weight is None else WeightedSource(source, self.weight)


@lru_cache(maxsize=4)
def _opened(recipe: SourceRecipe) -> Source:
    return recipe.open()


@dataclass(frozen=True)
class _Outcome(Generic[Result]):
    """What a task gave; exceptions lose their cause on the way between processes."""

    result: Result | None = None
    error: Exception | None = None
    passing: bool = False


def _run(
    function: Callable[[Source, Task, Report], Result],
    source: Source | SourceRecipe,
    task: Task,
    report: Report,
) -> _Outcome[Result]:
    try:
        opened = _opened(source) if isinstance(source, SourceRecipe) else source
    except UsageError as error:  # it was there a moment ago
        return _Outcome(error=error, passing=True)
    try:
        return _Outcome(function(opened, task, report))
    except (ZipmlError, OSError, StoppedError) as error:
        return _Outcome(error=error, passing=isinstance(error.__cause__, OSError))


class Workforce:
    """Threads or workers that compute a function of many tasks.

    Attributes
    ----------
    slots : int
        How many tasks run side by side.
    """

    def __init__(
        self, slots: int, source: Source | SourceRecipe, runner: Runner | None = None
    ) -> None:
        self.slots = slots
        self._source, self._runner = source, runner

    def map(
        self,
        name: str,
        function: Callable[[Source, Task, Report], Result],
        tasks: Sequence[Task],
        report: Report,
    ) -> Iterator[Result]:
        """Compute function(source, task, report) of each task; results come in their order.

        Parameters
        ----------
        name : str
            What a scheduler's dashboard calls the tasks.
        function : callable
            Of a module, so that workers can import it. It calls report(rows) as it goes on, where
            that may raise: then nobody waits for the rest.
        tasks : sequence
        report : callable
            Called as report(rows done), in threads of this process while a task goes on.
        """
        stopped = threading.Event()
        lock, done = threading.Lock(), 0

        def progress(rows: int) -> None:
            nonlocal done
            if stopped.is_set():
                raise StoppedError
            with lock:
                done += rows
                report(done)

        def compute(task: Task) -> _Outcome[Result]:
            if self._runner is None:
                return _run(function, self._source, task, progress)
            run = partial(_run, function, self._source, task, _ignore)
            return _on_cluster(self._runner, name, run)

        pool = ThreadPoolExecutor(self.slots, thread_name_prefix=f"zipml-{name}")
        waiting: deque[Future[_Outcome[Result]]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(compute, task))
                if len(waiting) > self.slots:
                    yield _result(waiting.popleft().result())
            while waiting:
                yield _result(waiting.popleft().result())
        finally:
            stopped.set()
            # What workers have begun ends with them, or with the connection to them.
            pool.shutdown(wait=self._runner is None, cancel_futures=True)


def _ignore(rows: int) -> None:
    """Report nothing: progress does not cross processes."""


def _on_cluster(
    runner: Runner, name: str, function: Callable[[], _Outcome[Result]]
) -> _Outcome[Result]:
    from .training.graph import Graph

    graph = Graph()
    try:
        outcome: _Outcome[Result] = runner.compute(graph, graph.add(name, function))
    except ZipmlError as error:  # workers or scheduler went away: no fault of the data
        return _Outcome(error=error, passing=True)
    return outcome


def _result(outcome: _Outcome[Result]) -> Result:
    if outcome.error is not None:
        if outcome.passing:
            raise outcome.error from OSError(str(outcome.error))
        raise outcome.error
    return outcome.result  # type: ignore[return-value]


def row_ranges(source: Source, tasks: int, multiple: int, most: int) -> list[range]:
    """Cut a source into ranges of rows of about one size, where that is of use.

    Parameters
    ----------
    source : Source
    tasks : int
        How many are wished.
    multiple : int
        What they start at multiples of.
    most : int
        Rows of a range, unless the source reads more at once.

    Returns
    -------
    list of range
        Empty where rows are found only by reading from the start.
    """
    access = source.row_access
    if access is None:
        return []
    least = _GRAINS * access.grain_rows if access.grain_rows > multiple else multiple
    rows = max(min(-(-access.rows // tasks), most), least)
    rows = -(-rows // multiple) * multiple
    return [range(first, min(first + rows, access.rows)) for first in range(0, access.rows, rows)]


@contextmanager
def open_workforce(
    source: Source,
    recipe: SourceRecipe,
    *,
    threads: int,
    threads_given: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Iterator[Workforce]:
    """Open what computes: threads of this process unless workers or a scheduler are asked for.

    Parameters
    ----------
    source, recipe
        The source, and how workers open it.
    threads : int
        Of this process.
    threads_given : int, optional
        Of each local worker.
    workers, scheduler : optional
        See `zipml_ooc.training.runner.open_runner`.
    """
    if workers is None and scheduler is None:
        yield Workforce(threads, source)
        return
    from .training.runner import open_runner

    with open_runner(threads=threads_given, workers=workers, scheduler=scheduler) as runner:
        yield Workforce(runner.threads(), recipe, runner)

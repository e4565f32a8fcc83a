"""Whether an executor keeps what it promises: checks that anybody can run on theirs.

By the command line, ``zipml executors check NAME``; in Python, `run_suite`; or each check as a test
of its own:

.. code-block:: python

    import pytest
    from zipml_ooc.testing import executor_suite as suite

    @pytest.fixture(scope="module")
    def bench(tmp_path_factory):
        return suite.Bench(MyExecutor(), tmp_path_factory.mktemp("bench"))

    @pytest.mark.parametrize("check", suite.CHECKS)
    def test_my_executor(bench, check):
        suite.CHECKS[check](bench)

A check is a function of a `Bench`. It gives a line about what it has seen, or raises
`NotConforming`; whatever else it raises came from the executor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..errors import ExecutorError, UsageError
from ..executors.admission import parse_settings
from ..executors.protocol import Capabilities, Counters, Executor, Session, Trained
from ..losses import LOSSES
from ..training.options import TrainOptions
from .executor_bench import Bench, Work, base_case, universe

__all__ = ["CHECKS", "Bench", "NotConforming", "Result", "run_suite"]

_TOLERANCE = 0.01
_KNOWN: Mapping[str, Sequence[object]] = {
    "stored_bits": range(1, 9),
    "samples": (1, 2, 4, 8),
    "layouts": ("packed", "weaved"),
    "levels": ("uniform", "optimal"),
    "scales": ("column", "row"),
    "losses": tuple(LOSSES),
    "estimators": ("mean", "split", "polynomial", "refetch"),
    "solvers": ("sgd", "svrg", "gram"),
    "penalties": ("l1", "l2"),
}


class NotConforming(AssertionError):
    """An executor does not do what it says, or what every executor must."""


@dataclass(frozen=True)
class Result:
    """What came of a check."""

    check: str
    passed: bool
    detail: str
    seconds: float


def _require(ok: bool, text: str) -> None:
    if not ok:
        raise NotConforming(text)


def _same(a: Trained, b: Trained, when: str) -> None:
    """Require the same bits."""
    for part in fields(Trained):
        x, y = getattr(a, part.name), getattr(b, part.name)
        same = (x is None) == (y is None) and (x is None or np.array_equal(x, y, equal_nan=True))
        _require(same, f"{part.name} is another {when}")


def describes_itself(bench: Bench) -> str:
    """Names, words and options are such that people and programs understand them."""
    executor, able = bench.executor, bench.able
    _require(isinstance(able, Capabilities), f"capabilities gave {able!r}")
    _require(bool(executor.name) and executor.name == executor.name.strip(), "it has no name")
    lines = executor.summary.splitlines()
    _require(len(lines) == 1 and bool(lines[0].strip()), "its summary is not a line")
    for name, known in _KNOWN.items():
        found = getattr(able, name)
        strange = [word for word in found if word not in known]
        _require(not strange, f"{name} has {strange}, and may have {list(known)}")
    for name in ("stored_bits", "samples", "layouts", "losses", "estimators", "arithmetics"):
        _require(bool(getattr(able, name)), f"{name} is empty: nothing could run on it")
    names = [option.name for option in able.options]
    _require(len(set(names)) == len(names), f"options of the same name: {names}")
    for option in able.options:
        _require(option.kind in (int, float, str, bool), f"option {option.name} is {option.kind}")
        given = option.default
        _require(
            given is None or type(given) is option.kind,
            f"option {option.name} is {option.kind.__name__} and {given!r} by default",
        )
    problem, rows = bench.work().window.problem, 64
    step = executor.largest_step(problem, rows, bench.settings)
    _require(step > 0, f"its largest step is {step}")
    reason = executor.unavailable()
    _require(reason is None, f"it cannot be used here: {reason}")
    devices = executor.devices(bench.settings)
    if devices is not None:
        _require(0 < len(devices) == len(set(devices)), f"its devices are {list(devices)}")
    return f"{len(able.losses)} loss(es), {len(names)} option(s)"


def takes_what_it_declares(bench: Bench) -> str:
    """What its capabilities admit is taken and run, to finite numbers."""
    count = 0
    with bench.session() as session:
        for case, work in _taken(bench):
            try:
                trained = work.on(session)
            except Exception as error:
                raise NotConforming(f"{case} is declared and fails: {error!r}") from error
            finite = np.isfinite(trained.model).all() and np.isfinite(trained.loss_sum)
            _require(bool(finite), f"{case} gives numbers that are not finite")
            _require(trained.model.dtype == np.float32, f"{case} gives a model not of float32")
            moved = not np.array_equal(trained.model, work.window.model)
            _require(moved, f"{case} leaves the model as it was")
            count += 1
    _require(count > 0, "of all that a run may ask for it takes nothing")
    return f"{count} kinds of runs"


def _taken(bench: Bench) -> Iterator[tuple[str, Work]]:
    for case in universe(bench.able):
        if case.words in bench.declared:
            try:
                yield case.words, bench.work(case)
            except UsageError as error:
                raise NotConforming(f"{case.words} is declared and refused: {error}") from error


def refuses_the_rest(bench: Bench) -> str:
    """What it does not declare is refused by a `UsageError` of a line, before anything is read."""
    count = 0
    for case in universe(bench.able):
        if case.words in bench.declared:
            continue
        try:
            bench.admitted(case, bench.dataset(**case.stored))
        except UsageError as error:
            text = str(error)
            _require(bool(text) and "\n" not in text, f"{case.words}: {text!r} is not a line")
            count += 1
        except Exception as error:
            raise NotConforming(f"{case.words} is refused by {error!r}") from error
        else:
            raise NotConforming(f"{case.words} is not declared, and taken")
    try:
        parse_settings(bench.executor, {"no such option": 1})
    except UsageError:
        return f"{count} kinds of runs"
    raise NotConforming("an option that it does not have is taken")


def is_deterministic(bench: Bench) -> str:
    """A window gives the same bits again, in another session, and after other windows."""
    work = bench.work()
    other = bench.work(number=3, epoch=2, model=work.window.model + np.float32(0.3))
    with bench.session() as session:
        first = work.on(session)
        _same(first, work.on(session), "when a window is run once more")
        different = other.on(session)
        _require(not np.array_equal(first.model, different.model), "all windows give one model")
        _same(first, work.on(session), "after another window has been run")
    with bench.session() as session:
        _same(different, other.on(session), "in another session")
    return "the same bits"


def splits_as_declared(bench: Bench) -> str:
    """A window in several parts gives the bits of one that is run in one go."""
    if not bench.able.splits:
        return "windows are not split"
    work = bench.work()
    whole = work.window.tiles
    for parts in ((1, whole), (2, 3, whole), tuple(range(1, whole + 1))):
        with bench.session() as session:
            expected = work.on(session)
            session.load(work.window)
            for start, stop in zip((0, *parts[:-1]), parts, strict=True):
                session.run(work.tiles.part(start, stop))
            _same(expected, session.read(), f"in {len(parts)} parts")
    return f"in 2 to {whole} parts"


def leaves_its_input(bench: Bench) -> str:
    """What a session is given is not changed."""
    work = bench.work()
    before = work.window.model.copy(), work.window.intercept.copy()
    codes = [chunk.codes.copy() for chunk in work.tiles.chunks]
    with bench.session() as session:
        work.on(session)
    _require(np.array_equal(before[0], work.window.model), "the window's model was changed")
    _require(np.array_equal(before[1], work.window.intercept), "the intercept was changed")
    for old, chunk in zip(codes, work.tiles.chunks, strict=True):
        _require(np.array_equal(old, chunk.codes), "codes were changed")
    return "nothing was changed"


def holds_a_model(bench: Bench) -> str:
    """With steps of nothing, what is read is what was loaded, up to the device's own precision."""
    work = bench.work(step_first=1e-20, step_last=1e-20)
    with bench.session() as session:
        once = work.on(session)
    again = replace(work.window, model=once.model, intercept=once.intercept)
    with bench.session() as session:
        twice = Work(again, work.tiles).on(session)
    off = float(np.abs(once.model - work.window.model).max())
    size = float(np.abs(work.window.model).max())
    _require(off <= 0.01 * size, f"a model of {size:g} is held to {off:g} only")
    _require(np.array_equal(once.model, twice.model), "a model that was read is loaded as another")
    near = np.allclose(once.intercept, twice.intercept, rtol=0, atol=1e-6)
    _require(bool(near), "an intercept that was read is loaded as another")
    return f"off by {off / size:.1e} of the largest number"


def averages_as_asked(bench: Bench) -> str:
    """Models are averaged from the given mini-batch on, and only if it says that it does."""
    batches = bench.work().window.batches
    found = []
    with bench.session() as session:
        for start in (0, batches // 2, batches):
            trained = bench.work(average_from=start).on(session)
            found.append(trained.averaged)
            most = batches - start if bench.able.averaging else 0
            _require(0 <= trained.averaged <= most, f"{trained.averaged} of {most} models averaged")
            if trained.averaged:
                mean = trained.model_sum / trained.averaged
                reach = np.abs(trained.model).max() + np.abs(bench.work().window.model).max() + 1
                _require(bool((np.abs(mean) < 2 * reach).all()), "the average is out of bounds")
    _require(not bench.able.averaging or found[0] > 0, "no model was averaged")
    return ", ".join(f"{n} of {batches}" for n in found)


def counts_upwards(bench: Bench) -> str:
    """Counters never go down, and a run is counted."""
    work = bench.work()
    with bench.session() as session:
        before = session.counters()
        for _ in range(3):
            work.on(session)
            after = session.counters()
            _require(isinstance(after, Counters), f"counters gave {after!r}")
            _require(after.runs > before.runs, "a run is not counted")
            more = (after - before).to_dict()
            down = [name for name, value in more.items() if value < 0]
            _require(not down, f"{', '.join(down)} went down")
            before = after
    return ", ".join(f"{name} {value:.6g}" for name, value in before.to_dict().items())


def closes(bench: Bench) -> str:
    """A session may be closed twice; afterwards it says that it is closed."""
    work = bench.work()
    uses: dict[str, Callable[[Session], Any]] = {
        "load": lambda session: session.load(work.window),
        "read": lambda session: session.read(),
        "counters": lambda session: session.counters(),
    }
    for used in (False, True):
        with bench.session() as session:
            if used:
                work.on(session)
            session.close()
            session.close()
            for name, use in uses.items():
                try:
                    use(session)
                except ExecutorError:
                    continue
                raise NotConforming(f"{name} works on a session that is closed")
    return "twice"


def converges(bench: Bench) -> str:
    """Training ends within 1 % of the loss that the native core reaches, for each of its losses."""
    told = []
    for bits in (4, 8):
        if bench.able.samples[0] != 1 or bits not in bench.able.stored_bits:
            continue
        ratios = []
        for loss in bench.able.losses:
            stored = base_case(bench.able, loss).stored | {"bits": bits}
            dataset = bench.dataset(rows=2000, **stored)
            options = TrainOptions(loss=loss, epochs=20)
            native, found = bench.native(dataset, options).loss, bench.train(dataset, options).loss
            _require(
                found <= native * (1 + _TOLERANCE),
                f"the {loss} loss at {bits} bits ends at {found:.6g} where the native core has "
                f"{native:.6g}",
            )
            ratios.append(found / native)
        told.append(f"{max(ratios):.4f} at {bits} bits")
    return "loss over that of native: " + ", ".join(told) if told else "no bits to compare"


CHECKS: dict[str, Callable[[Bench], str]] = {
    check.__name__.replace("_", " "): check
    for check in (
        describes_itself,
        takes_what_it_declares,
        refuses_the_rest,
        is_deterministic,
        splits_as_declared,
        leaves_its_input,
        holds_a_model,
        averages_as_asked,
        counts_upwards,
        closes,
        converges,
    )
}
"""All checks by their names."""


def run_suite(
    executor: Executor,
    options: Mapping[str, Any] | None = None,
    *,
    checks: Sequence[str] = tuple(CHECKS),
    progress: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Run checks on an executor, whatever comes of each.

    Parameters
    ----------
    executor : Executor
    options : mapping, optional
        Its own, by name.
    checks : sequence of str
        Names of `CHECKS`.
    progress : callable, optional
        Called with each result.

    Examples
    --------
    >>> from zipml_ooc.executors import get_executor
    >>> results = run_suite(get_executor("reference"), checks=["counts upwards", "closes"])
    >>> [result.passed for result in results]
    [True, True]
    """
    results = []
    with TemporaryDirectory(prefix="zipml-executor-") as folder:
        bench = Bench(executor, Path(folder), options)
        for name in checks:
            began = time.perf_counter()
            try:
                passed, detail = True, CHECKS[name](bench)
            except NotConforming as error:
                passed, detail = False, str(error)
            except Exception as error:
                passed, detail = False, f"it raised {error!r}"
            result = Result(name, passed, detail, time.perf_counter() - began)
            results.append(result)
            if progress is not None:
                progress(result)
    return results

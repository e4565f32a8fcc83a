"""The conformance suite: ours pass it, and an executor that breaks a promise fails that check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import executor_cases as cases
import numpy as np
import pytest

from zipml_ooc.executors import Capabilities, Counters, Option, Settings, Trained, Window
from zipml_ooc.executors.native import Native
from zipml_ooc.executors.reference import Reference
from zipml_ooc.testing import executor_suite as suite
from zipml_ooc.training.loading import LoadedTiles

MAKERS = {"native": Native, "reference": Reference, "accelerator": cases.fragile}


@pytest.fixture(scope="module", params=MAKERS)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> suite.Bench:
    return suite.Bench(MAKERS[request.param](), tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("check", suite.CHECKS)
def test_ours_pass(bench: suite.Bench, check: str) -> None:
    assert suite.CHECKS[check](bench)


class Proxy:
    """A session of the reference in which something is broken."""

    def __init__(self, session: Any) -> None:
        self._own, self.runs = session, 0

    def load(self, window: Window) -> None:
        self._own.load(window)

    def run(self, tiles: LoadedTiles) -> None:
        self.runs += 1
        self._own.run(tiles)

    def read(self) -> Trained:
        return self._own.read()

    def counters(self) -> Counters:
        return self._own.counters()

    def close(self) -> None:
        self._own.close()


class Broken(Reference):
    """The reference with other sessions, and capabilities changed."""

    name = "broken"
    session: type[Proxy] = Proxy
    changes: dict[str, Any] = {}  # noqa: RUF012

    def capabilities(self) -> Capabilities:
        few = {"losses": ("squared", "logistic"), "layouts": ("packed",), "penalties": ()}
        return replace(super().capabilities(), **few | self.changes)

    def open(self, device: str | None, problem: Any, settings: Settings) -> Proxy:
        return self.session(super().open(device, problem, settings))


class Remembers(Proxy):
    def read(self) -> Trained:
        return replace(super().read(), loss_sum=float(self.runs))


class Shifts(Proxy):
    def read(self) -> Trained:
        found = super().read()
        return replace(found, model=found.model * np.float32(1.2))


class Scribbles(Proxy):
    def load(self, window: Window) -> None:
        super().load(window)
        window.model[:] = 0


class Averages(Proxy):
    def read(self) -> Trained:
        return replace(super().read(), averaged=1000)


class CountsDown(Proxy):
    def counters(self) -> Counters:
        return replace(super().counters(), cycles=-self.runs)


class NeverCloses(Proxy):
    def close(self) -> None:
        pass


class Explodes(Proxy):
    def read(self) -> Trained:
        found = super().read()
        return replace(found, model=found.model * np.float32(np.nan))


class Forgets(Proxy):
    def run(self, tiles: LoadedTiles) -> None:
        if self._own._way is not None and self._own._way.batches:
            self._own.load(self._own._window)
        super().run(tiles)


class Dawdles(Proxy):
    def load(self, window: Window) -> None:
        super().load(window)
        self.start = window.model

    def read(self) -> Trained:
        found = super().read()
        moved = self.start + np.float32(0.01) * (found.model - self.start)
        return replace(found, model=moved, model_sum=found.averaged * moved.astype(float))


class Packs(Proxy):
    def load(self, window: Window) -> None:
        if window.problem.woven:
            raise ValueError("these are no packed codes")
        super().load(window)


def broken(session: type[Proxy] = Proxy, **changes: Any) -> Broken:
    return type("Made", (Broken,), {"session": session, "changes": changes})()


@pytest.mark.parametrize(
    ("executor", "failing", "text"),
    [
        (broken(), set(), ""),
        (broken(Remembers), {"is deterministic"}, "loss_sum is another when a window is run once"),
        (broken(Shifts), {"holds a model"}, "is held to"),
        (broken(Dawdles), {"converges"}, "where the native core has"),
        (broken(Scribbles), {"leaves its input"}, "the window's model was changed"),
        (broken(Averages), {"averages as asked"}, "1000 of 7 models averaged"),
        (broken(averaging=False), {"averages as asked"}, "7 of 0 models averaged"),
        (broken(CountsDown), {"counts upwards"}, "cycles went down"),
        (broken(NeverCloses), {"closes"}, "load works on a session that is closed"),
        (broken(Explodes), {"takes what it declares"}, "not finite"),
        (broken(Forgets), {"splits as declared"}, "in 2 parts"),
        (broken(losses=("squared", "cubed")), {"describes itself"}, "losses has ['cubed']"),
        (
            broken(Packs, layouts=("packed", "weaved")),
            {"takes what it declares"},
            "the weaved layout is declared and fails",
        ),
        (broken(options=(Option("a", int, "", "x"),)), {"describes itself"}, "'x' by default"),
    ],
)
def test_a_broken_promise_fails_its_check(executor: Broken, failing: set[str], text: str) -> None:
    results = suite.run_suite(executor)
    failed = {result.check: result.detail for result in results if not result.passed}
    assert failing <= set(failed)
    if failing:
        assert any(text in detail for detail in failed.values()), failed
    else:
        assert not failed


class Choosy(Broken):
    """It declares more than its own check lets pass."""

    def check(self, problem: Any, options: Any, settings: Settings) -> None:
        from zipml_ooc import UsageError

        if problem.loss == "logistic":
            raise UsageError("not today")


class Rude(Broken):
    """It refuses by another error."""

    def check(self, problem: Any, options: Any, settings: Settings) -> None:
        if options.momentum:
            raise RuntimeError("no")


@pytest.mark.parametrize("made", [Choosy, Rude])
def test_a_declared_problem_that_is_refused_fails(made: type[Broken]) -> None:
    (result,) = suite.run_suite(made(), checks=["takes what it declares"])
    assert not result.passed and ("not today" in result.detail or "'no'" in result.detail)


def test_the_command_prints_a_line_a_check_and_fails_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from zipml_cli.main import main

    from zipml_ooc.executors.registry import offered

    assert main(["executors", "check", "reference"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(suite.CHECKS) and all(line.startswith("ok") for line in lines)
    with offered(broken(CountsDown)):
        assert main(["executors", "check", "broken"]) == 1
        out = capsys.readouterr().out
        assert "FAILED  counts upwards" in out and "1 of 11 checks failed" in out
        assert main(["executors", "check", "broken", "--json"]) == 1
    assert main(["executors", "check", "nobody"]) == 2

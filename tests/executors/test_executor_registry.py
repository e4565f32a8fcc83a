"""Executors are found by name; what cannot be loaded is listed with the reason, and in no way."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from executor_cases import table

from zipml_ooc import TrainOptions, UsageError, train
from zipml_ooc.executors import Capabilities, executors, get_executor, registry
from zipml_ooc.executors.reference import Reference


class Unfit(Reference):
    name = "unfit"

    def unavailable(self) -> str | None:
        return "the moon is not full: wait"


class Torn(Reference):
    name = "torn"

    def capabilities(self) -> Capabilities:
        raise RuntimeError("torn apart")


class Leaving(Reference):
    name = "leaving"

    def __init__(self) -> None:
        raise SystemExit(0)


class Vague(Reference):
    name = "vague"

    def capabilities(self) -> Any:
        return {"losses": ["squared"]}


class Nodding(Reference):
    name = "nodding"

    def unavailable(self) -> Any:
        return False


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Third parties' entry points, hardly one in order."""
    here = "test_executor_registry"
    found = {
        "unfit": f"{here}:Unfit",
        "torn": f"{here}:Torn",
        "leaving": f"{here}:Leaving",
        "vague": f"{here}:Vague",
        "nodding": f"{here}:Nodding",
        "gone": "no_such_module:executor",
        "empty": "builtins:object",
        "misnamed": f"{here}:Unfit",
        "native": f"{here}:Unfit",
        "twin": f"{here}:Unfit",
    }
    points = [EntryPoint(k, v, registry.GROUP) for k, v in found.items()]
    points.append(EntryPoint("twin", f"{here}:Torn", registry.GROUP))
    real = registry.entry_points
    monkeypatch.setattr(registry, "entry_points", lambda group: [*real(group=group), *points])


def test_ours_are_registered_as_any_other() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["entry-points"][registry.GROUP] == registry.OURS
    assert next(iter(registry.OURS)) == "native"


def test_ours_are_found_and_available() -> None:
    found = {info.name: info for info in executors()}
    assert list(found)[:2] == ["native", "reference"]
    native = found["native"]
    assert native.available and native.simd in native.simd_levels
    assert found["reference"].available and found["reference"].simd is None


@pytest.mark.usefixtures("others")
def test_broken_executors_are_listed_with_the_reason() -> None:
    reasons = {info.name: info.reason for info in executors() if info.reason}
    assert reasons["unfit"] == "the moon is not full: wait"
    assert "torn apart" in reasons["torn"]
    assert "SystemExit(0)" in reasons["leaving"]
    assert "its capabilities are {'losses'" in reasons["vague"]
    assert "unavailable for False" in reasons["nodding"]
    assert "no_such_module" in reasons["gone"] and "repair or remove" in reasons["gone"]
    assert "lacks capabilities, unavailable" in reasons["empty"]
    assert "calls itself 'unfit'" in reasons["misnamed"]
    assert "name native is that of one of ours" in reasons["native"]
    assert next(iter(executors())).name == "native"


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("unfit", "executor unfit cannot be used here: the moon is not full: wait"),
        ("gone", "executor gone: no_such_module:executor cannot be loaded"),
        ("leaving", "cannot be loaded (SystemExit(0)): repair or remove the package"),
        ("vague", "its capabilities are {'losses': ['squared']}"),
        ("nodding", "unavailable for False, which is no text"),
        ("twin", "2 packages register an executor 'twin'"),
        ("natve", "there is no executor 'natve': choose one of native, reference"),
    ],
)
def test_what_cannot_be_used_is_a_line_when_it_is_asked_for(name: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        get_executor(name)
    assert text in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.usefixtures("others")
def test_broken_executors_do_not_keep_others_from_training(tmp_path: Path) -> None:
    data, found = table(tmp_path, rows=300), []
    for name in ("native", "reference"):
        options: dict[str, Any] = {"executor": name, "epochs": 1}
        found.append(train(data, TrainOptions(**options)).loss)
    assert found[0] == pytest.approx(found[1], rel=1e-4)

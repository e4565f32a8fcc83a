"""Executors on clusters: steps go to workers that have a device, and to no others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import executor_cases as cases
import pytest
from distributed import Client
from fleet import Fleet
from model_cases import assert_same

from zipml_ooc import Dataset, TrainOptions, ZipmlError, train
from zipml_ooc.errors import ExecutorError
from zipml_ooc.training import cluster as cluster_module
from zipml_ooc.training import plan as plan_module

pytestmark = pytest.mark.filterwarnings("ignore")  # logs of workers that are killed on purpose

OPTIONS = TrainOptions(executor="fragile", epochs=2, replicas=4)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A package of somebody else, whose entry point all processes of this test find."""
    folder = tmp_path_factory.mktemp("site")
    metadata = folder / "fragile-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fragile\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[zipml_ooc.executors]\nfragile = executor_cases:fragile\n"
    )
    here = Path(__file__).parent
    paths = [str(folder), str(here), str(here.parent)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ":".join(paths))
        patch.setattr(sys, "path", [*paths, *sys.path])
        yield folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return cases.table(tmp_path_factory.mktemp("data"), chunk_rows=256)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_MIN_WINDOW_TILES", 4)
    monkeypatch.setattr(plan_module, "_MAX_WINDOW_TILES", 4)


@pytest.fixture
def fleet(package: Path, tmp_path: Path) -> Iterator[Fleet]:
    """Two workers, of which one declares a device."""
    (tmp_path / "fleet").mkdir()
    made = Fleet(tmp_path / "fleet", workers=1)
    made.start_worker("equipped", "--resources", "FRAGILE=1")
    made.wait(2)
    yield made
    made.close()


def test_steps_go_to_workers_that_declare_the_resource(fleet: Fleet, data: Dataset) -> None:
    expected = train(data, OPTIONS, threads=1)
    with Client(fleet.address, set_as_default=False) as client:
        found = train(data, OPTIONS, scheduler=client)
        workers = client.scheduler_info(n_workers=-1)["workers"]
        equipped = [w for w, info in workers.items() if info["resources"]]
        assert len(workers) == 2 and len(equipped) == 1
        ran = client.run(cases.runs_here)
        assert {w for w, runs in ran.items() if runs} == set(equipped)
    assert_same(expected.model, found.model)
    assert found.counters.cycles == expected.counters.cycles > 0


def test_without_a_worker_that_declares_it_an_error_comes_at_once(
    package: Path, tmp_path: Path, data: Dataset
) -> None:
    (tmp_path / "fleet").mkdir()
    bare = Fleet(tmp_path / "fleet", workers=1)
    try:
        with pytest.raises(ExecutorError, match=r"none of the 1 at .* --resources FRAGILE=1"):
            train(data, OPTIONS, scheduler=bare.address)
    finally:
        bare.close()


def test_a_worker_without_the_executor_is_named(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "fleet").mkdir()
    poor = Fleet(tmp_path / "fleet", workers=0)
    try:
        poor.start_worker("equipped", "--resources", "FRAGILE=1")
        poor.wait(1)
        with (
            cases.registered(fragile="executor_cases:fragile"),
            pytest.raises(ZipmlError, match=r"worker tcp://.*: there is no executor 'fragile'"),
        ):
            train(data, OPTIONS, scheduler=poor.address)
    finally:
        poor.close()


def test_when_the_last_of_them_dies_the_run_ends_or_falls_back(
    fleet: Fleet, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_NO_WORKERS_SECONDS", 2.0)
    said: list[str] = []

    def kill(record: Any, epochs: int) -> None:
        if record.epoch == 1:
            fleet.kill("equipped")

    options = TrainOptions(executor="fragile", epochs=3, replicas=4, fallback="native")
    result = train(data, options, scheduler=fleet.address, progress=kill, notice=said.append)
    assert result.lost is not None and result.lost.epoch == 1
    assert "none of the 1 at" in result.lost.reason and "native core goes on" in said[0]
    with pytest.raises(ExecutorError, match="declare FRAGILE"):
        train(data, OPTIONS, scheduler=fleet.address)


def test_local_workers_are_given_the_resource(package: Path, data: Dataset) -> None:
    expected = train(data, OPTIONS, threads=1)
    assert_same(expected.model, train(data, OPTIONS, workers=2).model)

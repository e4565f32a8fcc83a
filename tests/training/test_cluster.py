"""Training on a cluster of processes: what is sent, and what happens when a part of it dies."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from distributed import Client
from fleet import Fleet
from tables import compressed, regression_npz

from zipml_ooc import (
    Checkpoints,
    DataError,
    Dataset,
    TrainOptions,
    TrainResult,
    UsageError,
    ZipmlError,
    open_dataset,
    train,
)
from zipml_ooc.training import cluster as cluster_module
from zipml_ooc.training import laps, pace
from zipml_ooc.training import plan as plan_module

# The log of a worker that is killed on purpose.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """For tests that leave its processes alive."""
    made = Fleet(tmp_path_factory.mktemp("fleet"), workers=2)
    yield made
    made.close()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Fleet]:
    """For tests that kill some."""
    (tmp_path / "fleet").mkdir()
    made = Fleet(tmp_path / "fleet", workers=2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("dataset")
    source = regression_npz(folder / "t.npz", rows=20_000)
    return compressed(source, folder / "d", chunk_rows=1024)


@pytest.fixture(autouse=True)
def many_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small table has 40 rounds of 8 windows."""
    monkeypatch.setattr(plan_module, "_WINDOW_VALUES", 1)
    monkeypatch.setattr(plan_module, "_MIN_WINDOW_TILES", 1)


OPTIONS = TrainOptions(epochs=3, validation=0.1)


def model_bytes(folder: Path, result: TrainResult) -> bytes:
    path = folder / "m.zipml"
    result.model.save(path)
    return path.read_bytes()


@pytest.fixture
def expected(dataset: Dataset, tmp_path: Path) -> bytes:
    """The model that one thread computes."""
    return model_bytes(tmp_path, train(dataset, OPTIONS, threads=1))


@pytest.mark.parametrize("small", [laps.SMALL, 0])
@pytest.mark.parametrize("bits", [32, 8])
def test_a_fleet_of_the_command_line_trains_the_model_of_one_thread(
    fleet: Fleet, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    small: int, bits: int,
) -> None:  # fmt: skip
    """Small models and large ones take different graphs."""
    monkeypatch.setattr(laps, "SMALL", small)
    options = TrainOptions(epochs=2, gradient_bits=bits, momentum=0.5)
    expected = model_bytes(tmp_path, train(dataset, options, threads=1))
    result = train(dataset, options, scheduler_file=fleet.file)
    assert model_bytes(tmp_path, result) == expected


def test_svrg_and_gram_too(fleet: Fleet, dataset: Dataset, tmp_path: Path) -> None:
    for options in (TrainOptions(solver="svrg", epochs=2), TrainOptions(solver="gram")):
        expected = model_bytes(tmp_path, train(dataset, options, threads=2))
        result = train(dataset, options, scheduler=fleet.address)
        assert model_bytes(tmp_path, result) == expected


def test_a_chunk_stays_with_one_worker(fleet: Fleet, dataset: Dataset) -> None:
    """Replicas go through windows of their own, on the same worker every time."""

    def held(stamp: str) -> set[int]:  # inside: it travels by value
        from zipml_ooc.training.loading import _CACHE

        return {
            number
            for group, entries in _CACHE._kept.items()
            if group.kind == "X" and group.owner[1] == stamp
            for number in entries
        }

    path = dataset.path.parent / "homes"
    shutil.copytree(dataset.path, path)  # nobody has read these chunks yet
    copied = open_dataset(path)
    train(copied, TrainOptions(epochs=4), scheduler=fleet.address)
    with Client(fleet.address, set_as_default=False) as client:
        first, second = client.run(held, copied.stamp).values()
    assert first | second == set(range(copied.spec.chunks))
    # The spectrum's windows and a neighbour's half of a chunk may be with both.
    assert len(first & second) <= 3
    assert min(len(first), len(second)) >= copied.spec.chunks // 3


def test_a_client_that_is_there_is_used_and_left_open(fleet: Fleet, dataset: Dataset) -> None:
    options = TrainOptions(epochs=1)
    with Client(fleet.address, set_as_default=False) as client:
        coef = train(dataset, options, scheduler=client).model.coef
        assert client.status == "running"
    assert coef.tolist() == train(dataset, options).model.coef.tolist()


def test_runs_that_share_a_scheduler_do_not_meet(
    fleet: Fleet, dataset: Dataset, tmp_path: Path
) -> None:
    """Equal keys would be one task to the scheduler, and one run get the other's model."""
    strengths = (0.0, 10.0)
    alone = [train(dataset, TrainOptions(epochs=2, l2=l2)).model.coef for l2 in strengths]
    results: dict[float, Any] = {}

    def run(l2: float) -> None:
        options = TrainOptions(epochs=2, l2=l2)
        results[l2] = train(dataset, options, scheduler=fleet.address).model.coef

    threads = [threading.Thread(target=run, args=(l2,)) for l2 in strengths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for l2, coef in zip(strengths, alone, strict=True):
        assert coef.tolist() == results[l2].tolist()


def test_workers_get_small_messages_and_the_job_once(
    fleet: Fleet, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What travels is a few models a round: neither chunks nor the job again and again."""
    import cloudpickle

    monkeypatch.setattr(pace, "_FIRST", 5)
    monkeypatch.setattr(pace, "_GROWTH", 1)  # many graphs
    graphs: list[int] = []
    real = cluster_module.Cluster.compute

    def compute(self: Any, graph: Any, key: str) -> Any:
        graphs.append(len(cloudpickle.dumps(graph.tasks)))
        return real(self, graph, key)

    def received(dask_worker: Any) -> tuple[int, list[str]]:  # inside: it travels by value
        log = dask_worker.transfer_incoming_log
        keys = [key for entry in log for key in entry["keys"]]
        return sum(entry["total"] for entry in log), keys

    monkeypatch.setattr(cluster_module.Cluster, "compute", compute)
    options = TrainOptions(epochs=2, step_size=0.05, shrinkage=0.5)
    with Client(fleet.address, set_as_default=False) as client:
        before = client.run(received)
        train(dataset, options, scheduler=fleet.address)
        after = client.run(received)
    rounds, columns = 2 * 40, 10
    graph_bytes = sum(graphs) / rounds
    moved = sum(after[w][0] - before[w][0] for w in after) / rounds
    # 8 replicas, and the model and the sums with which the round began, to both workers at most.
    numbers = 2 * 9 * columns * (4 + 8 + 4)
    assert 0 < graph_bytes < 4000
    assert 0 < moved < numbers + 9 * 2 * 1000  # the rest is the objects around the numbers
    for worker, (_, keys) in after.items():
        jobs = [key for key in keys[len(before[worker][1]) :] if key.startswith("share-job")]
        assert len(jobs) == len(set(jobs)) <= 2


def test_names_of_tasks_say_what_they_do(fleet: Fleet, dataset: Dataset) -> None:
    from dask.utils import key_split

    with Client(fleet.address, set_as_default=False) as client:
        train(dataset, OPTIONS, scheduler=fleet.address)
        # The scheduler's record of the last tasks, by the groups that the dashboard shows.
        names = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))
    assert {"advance", "validate", "merge", "spectrum"} <= {key_split(name) for name in names}


def test_a_dataset_that_workers_do_not_see_is_named_with_the_worker(
    fleet: Fleet, dataset: Dataset
) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(dataset.store.place), "/here-only.zarr", recursive=True)
    unseen = open_dataset("memory://here-only.zarr")
    message = (
        r"worker tcp://127.0.0.1:\d+ cannot open the dataset \(there is no dataset at "
        r"memory://here-only.zarr\).* or give its URL"
    )
    with pytest.raises(DataError, match=message):
        train(unseen, OPTIONS, scheduler=fleet.address)


def test_a_damaged_first_chunk_is_no_matter_of_what_workers_see(
    fleet: Fleet, dataset: Dataset, tmp_path: Path
) -> None:
    here = tmp_path / "d"
    shutil.copytree(dataset.store.place, here)
    path = here / "X/c/0/0"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"chunk X/c/0/0 .* zipml repair"):
        train(str(here), OPTIONS, scheduler=fleet.address)
    left_out = train(str(here), replace(OPTIONS, on_error="skip"), scheduler=fleet.address)
    assert left_out.skipped.chunks == (0,)


def test_another_dataset_under_the_same_path_is_refused(
    fleet: Fleet, dataset: Dataset, tmp_path: Path
) -> None:
    here = tmp_path / "d"
    shutil.copytree(dataset.store.place, here)
    opened = open_dataset(here)
    shutil.rmtree(here)
    compressed(regression_npz(tmp_path / "o.npz", rows=500, seed=1), here)
    with pytest.raises(DataError, match=r"worker tcp://\S+ sees another dataset at"):
        train(opened, OPTIONS, scheduler=fleet.address)


def test_a_worker_of_another_version_is_named(
    mortal: Fleet, dataset: Dataset, tmp_path: Path
) -> None:
    preload = tmp_path / "older.py"
    preload.write_text(
        "import distributed.versions as v, importlib.metadata as m\n"
        "v.version = lambda name: '0.0.9' if name == 'zipml-ooc' else m.version(name)\n"
    )
    mortal.start_worker("older", "--preload", str(preload))
    mortal.wait(3)
    message = (
        r"worker tcp://127.0.0.1:\d+ has zipml-ooc 0\.0\.9 and this machine 0\.1\.0: install the "
        "same version"
    )
    with pytest.raises(ZipmlError, match=message):
        train(dataset, OPTIONS, scheduler=mortal.address)


def after_first_epoch(action: Any) -> Any:
    """A progress function that acts in the middle of the second epoch."""

    def progress(record: Any, of: int) -> None:
        if record.epoch == 1:
            threading.Timer(0.1, action).start()

    return progress


def test_a_worker_killed_within_an_epoch_does_not_change_the_model(
    mortal: Fleet, dataset: Dataset, tmp_path: Path, expected: bytes
) -> None:
    def kill() -> None:
        mortal.kill("worker0")

    result = train(dataset, OPTIONS, scheduler=mortal.address, progress=after_first_epoch(kill))
    assert "worker0" not in mortal.processes
    assert model_bytes(tmp_path, result) == expected


def test_without_any_worker_the_run_ends_with_a_line_and_can_go_on(
    mortal: Fleet, dataset: Dataset, tmp_path: Path, expected: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(cluster_module, "_NO_WORKERS_SECONDS", 2.0)

    def kill() -> None:
        mortal.kill("worker0")
        mortal.kill("worker1")

    said: list[str] = []
    with pytest.raises(ZipmlError, match="workers"):
        train(
            dataset, OPTIONS, scheduler=mortal.address, progress=after_first_epoch(kill),
            checkpoints=Checkpoints(tmp_path / "run"), notice=said.append,
        )  # fmt: skip
    assert "epoch 2 of 3" in said[0] and "--resume" in said[0]
    with pytest.raises(ZipmlError, match="has had no workers for 2 s: start some"):
        train(dataset, OPTIONS, scheduler=mortal.address)
    mortal.start_worker("worker2")
    mortal.wait(1)
    went_on = Checkpoints(tmp_path / "run", resume=True)
    result = train(
        dataset, OPTIONS, scheduler=mortal.address, checkpoints=went_on, notice=said.append
    )
    assert model_bytes(tmp_path, result) == expected


def test_a_scheduler_that_is_lost_is_a_line_and_the_run_can_go_on(
    mortal: Fleet, dataset: Dataset, tmp_path: Path, expected: bytes
) -> None:
    began = time.monotonic()
    said: list[str] = []
    with pytest.raises(ZipmlError, match=r"connection to the Dask scheduler at tcp://.* is lost"):
        train(
            dataset, OPTIONS, scheduler=mortal.address,
            progress=after_first_epoch(lambda: mortal.kill("scheduler")),
            checkpoints=Checkpoints(tmp_path / "run"), notice=said.append,
        )  # fmt: skip
    assert time.monotonic() - began < 60
    went_on = Checkpoints(tmp_path / "run", resume=True)
    result = train(dataset, OPTIONS, checkpoints=went_on, notice=said.append)
    assert model_bytes(tmp_path, result) == expected


@pytest.mark.parametrize("workers", [1, 4])
def test_local_workers_train_the_model_of_one_thread(
    dataset: Dataset, tmp_path: Path, workers: int
) -> None:
    options = TrainOptions(epochs=1)
    expected = model_bytes(tmp_path, train(dataset, options, threads=1))
    assert model_bytes(tmp_path, train(dataset, options, workers=workers)) == expected


def test_scheduler_files_that_are_none(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_FILE_SECONDS", 0.1)
    with pytest.raises(UsageError, match=r"cannot be read \(No such file or directory\): is the"):
        train(dataset, OPTIONS, scheduler_file=tmp_path / "none.json")
    (tmp_path / "wrong.json").write_text("[]")
    with pytest.raises(UsageError, match="is no scheduler file"):
        train(dataset, OPTIONS, scheduler_file=tmp_path / "wrong.json")
    with pytest.raises(UsageError, match="TLS needs certificates"):
        train(dataset, OPTIONS, scheduler="tls://127.0.0.1:1")
    with pytest.raises(UsageError, match="is no scheduler address"):
        train(dataset, OPTIONS, scheduler="ucx://127.0.0.1:1")
    with pytest.raises(UsageError, match="say the same"):
        train(dataset, OPTIONS, scheduler="tcp://a:1", scheduler_file=tmp_path / "wrong.json")
    with pytest.raises(UsageError, match="--scheduler-file excludes --workers"):
        train(dataset, OPTIONS, workers=1, scheduler_file=tmp_path / "wrong.json")


def test_sizes_are_those_of_the_arrays(dataset: Dataset) -> None:
    from dask.sizeof import sizeof

    from zipml_ooc.training.problem import make_problem
    from zipml_ooc.training.replicas import initial_state

    state = initial_state(make_problem(dataset.spec, TrainOptions()), momentum=0.5)
    numbers = 10 * (4 + 8 + 4) + 4 + 8 + 4
    assert numbers < sizeof(state) < numbers + 200

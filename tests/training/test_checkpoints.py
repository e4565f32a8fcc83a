"""A run that was stopped and went on gives the very model of one that was not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import classes_npz, compressed, regression_npz

from zipml_ooc import Checkpoints, DataError, Dataset, TrainOptions, UsageError, train
from zipml_ooc.training import TrainingError, pace, run, runner
from zipml_ooc.training import checkpoints as checkpoints_module
from zipml_ooc.training import plan as plan_module
from zipml_ooc.training.checkpoint_file import read_checkpoint, write_checkpoint
from zipml_ooc.training.pace import Pace


@pytest.fixture(autouse=True)
def many_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small table has several rounds, and each is computed alone."""
    monkeypatch.setattr(plan_module, "_WINDOW_VALUES", 1)
    monkeypatch.setattr(plan_module, "_MIN_WINDOW_TILES", 2)
    monkeypatch.setattr(pace, "_FIRST", 1)
    monkeypatch.setattr(pace, "_GROWTH", 1)


class Stop:
    """Ends a run before it computes something for the n-th time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.at, self.how = 0, -1, KeyboardInterrupt
        real = runner._Threads.compute

        def compute(threads: Any, graph: Any, key: str) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise self.how
            return real(threads, graph, key)

        monkeypatch.setattr(runner._Threads, "compute", compute)

    def before(self, call: int) -> None:
        self.calls, self.at = 0, call


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Stop:
    return Stop(monkeypatch)


def model_bytes(folder: Path, result: object) -> bytes:
    path = folder / "m.zipml"
    result.model.save(path)  # type: ignore[attr-defined]
    return path.read_bytes()


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    folder = tmp_path_factory.mktemp("datasets")
    numbers = regression_npz(folder / "n.npz", rows=1500)
    classes = classes_npz(folder / "c.npz", rows=1500)
    return {
        "numbers": compressed(numbers, folder / "n", bits=4),
        "weaved": compressed(numbers, folder / "w", bits=8, samples=1, layout="weaved"),
        "classes": compressed(classes, folder / "c", bits=3, samples=1),
        "weaved classes": compressed(classes, folder / "v", bits=8, layout="weaved"),
        "many samples": compressed(classes, folder / "m", bits=4, samples=4),
    }


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "polynomial": ("many samples", {"sampling": "chebyshev", "epochs": 3}),
    "hinge polynomial": (
        "many samples",
        {"loss": "hinge", "sampling": "chebyshev", "epochs": 3},
    ),
    "momentum": ("numbers", {"momentum": 0.5, "arithmetic": "int8"}),
    "channel": ("numbers", {"gradient_bits": 4, "double_form": "split"}),
    "svrg": ("weaved", {"solver": "svrg", "bits": 2, "full_gradient_bits": 8}),
    "precisions": ("weaved", {"bits": "1:2:8", "epochs": 3}),
    "auto": ("weaved", {"bits": "auto", "validation": 0.2, "epochs": 4}),
    "patience": ("numbers", {"validation": 0.3, "patience": 1, "epochs": 6}),
    "curved": ("classes", {}),
    "refetch": ("weaved classes", {"loss": "hinge", "sampling": "refetch", "bits": 4}),
    "lasso": ("numbers", {"l1": 0.05}),
    "weak": ("numbers", {"shrinkage": 0.9}),
}


def interruptions(
    dataset: Dataset, options: TrainOptions, stop: Stop, tmp_path: Path, *, step: int
) -> Iterator[tuple[int, bytes]]:
    """Models of runs that were stopped at each of their calls, and then went on."""
    stop.before(-1)
    train(dataset, options)
    calls = stop.calls
    assert calls >= 8
    for call in range(2, calls + 1, step):
        folder = tmp_path / f"stopped-{call}"
        stop.before(call)
        with pytest.raises(stop.how):
            train(dataset, options, checkpoints=Checkpoints(folder), notice=lambda line: None)
        stop.before(-1)
        went_on = Checkpoints(folder, resume=True)
        said: list[str] = []
        result = train(dataset, options, checkpoints=went_on, threads=2, notice=said.append)
        assert said[0].startswith("going on from checkpoint-0")
        # At most what comes between two rounds or behind the last one is computed twice.
        assert stop.calls <= calls - call + 1 + (10 if options.l1 else 2)
        yield call, model_bytes(tmp_path, result)


@pytest.mark.parametrize("case", CASES)
def test_a_run_stopped_anywhere_goes_on_to_the_same_model(
    case: str, datasets: dict[str, Dataset], stop: Stop, tmp_path: Path
) -> None:
    name, given = CASES[case]
    options = TrainOptions(**({"epochs": 2, "replicas": 4} | given))
    expected = model_bytes(tmp_path, train(datasets[name], options))
    for call, model in interruptions(datasets[name], options, stop, tmp_path, step=1):
        assert model == expected, call


def test_a_run_that_began_again_with_smaller_steps_goes_on_there(
    datasets: dict[str, Dataset], stop: Stop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run.step_size
    monkeypatch.setattr(run, "step_size", lambda *a: 400 * real(*a))
    options = TrainOptions(epochs=2, replicas=4, arithmetic="float")
    once = train(datasets["numbers"], options)
    with monkeypatch.context() as once_only, pytest.raises(TrainingError):
        once_only.setattr(run, "_RESTARTS", 1)
        train(datasets["numbers"], options)  # the first attempt does not get through
    expected = model_bytes(tmp_path, once)
    for call, model in interruptions(datasets["numbers"], options, stop, tmp_path, step=3):
        assert model == expected, call


def test_a_process_that_dies_without_a_word_loses_what_came_after_its_last_checkpoint(
    datasets: dict[str, Dataset], stop: Stop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints_module.Keeper, "leave", lambda self, course: None)
    options = TrainOptions(epochs=5, replicas=4)
    expected = model_bytes(tmp_path, train(datasets["numbers"], options))
    stop.before(1 + 3 * 3 + 2)  # in the fourth epoch, of three rounds each
    with pytest.raises(KeyboardInterrupt):
        train(datasets["numbers"], options, checkpoints=Checkpoints(tmp_path / "run", every=1))
    kept = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert kept == [f"checkpoint-00000{n}.zipml-checkpoint" for n in (2, 3)]
    said: list[str] = []
    went_on = Checkpoints(tmp_path / "run", resume=True)
    result = train(datasets["numbers"], options, checkpoints=went_on, notice=said.append)
    assert said == [
        "going on from checkpoint-000003.zipml-checkpoint: epoch 4 of 5, 0 of 3 rounds done"
    ]
    assert model_bytes(tmp_path, result) == expected


def test_time_takes_checkpoints_within_an_epoch(
    datasets: dict[str, Dataset], stop: Stop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints_module.Keeper, "leave", lambda self, course: None)
    stop.before(1 + 2)  # the spectrum, and then rounds
    checkpoints = Checkpoints(tmp_path / "run", every="0.0001s", keep=1)
    with pytest.raises(KeyboardInterrupt):
        train(datasets["numbers"], TrainOptions(epochs=2, replicas=4), checkpoints=checkpoints)
    (path,) = (tmp_path / "run").iterdir()
    course = read_checkpoint(path)["course"]
    assert (course["epoch"], course["rounds"]) == (0, 1)


def test_a_run_that_is_done_gives_its_model_again(
    datasets: dict[str, Dataset], stop: Stop, tmp_path: Path
) -> None:
    options, folder = TrainOptions(epochs=2), tmp_path / "run"
    first = train(datasets["numbers"], options, checkpoints=Checkpoints(folder))
    names = [path.name for path in folder.iterdir()]
    stop.before(-1)
    again = train(datasets["numbers"], options, checkpoints=Checkpoints(folder, resume=True))
    assert stop.calls == 1  # the loss of the final model
    assert [path.name for path in folder.iterdir()] == names
    assert model_bytes(tmp_path, again) == model_bytes(tmp_path, first)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "foreign"])
def test_a_damaged_checkpoint_is_left_out_for_the_one_before(
    damage: str, datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    options, folder = TrainOptions(epochs=3, replicas=4), tmp_path / "run"
    expected = model_bytes(
        tmp_path, train(datasets["numbers"], options, checkpoints=Checkpoints(folder, every=1))
    )
    before, newest = sorted(folder.iterdir())
    data = newest.read_bytes()
    newest.write_bytes(
        {
            "flipped": data[:500] + bytes([data[500] ^ 1]) + data[501:],
            "truncated": data[:-100],
            "empty": b"",
            "foreign": b"PK" + data[2:],
        }[damage]
    )
    said: list[str] = []
    went_on = Checkpoints(folder, every=1, resume=True)
    result = train(datasets["numbers"], options, checkpoints=went_on, notice=said.append)
    assert said[0].startswith(f"checkpoint {newest} is left out: ")
    assert said[1].startswith(f"going on from {before.name}: epoch 3 of 3")
    assert model_bytes(tmp_path, result) == expected
    assert newest not in folder.iterdir()  # another one must not be lost for it


def test_every_flipped_bit_of_a_checkpoint_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "c"
    tree = {"a": [1, 0.1, None], "x": np.arange(3, dtype=np.float32), "y": np.full((2, 2), np.nan)}
    write_checkpoint(path, tree)
    back = read_checkpoint(path)
    assert back["a"] == tree["a"] and back["x"].dtype == np.float32
    np.testing.assert_array_equal(back["y"], tree["y"])
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(DataError):
            read_checkpoint(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            read_checkpoint(path)
    with pytest.raises(TypeError, match="not of <i8"):
        write_checkpoint(path, np.arange(3))


@pytest.mark.parametrize("part", ["state", "epoch", "kept"])
def test_a_checkpoint_without_a_part_is_left_out_for_the_one_before(
    part: str, datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    options, folder = TrainOptions(epochs=3), tmp_path / "run"
    train(datasets["numbers"], options, checkpoints=Checkpoints(folder, every=1))
    before, newest = sorted(folder.iterdir())
    tree = read_checkpoint(newest)
    tree["course"][f"{part}-renamed"] = tree["course"].pop(part)
    write_checkpoint(newest, tree)
    said: list[str] = []
    went_on = Checkpoints(folder, every=1, resume=True)
    train(datasets["numbers"], options, checkpoints=went_on, notice=said.append)
    assert said[0].startswith(f"checkpoint {newest} is left out: it lacks a part")
    assert said[1].startswith(f"going on from {before.name}: ")


@pytest.mark.parametrize("place", [("state", "model"), ("state", "velocity"), ("kept", 0)])
@pytest.mark.parametrize("how", ["narrow", "double", "none"])
def test_a_checkpoint_with_other_arrays_is_left_out_for_the_one_before(
    place: tuple[str, Any], how: str, datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    options, folder = TrainOptions(epochs=3, momentum=0.5), tmp_path / "run"
    expected = train(datasets["numbers"], options, checkpoints=Checkpoints(folder, every=1))
    before, newest = sorted(folder.iterdir())
    tree = read_checkpoint(newest)
    inner = tree["course"][place[0]]
    there = inner[place[1]]
    other = np.float32 if there.dtype == np.float64 else np.float64
    changed = {"narrow": there[:, 1:], "double": there.astype(other), "none": None}
    inner[place[1]] = changed[how]
    write_checkpoint(newest, tree)
    said: list[str] = []
    went_on = Checkpoints(folder, every=1, resume=True)
    result = train(datasets["numbers"], options, checkpoints=went_on, notice=said.append)
    assert said[0].startswith(f"checkpoint {newest} is left out: it holds ")
    assert f"in the place of 1 x 10 numbers of {there.dtype}" in said[0]
    assert said[1].startswith(f"going on from {before.name}: ")
    assert model_bytes(tmp_path, result) == model_bytes(tmp_path, expected)


def test_a_folder_that_vanishes_does_not_end_the_run(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    options, folder = TrainOptions(epochs=4), tmp_path / "above" / "run"
    expected = model_bytes(tmp_path, train(datasets["numbers"], options))
    said: list[str] = []

    def vanish(record: object, epochs: int) -> None:
        shutil.rmtree(folder.parent, ignore_errors=True)

    result = train(
        datasets["numbers"], options, progress=vanish, notice=said.append,
        checkpoints=Checkpoints(folder, every=1),
    )  # fmt: skip
    assert model_bytes(tmp_path, result) == expected
    assert len(said) == 4
    assert all(
        line.startswith(f"the run could not be saved in {folder}, and goes on") for line in said
    )


def test_no_whole_checkpoint_is_an_error(datasets: dict[str, Dataset], tmp_path: Path) -> None:
    train(datasets["numbers"], TrainOptions(epochs=1), checkpoints=Checkpoints(tmp_path / "run"))
    for path in (tmp_path / "run").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 1 checkpoint\(s\) .* begin anew"):
        train(
            datasets["numbers"],
            TrainOptions(epochs=1),
            checkpoints=Checkpoints(tmp_path / "run", resume=True),
        )


def test_another_run_does_not_go_on(datasets: dict[str, Dataset], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(datasets["numbers"], TrainOptions(epochs=2), checkpoints=Checkpoints(folder))
    went_on = Checkpoints(folder, resume=True)
    with pytest.raises(UsageError, match=r"other options \(l2 0\.0 there and 0\.1 here\)"):
        train(datasets["numbers"], TrainOptions(epochs=2, l2=0.1), checkpoints=went_on)
    with pytest.raises(UsageError, match="of another dataset: give the one"):
        train(datasets["weaved"], TrainOptions(epochs=2), checkpoints=went_on)


def test_another_version_does_not_go_on(
    datasets: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(datasets["numbers"], TrainOptions(epochs=2), checkpoints=Checkpoints(tmp_path / "run"))
    monkeypatch.setattr(checkpoints_module, "__version__", "99.0")
    with pytest.raises(UsageError, match=r"are of zipml-ooc 0\.1\.0 .* and this is 99\.0"):
        train(
            datasets["numbers"],
            TrainOptions(epochs=2),
            checkpoints=Checkpoints(tmp_path / "run", resume=True),
        )


def test_checkpoints_of_an_earlier_run_are_not_written_over(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    options, folder = TrainOptions(epochs=1), tmp_path / "run"
    train(datasets["numbers"], options, checkpoints=Checkpoints(folder))
    with pytest.raises(UsageError, match="holds checkpoints of an earlier run: go on"):
        train(datasets["numbers"], options, checkpoints=Checkpoints(folder))
    other = TrainOptions(epochs=1, l2=1.0)
    train(datasets["numbers"], other, checkpoints=Checkpoints(folder, overwrite=True))
    assert len(list(folder.iterdir())) == 1


def test_a_disk_that_is_full_does_not_end_the_run(
    datasets: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, folder = TrainOptions(epochs=2), tmp_path / "run"
    expected = model_bytes(tmp_path, train(datasets["numbers"], options))

    def full(path: Path, tree: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints_module, "write_checkpoint", full)
    said: list[str] = []
    checkpoints = Checkpoints(folder, every=1)
    result = train(datasets["numbers"], options, checkpoints=checkpoints, notice=said.append)
    assert model_bytes(tmp_path, result) == expected
    assert len(said) == 2 and all(line.endswith("No space left on device") for line in said)


def test_a_folder_that_cannot_be_written_is_refused_at_once(
    datasets: dict[str, Dataset], tmp_path: Path, stop: Stop
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="checkpoints cannot be written to"):
        train(datasets["numbers"], checkpoints=Checkpoints(tmp_path / "file" / "run"))
    assert stop.calls == 0


def test_gram_has_no_checkpoints(datasets: dict[str, Dataset], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="solver gram takes no steps and has no checkpoints"):
        train(datasets["numbers"], TrainOptions(solver="gram"), checkpoints=Checkpoints(tmp_path))


@pytest.mark.parametrize("every", ["", "s", "0s", "0", "-1", "5d", "1e3s", "30 s", "9" * 5000])
def test_intervals_that_are_none_are_refused(every: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="checkpoints are taken every so many seconds"):
        Checkpoints(tmp_path, every)


def test_goes_of_rounds_take_a_second_or_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_FIRST", 2)
    monkeypatch.setattr(pace, "_GROWTH", 4)
    for every, seconds, rounds in ((None, 1.5, 1), (None, 0.02, 100), (None, 1e-6, 256),
                                   (0.4, 0.02, 10)):  # fmt: skip
        learned = Pace(every)
        for _ in range(8):
            count = learned.next_rounds(1000)
            learned.took(count, count * seconds)
        assert learned.next_rounds(1000) == rounds
        assert learned.next_rounds(1) == 1

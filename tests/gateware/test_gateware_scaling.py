"""A training problem in fixed point: models go there and back, and are learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import read_idx

from zipml_ooc import SourceOptions, TrainOptions, compress, synth, train
from zipml_ooc.compression import CompressOptions
from zipml_ooc.dataset import Dataset
from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.gateware.floats import float_packet, float_problem
from zipml_ooc.gateware.formats import Format, intercept_code
from zipml_ooc.gateware.reference import State, Tile, run
from zipml_ooc.gateware.scaling import Scaling
from zipml_ooc.gateware.stream import dataset_packets, unpack
from zipml_ooc.losses import summed_loss
from zipml_ooc.training.problem import Problem, make_problem


def dataset(
    folder: Path, bits: int, samples: int = 1, columns: int = 8, loss: str = "squared"
) -> Dataset:
    kind = "regression" if loss == "squared" else "classification"
    made = synth(folder / "t.npz", kind=kind, rows=6400, columns=columns, noise=0.5, condition=4.0)
    options = CompressOptions(bits=bits, samples=samples, levels="uniform")
    return compress(made["path"], folder / "t.zarr", options)


def tiles_of(data: Dataset, problem: Problem, scaling: Scaling) -> list[Tile]:
    """All tiles of a dataset, by way of the bytes on the stream."""
    form = Format(problem.stored_bits)
    return [unpack(packet, form) for packet in dataset_packets(data, scaling, form)]


def mean_loss(
    data: Dataset, problem: Problem, tiles: list[Tile], scaling: Scaling, state: State
) -> float:
    """As `train` reports it: rounding variance taken out."""
    model, intercept = scaling.to_model(state.model)
    codes = np.concatenate([tile.codes for tile in tiles])[: data.spec.rows]
    target = problem.scale_target(data.read_target(0, data.spec.rows).reshape(-1, 1))
    margin = (problem.offset + problem.slope * codes) @ model[0] + intercept
    noise = np.array([[problem.variance @ model[0] ** 2]])
    loss = summed_loss(problem.loss, margin[:, None], target, huber_delta=1.0, noise=noise)
    return loss / len(codes) * problem.loss_unit


@pytest.mark.parametrize(("bits", "samples"), [(4, 1), (8, 1), (3, 2)])
@pytest.mark.parametrize(
    ("loss", "delayed"),
    [
        ("squared", False),
        ("squared", True),
        ("logistic", False),
        ("squared-hinge", True),
        ("ls-svm", False),
    ],
)
def test_the_reference_learns_within_a_percent_of_the_native_executor(
    tmp_path: Path, bits: int, samples: int, loss: str, delayed: bool
) -> None:
    data = dataset(tmp_path, bits, samples, loss=loss)
    options = TrainOptions(epochs=12, shrinkage=1.0, loss=loss)
    native = train(data, options)
    problem = make_problem(data.spec, options)
    scaling = Scaling(problem)
    tiles = tiles_of(data, problem, scaling)
    assert len(tiles) == 100
    state = State(np.zeros(problem.columns + 1, np.int64), 1)
    step = native.model.record["step_size"]
    for epoch in range(12):
        program = scaling.program(step * min(1.0, 2.0 ** (4 - epoch)), delayed=delayed)
        run(program, [tiles[i] for i in np.random.default_rng(epoch).permutation(100)], state)
    assert not state.model_saturated
    assert not state.residual_saturated
    found = mean_loss(data, problem, tiles, scaling, state)
    assert found == pytest.approx(native.loss, rel=0.01)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("loss", ["squared", "logistic", "squared-hinge"])
def test_digits_are_learned_as_well_as_by_the_native_executor(
    tmp_path: Path, real_data: Callable[[str], Path], bits: int, loss: str
) -> None:
    """The constant step that it takes is further ahead than the native executor's mean model."""
    images = read_idx(real_data("mnist-t10k-images-idx3-ubyte.gz")).reshape(-1, 784)
    labels = read_idx(real_data("mnist-t10k-labels-idx1-ubyte.gz"))
    chosen = np.isin(labels, (3, 8))
    np.savez(tmp_path / "t.npz", X=images[chosen].astype(np.float32), y=labels[chosen] == 3)
    task = "regression" if loss == "squared" else "classification"
    options = CompressOptions(bits=bits, samples=1, levels="uniform", task=task)
    data = compress(tmp_path / "t.npz", tmp_path / "t.zarr", options)
    train_options = TrainOptions(epochs=10, loss=loss)
    native = train(data, train_options)
    problem = make_problem(data.spec, train_options)
    scaling = Scaling(problem)
    tiles = tiles_of(data, problem, scaling)
    state = State(np.zeros(problem.columns + 1, np.int64), 1)
    record = native.model.record
    for epoch in range(10):
        part = min(1.0, 2.0 - 2.0 * (epoch + 0.5) / 10)
        program = scaling.program(record["step_size"] * part, shrinkage=record["shrinkage"])
        order = np.random.default_rng(epoch).permutation(len(tiles))
        run(program, [tiles[i] for i in order], state)
    assert not state.model_saturated
    assert not state.residual_saturated
    assert mean_loss(data, problem, tiles, scaling, state) <= 1.01 * native.loss


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_values_in_float32_are_learned_as_in_floating_point(tmp_path: Path, loss: str) -> None:
    data = dataset(tmp_path, 8, loss=loss)
    problem = float_problem(make_problem(data.spec, TrainOptions(loss=loss)))
    scaling, form = Scaling(problem), Format(16, lanes=16)
    stored = np.load(tmp_path / "t.npz")["X"]
    x = ((stored - problem.column_mean) / problem.column_std).astype(np.float32)
    target = problem.scale_target(data.read_target(0, len(x)).reshape(-1, 1))[:, 0]
    fixed = scaling.targets(target)
    tiles = [
        unpack(float_packet(x[start : start + 16], fixed[start : start + 16], form), form)
        for start in range(0, len(x), 16)
    ]
    state = State(np.zeros(problem.columns + 1, np.int64), 1)
    exact, own = np.zeros(problem.columns), 0.0
    for epoch in range(4):
        order = np.random.default_rng(epoch).permutation(len(tiles))
        step = 0.02 * 2.0**-epoch
        run(scaling.program(step, lanes=16), [tiles[i] for i in order], state)
        for i in order:
            rows, y = x[16 * i : 16 * i + 16], target[16 * i : 16 * i + 16]
            margin = rows @ exact + own
            slope = margin - y if loss == "squared" else 1 / (1 + np.exp(-margin)) - y
            exact, own = exact - step / 16 * (slope @ rows), own - step / 16 * slope.sum()
    assert not state.model_saturated
    assert not state.residual_saturated
    model, intercept = scaling.to_model(state.model)
    assert np.abs(model[0] - exact).max() < 0.01
    assert intercept[0] == pytest.approx(own, abs=0.01)
    assert np.abs(exact).max() > 0.2


@pytest.mark.parametrize("bits", [4, 8])
def test_a_model_means_the_same_in_both_coordinates(tmp_path: Path, bits: int) -> None:
    data = dataset(tmp_path, bits)
    problem = make_problem(data.spec, TrainOptions())
    scaling = Scaling(problem)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1 << bits, (50, problem.columns))
    entries = rng.integers(-4000, 4000, problem.columns + 1)
    model, intercept = scaling.to_model(entries)
    direct = (problem.offset + problem.slope * codes) @ model[0] + intercept
    centred = codes - scaling.centres()[1:] / 2.0 ** (16 - bits)
    held = (intercept_code(bits) * entries[0] + centred @ entries[1:]) * 2.0**-scaling.exponent
    assert np.allclose(direct, held, rtol=0, atol=1e-5)


@pytest.mark.parametrize("step_size", [1e-6, 0.01, 0.7, 3.0])
@pytest.mark.parametrize("batch_tiles", [1, 64])
def test_paces_are_step_size_times_squared_slope(
    tmp_path: Path, step_size: float, batch_tiles: int
) -> None:
    problem = make_problem(dataset(tmp_path, 4).spec, TrainOptions())
    program = Scaling(problem).program(step_size, batch_tiles=batch_tiles)
    effective = ((program.pace * program.step + (1 << 15)) >> 16) * 2.0 ** -(program.shift + 20)
    slope = np.concatenate([[1.0], problem.slope])
    wanted = step_size / (64 * batch_tiles) * slope**2
    error = 2.0 ** -(program.shift + 20) + wanted.max() * 2.0**-15
    assert (np.abs(effective - wanted) <= error).all()


def test_columns_of_one_value_and_a_fixed_intercept_stay_where_they_are(tmp_path: Path) -> None:
    problem = make_problem(dataset(tmp_path, 4).spec, TrainOptions())
    slope = problem.slope.copy()
    slope[2] = 0
    scaling = Scaling(replace(problem, slope=slope))
    program = scaling.program(0.5, fit_intercept=False)
    assert program.pace[0] == program.pace[3] == program.variance[3] == program.centre[3] == 0
    model, _ = scaling.to_model(np.arange(9))
    assert model[0, 2] == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"loss": "hinge"}, "the hinge loss"),
        ({"outputs": 2}, "2 outputs"),
        ({"estimator": "split"}, "split form"),
        ({"stored_bits": 5}, "5 bits"),
        ({"woven": 1}, "weaved"),
        ({"l1": np.ones(8, np.float32)}, "penalties"),
        ({"centre": np.ones(8, np.float32)}, "scales by row"),
        ({"variance": np.full(8, np.nan, np.float32)}, "variance .* not finite"),
    ],
)
def test_what_it_does_not_take_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    problem = make_problem(dataset(tmp_path, 4).spec, TrainOptions())
    with pytest.raises(UsageError, match=named):
        Scaling(replace(problem, **change))


def test_targets_of_classes_are_signs_or_plus_and_minus_one(tmp_path: Path) -> None:
    data = dataset(tmp_path, 8, loss="logistic")
    for loss, expected in (
        ("logistic", [-1, 0]),
        ("squared-hinge", [-512, 512]),
        ("ls-svm", [-512, 512]),
    ):
        scaling = Scaling(make_problem(data.spec, TrainOptions(loss=loss)))
        assert scaling.targets([0.0, 1.0]).tolist() == expected


@pytest.mark.parametrize("exponent", [14, 19])
def test_an_exponent_that_the_logistic_loss_does_not_take_is_refused(
    tmp_path: Path, exponent: int
) -> None:
    data = dataset(tmp_path, 8, loss="logistic")
    problem = make_problem(data.spec, TrainOptions(loss="logistic"))
    with pytest.raises(UsageError, match=f"an exponent of {exponent} .* choose 15 to 18"):
        Scaling(problem, exponent)


@pytest.mark.parametrize("exponent", [-2, 32, 5000, 13.5, np.nan])
def test_an_exponent_that_no_loss_takes_is_refused(tmp_path: Path, exponent: float) -> None:
    problem = make_problem(dataset(tmp_path, 4).spec, TrainOptions())
    with pytest.raises(UsageError, match=f"an exponent of {exponent}; choose 0 to 31"):
        Scaling(problem, exponent)


def test_a_model_that_is_no_number_is_refused(tmp_path: Path) -> None:
    scaling = Scaling(make_problem(dataset(tmp_path, 4).spec, TrainOptions()))
    model = np.zeros((1, 8))
    model[0, 3] = np.nan
    with pytest.raises(UsageError, match="entries that are not numbers"):
        scaling.to_entries(model, [0.0])


def test_rows_with_weights_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.standard_normal((200, 3)), rng.integers(1, 3, 200)])
    np.savetxt(tmp_path / "t.csv", table, delimiter=",", header="a,b,y,w", comments="")
    options = CompressOptions(bits=4, samples=1, levels="uniform", weight="w")
    target = SourceOptions(target=("y",))
    data = compress(tmp_path / "t.csv", tmp_path / "t.zarr", options, source_options=target)
    scaling = Scaling(make_problem(data.spec, TrainOptions()))
    with pytest.raises(DataError, match=r"does not take weights, and .* has 'w'"):
        next(dataset_packets(data, scaling, Format(4)))


def test_a_target_that_is_no_number_is_refused(tmp_path: Path) -> None:
    scaling = Scaling(make_problem(dataset(tmp_path, 4).spec, TrainOptions()))
    with pytest.raises(DataError, match="not a number"):
        scaling.targets([0.5, np.nan])


@pytest.mark.parametrize(
    "wrong",
    [
        {"step_size": 0.0},
        {"step_size": 1e6},
        {"step_size": np.nan},
        {"batch_tiles": 65},
        {"shrinkage": -1.0},
        {"shrinkage": np.nan},
    ],
)
def test_a_program_that_registers_cannot_hold_is_refused(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    problem = make_problem(dataset(tmp_path, 4).spec, TrainOptions())
    with pytest.raises(UsageError, match="choose"):
        Scaling(problem).program(**{"step_size": 0.1, **wrong})

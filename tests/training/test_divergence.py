"""The divergence guard: a run that leaves is stopped, and its last good model kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tables import compressed, least_squares_loss, regression_npz

from zipml_ooc import TrainOptions, train
from zipml_ooc.training import TrainingError


def read_cadata(path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = np.genfromtxt(path, delimiter=",", skip_header=1)
    return table[:, :-1], table[:, -1]


@pytest.mark.parametrize("form", ["mean", "split"])
def test_two_uniform_bits_without_shrinkage_give_no_garbage_model(
    form: str, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """cadata, plain double sampling: in four of ten draws the corrected loss has no minimum.

    There the guard fires, and what it keeps is usable; everywhere else the model is sound.
    """
    source = real_data("cadata.csv.gz")
    x, y = read_cadata(source)
    optimum = least_squares_loss(x, y)
    fired = []
    for seed in range(10):
        dataset = compressed(
            source, tmp_path / f"{seed}", ("medianHouseValue",),
            bits=2, levels="uniform", samples=2, seed=seed,
        )  # fmt: skip
        options = TrainOptions(sampling="double", double_form=form, shrinkage=1.0, seed=seed)
        try:
            model, bound = train(dataset, options).model, 1.06
        except TrainingError as error:
            assert "leave out --shrinkage" in str(error)
            assert error.model is not None
            model, bound = error.model, 1.35
            fired.append(seed)
        loss = 0.5 * np.mean((model.decision_function(x)[:, 0] - y) ** 2)
        assert loss <= bound * optimum, f"seed {seed}"
    assert fired == [2, 3, 6, 9]


@pytest.mark.parametrize(("draw", "sound"), [(0, True), (3, False)])
def test_a_model_that_only_the_end_of_the_run_bounds_is_not_handed_over(
    draw: int, sound: bool, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """Neither has a minimum: one falls too slowly to matter, the other is most of the model."""
    dataset = compressed(
        real_data("cadata.csv.gz"), tmp_path / "d", ("medianHouseValue",),
        bits=2, levels="uniform", samples=2, seed=draw,
    )  # fmt: skip
    options = TrainOptions(sampling="double", shrinkage=1.0)
    if sound:
        train(dataset, options)
        return
    with pytest.raises(TrainingError, match="falls without end"):
        train(dataset, options)


def test_gram_says_that_there_is_no_minimum(
    real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    dataset = compressed(
        real_data("cadata.csv.gz"), tmp_path / "d", ("medianHouseValue",),
        bits=2, levels="uniform", samples=2, seed=2,
    )  # fmt: skip
    with pytest.raises(TrainingError, match="falls without end"):
        train(dataset, TrainOptions(solver="gram", shrinkage=1.0))
    assert train(dataset, TrainOptions(solver="gram")).model.record["shrinkage"] < 1
    path = TrainOptions(solver="gram", shrinkage=1.0, l2_path=(0.0, 1.0), validation=0.2)
    assert [point.l2 for point in train(dataset, path).l2_path] == [1.0]


def test_an_exploding_step_leaves_the_best_epoch(tmp_path: Path) -> None:
    """The step rises over the run, and after a few good epochs it is too large."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 5))
    y = x @ np.ones(5) + 0.1 * rng.standard_normal(20_000)
    np.savez(tmp_path / "t.npz", X=x, y=y)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=8)
    with pytest.raises(TrainingError, match="step size 3: use a smaller one") as caught:
        train(dataset, TrainOptions(step_size=3.0, epochs=20, schedule="1cycle"))
    good = caught.value.model
    assert good is not None
    assert 1 <= len(good.record["epochs"]) < 10
    np.testing.assert_allclose(good.coef, 1.0, atol=0.05)


def test_a_sound_run_is_left_alone(tmp_path: Path) -> None:
    """Bits, sizes and samples of every kind, with the whole correction: nothing fires."""
    for number, (bits, samples) in enumerate([(1, 2), (2, 1), (2, 2), (4, 1), (8, 2)]):
        source = regression_npz(tmp_path / f"{number}.npz", rows=5000, seed=number)
        dataset = compressed(source, tmp_path / f"{number}", bits=bits, samples=samples)
        for validation in (0.0, 0.3):
            options = TrainOptions(shrinkage=1.0, epochs=60, validation=validation)
            assert len(train(dataset, options).epochs) == 60


def test_pure_noise_is_no_divergence(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "t.npz", X=rng.standard_normal((900, 60)), y=rng.standard_normal(900))
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=3, samples=2)
    assert train(dataset, TrainOptions(validation=0.3, epochs=100)).epochs[-1].epoch == 100


def test_gram_takes_less_of_a_chosen_shrinkage_that_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sample said that all of the correction is admissible; over all rows it is not."""
    from zipml_ooc.training import run

    rng = np.random.default_rng(3)
    common = rng.standard_normal((500, 1))
    x = common + 0.02 * rng.standard_normal((500, 12))
    y = common[:, 0] + 0.1 * rng.standard_normal(500)
    np.savez(tmp_path / "t.npz", X=x, y=y)
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=2, samples=1)
    monkeypatch.setattr(run, "shrinkage", lambda spectrum, problem: 1.0)
    for options in ({}, {"l1": 1e-3}, {"l2_path": (0.0, 0.1), "validation": 0.2}):
        result = train(dataset, TrainOptions(solver="gram", **options))
        assert 0 <= result.model.record["shrinkage"] < 1
        assert np.mean((result.model.decision_function(x)[:, 0] - y) ** 2) < 0.5 * np.var(y)

"""Options are checked before anything is read; the plan visits every row once an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import classes_npz, compressed, regression_npz

from zipml_ooc import TrainOptions, UsageError, train
from zipml_ooc.training import TrainingError
from zipml_ooc.training.homes import Homes
from zipml_ooc.training.plan import Plan, make_plan
from zipml_ooc.training.problem import make_problem


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "cubic"}, "loss must be one of"),
        ({"sampling": "triple"}, "sampling must be one of"),
        ({"double_form": "x"}, "double form must be one of"),
        ({"arithmetic": "int4"}, "arithmetic must be one of"),
        ({"l2": -1.0}, r"l2 must be 0 to 1e\+30"),
        ({"l2": 1e31}, r"l2 must be 0 to 1e\+30"),
        ({"l2": float("nan")}, r"l2 must be 0 to 1e\+30"),
        ({"epochs": 0}, "epochs must be 1 or more"),
        ({"batch_rows": 0}, "batch rows must be 1 or more"),
        ({"step_size": 0.0}, "step size must be above 0"),
        ({"shrinkage": 1.5}, "shrinkage must be 0 to 1"),
        ({"validation": 1.0}, "validation must be 0 up to"),
        ({"patience": 0, "validation": 0.1}, "patience must be 1 or more"),
        ({"patience": 3}, "held-out rows"),
        ({"seed": -1}, "seed must be"),
        ({"executor_options": None}, "executor options must be a mapping of names"),
        ({"executor_options": "a=1"}, "executor options must be a mapping of names"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainOptions(**options)


plans = st.builds(
    Plan,
    tiles=st.integers(1, 400),
    window_tiles=st.sampled_from([1, 4, 64]),
    replicas=st.integers(1, 8),
    held_out=st.sampled_from([0, 2**62, 2**63]),
    validation_tiles=st.just(0),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2**64 - 1),
)


@given(plan=plans, epoch=st.integers(0, 2))
def test_an_epoch_visits_every_tile_once_or_holds_it_out(plan: Plan, epoch: int) -> None:
    steps = [step for group in plan.rounds(epoch) for step in group]
    assert sorted(step.window for step in steps) == list(range(plan.windows))
    trained = [t for step in steps for t in plan.training_tiles(step.window, epoch).tolist()]
    held_out = [t for w in range(plan.windows) for t in plan.held_out_tiles(w).tolist()]
    assert sorted(trained + held_out) == list(range(plan.tiles))
    assert held_out == [] or plan.held_out > 0


@given(plan=plans)
def test_rounds_cover_the_run_from_start_to_end(plan: Plan) -> None:
    groups = [group for epoch in range(plan.epochs) for group in plan.rounds(epoch)]
    assert all(1 <= len(group) <= plan.replicas for group in groups)
    ends = [0.0] + [group[0].last for group in groups]
    for group, before in zip(groups, ends, strict=False):
        assert {step.first for step in group} == {group[0].first}
        assert group[0].first == pytest.approx(before)
    assert ends[-1] == pytest.approx(1.0)


@given(plan=plans)
def test_a_replica_goes_through_windows_of_its_own(plan: Plan) -> None:
    own = [list(plan.replica_windows(replica)) for replica in range(plan.replicas)]
    assert [w for windows in own for w in windows] == list(range(plan.windows))
    assert max(map(len, own)) - min(map(len, own)) <= 1
    assert all(plan.replica_of(w) == r for r, windows in enumerate(own) for w in windows)
    for epoch in range(plan.epochs):
        for group in plan.rounds(epoch):
            replicas = [plan.replica_of(step.window) for step in group]
            assert replicas == sorted(set(replicas))


@given(plan=plans, data=st.data())
def test_what_is_looked_ahead_to_comes_next(plan: Plan, data: st.DataObject) -> None:
    """The whole order, and the part of it that some replicas go through."""
    near = data.draw(st.none() | st.frozensets(st.integers(0, plan.replicas - 1), min_size=1))
    epoch = data.draw(st.integers(0, plan.epochs - 1))

    def is_near(window: int) -> bool:
        return near is None or plan.replica_of(window) in near

    orders = [[s.window for group in plan.rounds(e) for s in group] for e in (epoch, epoch + 1)]
    last = epoch + 1 == plan.epochs
    coming = [w for w in orders[0] + ([] if last else orders[1]) if is_near(w)]
    window = data.draw(st.sampled_from([w for w in orders[0] if is_near(w)] or [0]))
    if not is_near(window):
        return
    now, after = plan.around(window, epoch, near)
    place = coming.index(window)
    assert now == coming[place + 1 - len(now) : place + 1]
    assert after == coming[place + 1 : place + 1 + len(after)]
    assert after or place + 1 == len(coming)
    now, after = plan.around(window, replicas=near)
    run = [w for w in range(plan.windows) if is_near(w)]
    assert now == run[run.index(window) + 1 - len(now) : run.index(window) + 1]
    assert after == run[run.index(window) + 1 : run.index(window) + 1 + len(after)]


@given(plan=plans, rooms=st.lists(st.integers(1, 3), min_size=1, max_size=5))
def test_replicas_are_spread_over_workers(plan: Plan, rooms: list[int]) -> None:
    """Each has one, in groups of neighbours; all workers have some before any has many."""
    places = [f"w{i}" for i, room in enumerate(rooms) for _ in range(room)]
    homes = Homes(plan, places)
    at = [homes.of(w) for w in range(plan.windows)]
    for window, (address, near) in enumerate(at):
        assert address in places
        assert plan.replica_of(window) in near
    for group in plan.rounds(0):
        parts = homes.groups(group)
        assert [step for part in parts for step in part] == group
        assert len(parts) == min(len(places), len(group)) or len(group) < plan.replicas
        for part in parts:
            assert len({homes.of(step.window)[0] for step in part}) == 1
    if plan.windows >= plan.replicas >= len(rooms):
        assert {address for address, _ in at} == set(places)


def test_the_order_changes_from_epoch_to_epoch() -> None:
    plan = Plan(200, 64, 1, 0, 0, 2, 7)
    assert plan.training_tiles(0, 0).tolist() != plan.training_tiles(0, 1).tolist()
    assert plan.training_tiles(0, 0).tolist() == plan.training_tiles(0, 0).tolist()


@pytest.mark.parametrize("part", [0.01, 0.1, 0.5])
def test_the_asked_part_of_the_rows_is_held_out(tmp_path: Path, part: float) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz", rows=6400), tmp_path / "d")
    plan = make_plan(dataset.spec, TrainOptions(validation=part))
    held_out = sum(len(plan.held_out_tiles(w)) for w in range(plan.windows))
    assert held_out == plan.validation_tiles == max(1, round(part * 100))


def test_holding_out_all_rows_is_refused(tmp_path: Path) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz", rows=60), tmp_path / "d")
    with pytest.raises(UsageError, match="nothing to train on"):
        train(dataset, TrainOptions(validation=0.5))


def test_early_stopping_keeps_the_best_model(tmp_path: Path) -> None:
    """Pure noise: the validation loss soon rises, and the run ends long before its epochs."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", X=rng.standard_normal((600, 200)), y=rng.standard_normal(600))
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=8)
    options = TrainOptions(validation=0.3, patience=3, epochs=200)
    result = train(dataset, options)
    losses = [record.validation_loss for record in result.epochs]
    assert len(losses) < 200
    assert result.validation_loss == min(losses)
    assert losses.index(min(losses)) == len(losses) - 1 - 3


def test_without_patience_the_last_model_is_kept(tmp_path: Path) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz"), tmp_path / "d")
    result = train(dataset, TrainOptions(validation=0.2, epochs=7))
    assert len(result.epochs) == 7
    assert result.validation_loss == result.epochs[-1].validation_loss


def test_a_step_size_that_diverges_is_an_error_that_says_so(tmp_path: Path) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz"), tmp_path / "d")
    with pytest.raises(TrainingError, match="diverged with step size 50: use a smaller one"):
        train(dataset, TrainOptions(step_size=50.0))


def test_unstable_full_correction_is_an_error_and_the_guard_prevents_it(tmp_path: Path) -> None:
    """Two bits of a nearly collinear table: the corrected moments are indefinite."""
    rng = np.random.default_rng(3)
    common = rng.standard_normal((500, 1))
    x = common + 0.02 * rng.standard_normal((500, 12))
    np.savez(tmp_path / "t.npz", X=x, y=common[:, 0] + 0.1 * rng.standard_normal(500))
    dataset = compressed(tmp_path / "t.npz", tmp_path / "d", bits=2, samples=1)
    with pytest.raises(TrainingError, match="diverged"):
        train(dataset, TrainOptions(shrinkage=1.0, step_size=0.1, epochs=2000))
    guarded = train(dataset)
    assert guarded.model.record["shrinkage"] < 1
    assert np.abs(guarded.model.coef).max() < 1


def test_samplings_need_the_samples_they_use(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz")
    one = compressed(source, tmp_path / "one", samples=1)
    two = compressed(source, tmp_path / "two", samples=2)
    with pytest.raises(UsageError, match="needs two samples"):
        train(one, TrainOptions(sampling="double"))
    four = compressed(source, tmp_path / "four", samples=4)
    with pytest.raises(UsageError, match="draws two samples apart and the dataset holds 4"):
        train(four, TrainOptions(double_form="split"))
    assert train(four, TrainOptions(epochs=1)).model.record["sampling"] == "double"
    assert train(one, TrainOptions(epochs=1)).model.record["sampling"] == "corrected"
    assert train(two, TrainOptions(epochs=1)).model.record["sampling"] == "double"


def test_losses_need_the_targets_they_fit(tmp_path: Path) -> None:
    numbers = compressed(regression_npz(tmp_path / "n.npz"), tmp_path / "n")
    labels = compressed(classes_npz(tmp_path / "c.npz"), tmp_path / "c")
    with pytest.raises(UsageError, match="logistic loss needs classes"):
        train(numbers, TrainOptions(loss="logistic"))
    with pytest.raises(UsageError, match="squared loss needs numbers"):
        train(labels, TrainOptions(loss="squared"))
    np.savez(tmp_path / "x.npz", X=np.random.default_rng(0).standard_normal((100, 3)))
    bare = compressed(tmp_path / "x.npz", tmp_path / "b")
    with pytest.raises(UsageError, match="holds no target"):
        train(bare)
    np.savez(tmp_path / "k.npz", X=np.eye(3).repeat(50, 0), y=np.repeat(["a", "b", "c"], 50))
    three = compressed(tmp_path / "k.npz", tmp_path / "k")
    for options, message in (
        ({"loss": "huber"}, "huber loss needs numbers"),
        ({"loss": "hinge", "multiclass": "softmax"}, "goes with the logistic loss"),
        ({"loss": "softmax", "multiclass": "ovr"}, "takes all classes together"),
    ):
        with pytest.raises(UsageError, match=message):
            train(three, TrainOptions(**options))
    with pytest.raises(UsageError, match="softmax loss needs classes"):
        train(numbers, TrainOptions(loss="softmax"))


@pytest.mark.parametrize(
    ("options", "two", "three"),
    [
        ({}, "logistic", "softmax"),
        ({"loss": "logistic"}, "logistic", "softmax"),
        ({"loss": "softmax"}, "logistic", "softmax"),
        ({"multiclass": "softmax"}, "logistic", "softmax"),
        ({"multiclass": "ovr"}, "logistic", "logistic"),
        ({"loss": "hinge"}, "hinge", "hinge"),
        ({"loss": "ls-svm", "multiclass": "ovr"}, "ls-svm", "ls-svm"),
    ],
)
def test_the_loss_of_classes_follows_from_their_number(
    options: dict[str, Any], two: str, three: str, tmp_path: Path
) -> None:
    for count, expected in ((2, two), (3, three)):
        labels = np.repeat(["a", "b", "c"][:count], 50)
        np.savez(tmp_path / "k.npz", X=np.eye(count).repeat(50, 0), y=labels)
        dataset = compressed(tmp_path / "k.npz", tmp_path / str(count))
        assert make_problem(dataset.spec, TrainOptions(**options)).loss == expected


@pytest.mark.parametrize(
    "where",
    [{"threads": 0}, {"workers": 0}, {"threads": 1, "scheduler": "x"}, {"scheduler": "nowhere"}],
)
def test_impossible_places_to_compute_are_refused(tmp_path: Path, where: dict[str, Any]) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz"), tmp_path / "d")
    with pytest.raises(UsageError):
        train(dataset, **where)


def test_a_mini_batch_larger_than_the_data_is_all_of_the_data(tmp_path: Path) -> None:
    dataset = compressed(regression_npz(tmp_path / "t.npz", rows=1000), tmp_path / "d")
    whole, more = (
        train(dataset, TrainOptions(batch_rows=rows, epochs=50)).model for rows in (1024, 10**12)
    )
    assert np.array_equal(whole.coef, more.coef)


def test_integers_are_chosen_where_they_pay(tmp_path: Path) -> None:
    for columns, chosen in ((31, "float"), (32, "int16")):
        rng = np.random.default_rng(0)
        source = tmp_path / f"{columns}.npz"
        np.savez(source, X=rng.standard_normal((200, columns)), y=rng.standard_normal(200))
        result = train(compressed(source, tmp_path / f"{columns}"), TrainOptions(epochs=1))
        assert result.model.record["arithmetic"] == chosen

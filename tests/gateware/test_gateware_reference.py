"""What the accelerator's arithmetic promises, on its NumPy reference."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipml_ooc.gateware.formats import LEAST_EXPONENT, NO_ROW, Loss, intercept_code, margin_shift
from zipml_ooc.gateware.reference import (
    Program,
    State,
    Tile,
    curvature_sum,
    draw,
    margins,
    residuals,
    rounded,
    run,
)
from zipml_ooc.gateware.sigmoid import slope_and_value, table

SEEDS = st.integers(0, 2**32 - 1)


def case(
    seed: int, *, bits: int = 4, columns: int = 5, tiles: int = 4, batch_tiles: int = 1
) -> tuple[Program, list[Tile], State]:
    """A quiet random program: nothing is clipped."""
    rng = np.random.default_rng(seed)
    entries = columns + 1
    centre = rng.integers(0, 1 << 16, entries)
    centre[0] = 0
    program = Program(
        bits=bits,
        batch_tiles=batch_tiles,
        step=int(rng.integers(1 << 15, 1 << 16)),
        shift=9 + bits,
        centre=centre,
        pace=rng.integers(0, 1 << 16, entries),
        variance=rng.integers(0, 1 << 15, entries),
    )
    made = []
    for _ in range(tiles):
        targets = rng.integers(-300, 300, 8)
        targets[rng.random(8) < 0.2] = NO_ROW
        made.append(Tile(rng.integers(0, 1 << bits, (8, columns)), targets))
    return program, made, State(rng.integers(-500, 500, entries), int(rng.integers(1, 1 << 63)))


def test_the_generator_is_xorshift64() -> None:
    """The first states from 1, as published with the shifts 13, 7, 17."""
    seed, states = 1, []
    for _ in range(3):
        seed, drawn = draw(seed)
        states.append(seed)
        assert drawn == seed >> 48
    assert states == [1082269761, 1152992998833853505, 11177516664432764457]


@given(st.integers(-30000, 30000), st.integers(-(1 << 26), 1 << 26))
def test_rounding_of_the_model_is_unbiased_exactly(model: int, moved: int) -> None:
    draws = np.arange(1 << 16)
    after, clipped = rounded(np.full(1 << 16, model), np.full(1 << 16, moved), draws)
    if not clipped:
        assert Fraction(int(after.sum()), 1 << 16) == model - Fraction(moved, 1 << 16)
    assert np.ptp(after) <= 1


@given(SEEDS, st.sampled_from([1, 2, 4, 8]))
def test_residuals_are_those_of_real_numbers_to_a_unit(seed: int, bits: int) -> None:
    program, tiles, state = case(seed, bits=bits)
    u, c = state.model[1:], program.centre[1:] / 2 ** (16 - bits)
    own, unit = intercept_code(bits), 2.0 ** margin_shift(bits)
    for tile in tiles:
        exact = own * state.model[0] + (tile.codes - c) @ u - unit * tile.targets
        present = tile.targets != NO_ROW
        assert np.abs(margins(program, state.model, tile) - exact)[present].max(initial=0) <= 1
        found, clipped = residuals(program, state.model, tile)
        assert not clipped
        assert np.abs(found - exact / unit)[present].max(initial=0) <= 0.5 + 1 / unit
        assert (found[~present] == 0).all()


def class_case(
    seed: int, loss: Loss, *, bits: int, tiles: int = 2
) -> tuple[Program, list[Tile], State]:
    """A random program of a loss of two classes, with margins of up to some units."""
    program, made, state = case(seed, bits=bits, tiles=tiles, batch_tiles=tiles)
    rng = np.random.default_rng(seed)
    exponent = LEAST_EXPONENT + max(0, bits - 4) + int(rng.integers(0, 4))
    one = 1 << (exponent - margin_shift(bits))
    marks = (0, -1) if loss == Loss.LOGISTIC else (one, -one)
    made = [
        Tile(t.codes, np.where(t.targets == NO_ROW, NO_ROW, rng.choice(marks, len(t.targets))))
        for t in made
    ]
    size = int(rng.integers(5, 14))
    state.model = rng.integers(-(1 << size), 1 << size, len(state.model))
    return replace(program, loss=loss, exponent=exponent), made, state


def real_margins(program: Program, state: State, tile: Tile) -> np.ndarray:
    """In real numbers, with the exponent of the program."""
    centred = tile.codes - program.centre[1:] / 2 ** (16 - program.bits)
    held = intercept_code(program.bits) * state.model[0] + centred @ state.model[1:]
    return np.asarray(held * 2.0**-program.exponent)


@given(SEEDS, st.sampled_from([1, 2, 4, 8]))
def test_residuals_of_the_logistic_loss_are_off_by_two_units_at_most(seed: int, bits: int) -> None:
    program, tiles, state = class_case(seed, Loss.LOGISTIC, bits=bits)
    for tile in tiles:
        present, positive = tile.targets != NO_ROW, tile.targets == 0
        sigmoid = 1.0 / (1.0 + np.exp(-real_margins(program, state, tile)))
        found, clipped = residuals(program, state.model, tile)
        # A unit of the model, and of the argument, is a little on the way to a quarter of it.
        slack = 2.0 + 2.0**14 / 4 * (2.0**-program.exponent + 2.0**-14)
        assert np.abs(found - 2.0**14 * (sigmoid - positive))[present].max(initial=0) <= slack
        assert (found[~present] == 0).all()
        assert not clipped
        curved = (sigmoid * (1 - sigmoid))[present].sum()
        # Within an interval of 1/16 the slope changes by 0.1 / 16; each of two ends is rounded.
        limit = len(sigmoid) * (2.0**10 * 0.1 / 16 + 1 + 2.0**10 * 0.1 * 2.0**-program.exponent)
        assert abs(curvature_sum(program, state.model, tile) - 2.0**10 * curved) <= limit


@given(SEEDS, st.sampled_from([1, 2, 4, 8]))
def test_residuals_of_the_squared_hinge_are_half_its_derivatives(seed: int, bits: int) -> None:
    program, tiles, state = class_case(seed, Loss.SQUARED_HINGE, bits=bits)
    unit = 2.0 ** (program.exponent - margin_shift(bits))
    for tile in tiles:
        present, sign = tile.targets != NO_ROW, np.sign(tile.targets)
        margin = real_margins(program, state, tile)
        gap = np.maximum(1 - sign * margin, 0)
        found, clipped = residuals(program, state.model, tile)
        if not clipped:
            off = np.abs(found + unit * sign * gap)[present].max(initial=0)
            assert off <= 0.5 + 2.0 ** -margin_shift(bits)
        assert (found[~present] == 0).all()
        clear = np.abs(1 - sign * margin) * unit > 1  # where rounding does not decide
        active = (clear & present & (gap > 0)).sum()
        unclear = (~clear & present).sum()
        count = curvature_sum(program, state.model, tile)
        assert active <= count <= active + unclear


def test_the_table_of_the_sigmoid_is_rounded_where_no_doubt_is_possible() -> None:
    getcontext().prec = 50
    value, rise = table()
    ends = [*value.tolist(), int(value[-1] + rise[-1])]
    assert len(value) == 512
    for i, found in enumerate(ends, -256):
        exact = Decimal(1 << 14) / (1 + (Decimal(-i) / 16).exp())
        assert abs(exact - found) < Decimal("0.495")
    assert (rise >= 0).all()
    assert rise.max() == 256  # what a sum of curvatures has room for
    argument = np.arange(-(1 << 18) - 2000, (1 << 18) + 2000)
    _, found = slope_and_value(argument)
    assert np.abs(found - 2.0**14 / (1.0 + np.exp(-argument / 2.0**14))).max() < 1.75


@given(SEEDS, st.sampled_from([4, 8]), st.sampled_from([Loss.LOGISTIC, Loss.SQUARED_HINGE]))
def test_a_step_of_a_loss_of_classes_takes_its_curvature_from_the_rows(
    seed: int, bits: int, loss: Loss
) -> None:
    program, tiles, state = class_case(seed, loss, bits=bits)
    model = state.model.astype(np.float64)
    values = np.concatenate([t.codes for t in tiles]) - program.centre[1:] / 2 ** (16 - bits)
    values = np.concatenate([np.full((len(values), 1), intercept_code(bits)), values], axis=1)
    found = np.concatenate([residuals(program, state.model, t)[0] for t in tiles])
    curvature = float(sum(curvature_sum(program, state.model, t) for t in tiles))
    # In units of residuals: 2**-14 for the logistic loss, whose curvature is in 2**-10.
    unit = 2.0 ** (program.exponent - margin_shift(bits))
    if loss == Loss.LOGISTIC:
        curvature, unit = curvature / 2**10, 2.0**14
    bias = curvature * program.variance / 2.0**16 * model * 2.0**-program.exponent * unit
    gradient = found @ values - bias
    pace = program.pace * program.step / 2.0 ** (32 + program.shift)
    run(program, tiles, state)
    # As for the squared loss, and what the sum of curvatures loses, less than one of its units.
    lost = np.abs(bias) * 2.0**6 / max(curvature * 2**10, 1) if loss == Loss.LOGISTIC else 0.0
    slack = (2 + lost) * pace + np.abs(gradient) * 2.0 ** (-17 - program.shift) + 1.001
    inside = np.abs(model - pace * gradient) < (1 << 15) - 2
    assert (np.abs(state.model - (model - pace * gradient)) <= slack)[inside].all()


@given(SEEDS, st.sampled_from([1, 2, 4, 8]), st.integers(1, 4))
def test_a_step_is_that_of_sgd_with_the_correction(seed: int, bits: int, batch: int) -> None:
    program, tiles, state = case(seed, bits=bits, tiles=batch, batch_tiles=batch)
    model = state.model.astype(np.float64)
    values = np.concatenate([t.codes for t in tiles]) - program.centre[1:] / 2 ** (16 - bits)
    values = np.concatenate([np.full((len(values), 1), intercept_code(bits)), values], axis=1)
    found = np.concatenate([residuals(program, state.model, t)[0] for t in tiles])
    rows = int(sum((t.targets != NO_ROW).sum() for t in tiles))
    gradient = found @ values
    gradient -= rows * program.variance / 2.0 ** (16 + margin_shift(bits)) * model
    pace = program.pace * program.step / 2.0 ** (32 + program.shift)
    run(program, tiles, state)
    # Down by less than 1 twice in D, half a unit of Q, less than 1 in Y, then a draw.
    slack = 2 * pace + np.abs(gradient) * 2.0 ** (-17 - program.shift) + 1.001
    assert (np.abs(state.model - (model - pace * gradient)) <= slack).all()


@given(SEEDS, st.integers(1, 3), st.integers(1, 2))
def test_a_run_in_two_parts_is_that_run(seed: int, batch: int, cut: int) -> None:
    program, tiles, state = case(seed, tiles=3 * batch, batch_tiles=batch)
    parts = replace(state)
    run(program, tiles, state)
    run(program, tiles[: cut * batch], parts)
    run(program, tiles[cut * batch :], parts)
    assert parts.seed == state.seed
    assert (parts.model == state.model).all()


@given(SEEDS)
def test_slots_without_a_row_count_for_nothing(seed: int) -> None:
    program, tiles, state = case(seed)
    other, rng = replace(state), np.random.default_rng(seed)
    changed = []
    for tile in tiles:
        missing = (tile.targets == NO_ROW)[:, None]
        noise = rng.integers(0, 16, tile.codes.shape)
        order = rng.permutation(len(tile.targets))
        codes = np.where(missing, noise, tile.codes)
        changed.append(Tile(codes[order], tile.targets[order]))
    run(program, tiles, state)
    run(program, changed, other)
    assert (other.model == state.model).all()


@given(SEEDS)
def test_a_delayed_run_of_two_tiles_adds_two_gradients_of_the_first_model(seed: int) -> None:
    program, tiles, state = case(seed, tiles=2)
    program = replace(program, variance=np.zeros_like(program.variance), delayed=True)
    ahead, alone = replace(state), replace(state)
    run(program, tiles, state)
    run(program, tiles[:1], ahead)
    alone.seed = ahead.seed  # the second tile's draws
    run(program, tiles[1:], alone)
    assert (state.model - ahead.model == alone.model - case(seed, tiles=2)[2].model).all()


@pytest.mark.parametrize("sign", [-1, 1])
def test_what_leaves_the_range_is_clipped_and_noted(sign: int) -> None:
    program, _, state = case(0)
    tile = Tile(np.full((8, 5), 15), np.full(8, sign * 32000))
    state.model = np.full(6, -sign * 32000)
    _, clipped = residuals(program, state.model, tile)
    assert clipped
    run(replace(program, shift=0), [tile], state)
    assert state.residual_saturated
    assert state.model_saturated
    assert state.model.min() >= -32768
    assert state.model.max() <= 32767

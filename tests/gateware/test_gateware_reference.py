"""What the accelerator's arithmetic promises, on its NumPy reference."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipml_ooc.gateware.formats import NO_ROW
from zipml_ooc.gateware.reference import (
    Program,
    State,
    Tile,
    draw,
    margins,
    residuals,
    rounded,
    run,
)

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
    for tile in tiles:
        exact = state.model[0] + (tile.codes - c) @ u - 16.0 * tile.targets
        present = tile.targets != NO_ROW
        assert np.abs(margins(program, state.model, tile) - exact)[present].max(initial=0) <= 1
        found, clipped = residuals(program, state.model, tile)
        assert not clipped
        assert np.abs(found - exact / 16)[present].max(initial=0) <= 0.5 + 1 / 16
        assert (found[~present] == 0).all()


@given(SEEDS, st.sampled_from([1, 2, 4, 8]), st.integers(1, 4))
def test_a_step_is_that_of_sgd_with_the_correction(seed: int, bits: int, batch: int) -> None:
    program, tiles, state = case(seed, bits=bits, tiles=batch, batch_tiles=batch)
    model = state.model.astype(np.float64)
    values = np.concatenate([t.codes for t in tiles]) - program.centre[1:] / 2 ** (16 - bits)
    values = np.concatenate([np.ones((len(values), 1)), values], axis=1)
    found = np.concatenate([residuals(program, state.model, t)[0] for t in tiles])
    rows = int(sum((t.targets != NO_ROW).sum() for t in tiles))
    gradient = found @ values - rows * program.variance / 2**16 * model / 16
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

"""Levels have the least variance there is, and histograms of a stream come close, in any order."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zipml_codecs import (
    LevelHistograms,
    ValueRefusedError,
    _native,
    optimal_levels,
    reference_levels,
)

EPS = 2.0**-52
variance = reference_levels.variance

NUMBERS = st.one_of(
    st.integers(-5, 5).map(float),
    st.floats(-10, 10, width=32),
    st.floats(-1e3, 1e3).map(lambda x: 1e6 + x),
)


def rounding(values, levels, weights=1.0):
    """What rounding may add to the cost, with slack for the order of sums."""
    spread = np.ptp(values)
    return 64 * EPS * levels * np.sum(weights * np.full(len(values), spread**2))


@settings(max_examples=200, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=9), st.integers(2, 6), st.data())
def test_no_choice_of_values_has_a_smaller_variance(values, levels, data):
    weights = data.draw(
        st.none() | st.lists(st.floats(0, 4), min_size=len(values), max_size=len(values))
    )
    v = np.array(values)
    w = np.ones(len(v)) if weights is None else np.array(weights)
    found = optimal_levels(v, levels, weights)
    inner = np.unique(v)[1:-1]
    best = min(
        variance(v, np.array([v.min(), *chosen, v.max()]), w)
        for count in range(min(levels - 2, len(inner)) + 1)
        for chosen in itertools.combinations(inner, count)
    )
    assert variance(v, found, w) <= best + rounding(v, levels, w)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 120), st.integers(2, 40), st.booleans())
def test_the_solver_agrees_with_the_quadratic_programme(seed, count, levels, weighted):
    rng = np.random.default_rng(seed)
    kinds = [rng.standard_normal, rng.standard_cauchy, lambda n: rng.integers(0, 30, n) * 1.0]
    v = kinds[seed % 3](count)
    w = rng.integers(0, 3, count) * 1.0 if weighted else np.ones(count)
    found = optimal_levels(v, levels, w if weighted else None)
    assert found.shape == (levels,)
    assert (found[0], found[-1]) == (v.min(), v.max())
    assert np.isin(found, v).all() and (np.diff(found) >= 0).all()
    slow = reference_levels.optimal_levels(v, levels, w)
    assert variance(v, found, w) <= variance(v, slow, w) + rounding(v, levels, w)


def test_a_large_problem_that_is_halved_agrees_with_one_that_is_not():
    v = np.random.default_rng(1).standard_normal(100_000)
    halved = optimal_levels(v, 256)  # 25 million choices
    assert len(np.unique(halved)) == 256
    at = np.searchsorted(np.sort(v), halved)
    part = np.sort(v)[at[100] : at[200] + 1]
    assert variance(part, halved[100:201]) <= variance(part, optimal_levels(part, 101)) * (1 + 1e-9)


def test_every_instruction_set_finds_the_same_levels():
    rng = np.random.default_rng(5)
    v = rng.standard_normal((4000, 21)).astype("f4")
    before = _native.live_simd()
    found = []
    try:
        for name in _native.simd_levels():
            _native.select_simd(name)
            histograms = LevelHistograms(21)
            histograms.add(v)
            found.append((optimal_levels(v[:, 0], 16), histograms.levels(16)))
    finally:
        _native.select_simd(before)
    for exact, streamed in found[1:]:
        np.testing.assert_array_equal(exact, found[0][0])
        np.testing.assert_array_equal(streamed, found[0][1])


def test_with_few_distinct_values_each_is_a_level():
    np.testing.assert_array_equal(optimal_levels([3, 1, 3, 2], 5), [1, 2, 3, 3, 3])
    np.testing.assert_array_equal(optimal_levels([7.0], 2), [7, 7])
    histograms = LevelHistograms(3)
    histograms.add(np.array([[3, -0.1, 1e6], [1, -0.1, 1e6 + 1], [2, -0.1, 1e6 + 1]], "f4"))
    expected = [[1, 2, 3, 3], np.float32([-0.1] * 4), [1e6, 1e6 + 1, 1e6 + 1, 1e6 + 1]]
    levels = histograms.levels(4)
    np.testing.assert_array_equal(levels, expected)
    np.testing.assert_array_equal(histograms.variance(levels), 0)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e8, -1e12])
def test_a_large_offset_does_not_cost_digits(offset):
    v = np.random.default_rng(2).integers(0, 2**16, 500) * 2.0**-8
    moved = optimal_levels(v + offset, 8) - offset
    assert variance(v, moved) <= variance(v, optimal_levels(v, 8)) * (1 + 1e-9)


def test_outliers_on_both_sides_do_not_cost_digits():
    bulk = np.random.default_rng(3).standard_normal(300)
    v = np.concatenate([bulk, [-1e30, 1e30]])
    best = variance(bulk, optimal_levels(bulk, 8))
    # The least and the greatest of the bulk are levels too: otherwise some value costs 1e30.
    assert variance(bulk, optimal_levels(v, 10)[1:-1]) <= best * (1 + 1e-9)


@pytest.mark.parametrize(
    "values", [[1e308, -1e308, 1.0, 5e307], [5e-324, 1e-323, 0.0, 5e-323], [-0.0, 0.0, 1e-300, 1.0]]
)
def test_extreme_values_have_levels(values):
    found = optimal_levels(values, 3)
    assert np.isfinite(found).all()
    assert (found[0], found[-1]) == (min(values), max(values))
    histograms = LevelHistograms(1)
    histograms.add(np.array(values)[:, None])
    streamed = histograms.levels(3)
    assert (streamed[0, 0], streamed[0, 2]) == (min(values), max(values))
    assert not np.isnan(histograms.variance(streamed)).any()
    assert (np.diff(streamed) >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 4), "values are empty"),
        (([1.0, 2.0], 1), "levels must be at least 2, got 1"),
        (([1.0, np.nan], 4), r"values\[1\] is nan"),
        (([np.inf], 4), r"values\[0\] is inf"),
        (([1.0, 2.0], 4, [1.0, -1.0]), r"weights\[1\] is -1.0"),
        (([1.0, 2.0], 4, [np.nan, 1.0]), r"weights\[0\] is nan"),
        (([1.0, 2.0], 4, [1.0]), "one weight for each value is needed: 2, got 1"),
    ],
)
def test_what_has_no_levels_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimal_levels(*arguments)


COLUMNS = 5


def table(seed, rows, dtype):
    """Columns of different shapes: offset, heavy-tailed, discrete, and mostly zero."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, COLUMNS))
    x[:, 1] = 1000 + x[:, 1]
    x[:, 2] = np.exp(3 * x[:, 2]) * rng.choice([-1, 1], rows)
    x[:, 3] = rng.integers(-3, 4, rows) / 8
    x[:, 4] *= rng.random(rows) < 0.3
    if seed % 3 == 0:
        x *= np.linspace(1e-3, 1, rows)[:, None]  # bounds that keep growing
    return np.clip(x, -6e4, 6e4).astype(dtype)


@st.composite
def cuts(draw, rows):
    at = sorted(draw(st.lists(st.integers(0, rows), max_size=6)))
    return [slice(a, b) for a, b in itertools.pairwise([0, *at, rows])]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 2**32), st.sampled_from(["f2", "f4", "f8"]))
def test_histograms_depend_on_the_values_alone(data, seed, dtype):
    rows, bins = data.draw(st.integers(1, 300)), data.draw(st.sampled_from([16, 37, 256]))
    x = table(seed, rows, dtype)
    whole = LevelHistograms(COLUMNS, bins)
    whole.add(x)
    order = np.random.default_rng(seed).permutation(rows)
    merged = [LevelHistograms(COLUMNS, bins) for _ in range(3)]
    for i, part in enumerate(data.draw(cuts(rows))):
        merged[data.draw(st.integers(0, 2)) if i else 0].add(x[order[part]])
    first, second, third = data.draw(st.permutations(merged))
    second.merge(third)
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.rows == rows
    for count in (2, 5, 16):
        expected = whole.levels(count)
        np.testing.assert_array_equal(first.levels(count), expected)
        np.testing.assert_array_equal(first.variance(expected), whole.variance(expected))
    np.testing.assert_array_equal(first.bounds, whole.bounds)
    np.testing.assert_array_equal(whole.bounds, (x.min(axis=0), x.max(axis=0)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, COLUMNS - 1), st.sampled_from(["f4", "f8"]))
def test_histograms_match_their_slow_twin(seed, column, dtype):
    x = table(seed, 200, dtype)[:, [column]]
    histograms = LevelHistograms(1, 64)
    for part in np.array_split(x, 3):
        histograms.add(part)
    points, weights, _ = reference_levels.points(x[:, 0], 64)
    levels = histograms.levels(6)
    slack = rounding(points, 6, weights)
    slow = reference_levels.optimal_levels(points, 6, weights)
    mine = variance(points, levels[0], weights)
    assert mine <= variance(points, slow, weights) + slack
    assert abs(histograms.variance(levels)[0] * len(x) - mine) <= slack


def most_error(values, levels, h, near_zero):
    """The part of the bound in LevelHistograms that belongs to one set of levels."""
    inside = np.isin(np.floor(values / h), np.floor(levels[1:-1] / h)) | near_zero
    return h * inside.sum() * np.diff(levels).max()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([16, 64, 512]), st.integers(2, 12))
def test_the_bound_on_the_excess_variance_holds(seed, bins, count):
    x = table(seed, 400, "f4")
    histograms = LevelHistograms(COLUMNS, bins)
    histograms.add(x)
    levels = histograms.levels(count)
    for v, found in zip(x.T.astype(np.float64), levels, strict=True):
        exact = optimal_levels(v, count)
        _, _, h = reference_levels.points(v, bins)
        assert h <= 2 * np.ptp(v) / (bins - 2)
        near_zero = (abs(v) <= h) & (v != 0)
        allowed = len(v) * h**2 / 4
        allowed += most_error(v, exact, h, near_zero) + most_error(v, found, h, near_zero)
        best = variance(v, exact)
        assert variance(v, found) <= best + allowed + rounding(v, count)
        uniform = variance(v, np.linspace(v.min(), v.max(), count))
        assert best <= uniform + rounding(v, count)


def test_a_histogram_of_many_values_comes_close_to_the_optimum():
    v = np.random.default_rng(4).standard_normal(50_000).astype("f4")
    histograms = LevelHistograms(1)
    histograms.add(v[:, None])
    levels = histograms.levels(16)
    best = variance(v, optimal_levels(v, 16))
    mine = variance(v, levels[0])
    assert best <= mine * (1 + 1e-12)
    assert mine <= best * 1.001
    assert histograms.variance(levels)[0] * len(v) == pytest.approx(mine, rel=1e-4)


def shapes(rows):
    """What columns look like: tails, two bulks, ties, outliers."""
    rng = np.random.default_rng(9)
    z = rng.standard_normal(rows)
    outliers = np.concatenate([z[20:], 100 * rng.standard_normal(20)])
    bimodal = np.where(rng.random(rows) < 0.3, -4 + 0.5 * z, 3 + z)
    return {
        "normal": z,
        "lognormal": np.exp(2 * z),
        "bimodal": bimodal,
        "normal, ties": np.round(z, 2),
        "lognormal, ties": np.round(np.exp(z), 1),
        "outliers": outliers,
    }


@pytest.mark.parametrize("name", shapes(1))
@pytest.mark.parametrize("count", [4, 16, 64])
def test_histograms_of_the_default_size_are_within_0_2_percent_of_the_optimum(name, count):
    v = shapes(50_000)[name].astype("f4")
    histograms = LevelHistograms(1)
    for part in np.array_split(v, 3):
        histograms.add(part[:, None])
    best = variance(v, optimal_levels(v, count))
    assert variance(v, histograms.levels(count)[0]) <= 1.002 * best


def test_more_columns_have_fewer_bins_by_default():
    assert [LevelHistograms(n).bins for n in (1, 81, 82, 1000)] == [65536, 65536, 32768, 4096]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F", "strided", "reversed"])
def test_any_memory_order_counts_alike(dtype, order):
    x = np.random.default_rng(6).standard_normal((333, 37)).astype(dtype)
    copies = {
        "C": np.ascontiguousarray(x),
        "F": np.asfortranarray(x),
        "strided": np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
        "reversed": np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    }
    plain, other = LevelHistograms(37, 128), LevelHistograms(37, 128)
    plain.add(x)
    other.add(copies[order])
    np.testing.assert_array_equal(plain.levels(8), other.levels(8))


def test_more_rows_than_packed_bins_hold_are_counted():
    rows = _native.LEVEL_ROWS + 5
    x = np.full((rows, 2), 2.75, "f4")
    x[:3] = [[1, 5], [9, -1], [2.5, 2]]
    histograms = LevelHistograms(2)
    histograms.add(x)
    histograms.add(x)
    assert histograms.rows == 2 * rows
    np.testing.assert_array_equal(histograms.levels(4), [[1, 2.5, 2.75, 9], [-1, 2, 2.75, 5]])


def test_values_that_are_not_finite_are_refused_and_nothing_is_counted():
    histograms = LevelHistograms(2)
    with pytest.raises(ValueRefusedError, match="row 1, column 0 is nan"):
        histograms.add(np.array([[1, 2], [np.nan, 3]], "f4"))
    assert histograms.rows == 0
    with pytest.raises(ValueError, match="nothing has been counted"):
        histograms.levels(4)


def test_misfits_are_refused():
    histograms = LevelHistograms(2)
    with pytest.raises(ValueError, match="rows of 2 columns are needed"):
        histograms.add(np.zeros((4, 3)))
    with pytest.raises(TypeError, match="got int64"):
        histograms.add(np.zeros((4, 2), np.int64))
    with pytest.raises(ValueError, match="do not merge"):
        histograms.merge(LevelHistograms(2, bins=64))
    histograms.add(np.eye(2))
    with pytest.raises(ValueError, match="column 1 must ascend and span"):
        histograms.variance([[0, 1], [0, 0.5]])
    with pytest.raises(ValueError, match="count must be at least 2"):
        histograms.levels(1)
    for bins in (15, 2**20 + 1):
        with pytest.raises(ValueError, match="bins must lie in"):
            LevelHistograms(2, bins=bins)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e38, -3e38, 1e-45, 0.1])
def test_a_column_of_one_value_has_that_level_and_no_variance(value):
    histograms = LevelHistograms(1)
    histograms.add(np.full((10, 1), value, "f4"))
    levels = histograms.levels(4)
    np.testing.assert_array_equal(levels, np.float64(np.float32(value)))
    np.testing.assert_array_equal(histograms.variance(levels), 0)


@pytest.mark.parametrize(("dtype", "largest"), [("f4", 3.4e38), ("f8", 1.7e308)])
def test_a_range_that_overflows_has_levels(dtype, largest):
    x = np.linspace(-1, 1, 1001)[:, None].astype(dtype) * np.dtype(dtype).type(largest)
    histograms = LevelHistograms(1)
    histograms.add(x[500:501])
    histograms.add(x)
    levels = histograms.levels(5)[0]
    assert np.isfinite(levels).all()
    assert abs(levels / largest - np.linspace(-1, 1, 5)).max() < 2e-3


def test_merging_with_itself_doubles_the_counts():
    x = table(1, 100, "f4")
    once, twice = LevelHistograms(COLUMNS), LevelHistograms(COLUMNS)
    once.add(x)
    once.merge(once)
    twice.add(np.concatenate([x, x]))
    assert once.rows == 200
    np.testing.assert_array_equal(once.levels(7), twice.levels(7))

"""Fitted levels end to end: compress, attributes, training, description."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from tables import classes_npz, compressed, least_squares_loss, regression_npz, write_csv
from zipml_codecs import Quantizer
from zipml_codecs.tables import fit_levels, grid_steps, table_bits_of

from zipml_ooc import (
    CompressOptions,
    DataError,
    SourceOptions,
    TrainOptions,
    UsageError,
    compress,
    describe,
    evaluate,
    open_dataset,
    train,
)
from zipml_ooc.level_fitting import LevelGatherer
from zipml_ooc.training.loading import load_tiles
from zipml_ooc.training.moments import _scaled_blocks, second_moments
from zipml_ooc.training.problem import make_problem


def heavy_npz(path, rows=3000, columns=6, seed=0):
    """Columns whose bulk is a small part of their range: they need tables of 16 bits."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.standard_t(1.5, (rows, columns)), -300, 300)
    y = np.tanh(x) @ rng.standard_normal(columns) + 0.1 * rng.standard_normal(rows)
    np.savez(path, X=x, y=y)
    return path


SOURCES = {8: regression_npz, 16: heavy_npz}


def decoded(dataset):
    chunks = [dataset.read_chunk(i) for i in range(dataset.spec.chunks)]
    return np.concatenate([c.decode_rows(0, c.header.rows) for c in chunks])


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        ({}, "optimal"),
        ({"bits": 2}, "optimal"),
        ({"bits": 1}, "uniform"),
        ({"bits": 5}, "uniform"),
        ({"bits": 5, "levels": "optimal"}, "optimal"),
        ({"levels": "uniform"}, "uniform"),
        ({"scale": "row"}, "uniform"),
    ],
)
def test_auto_fits_levels_from_2_to_4_bits_by_column(options, levels):
    assert CompressOptions(**options).quantizer.levels == levels


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"levels": "best"}, "levels must be one of auto, uniform, optimal; got 'best'"),
        ({"levels": "optimal", "scale": "row"}, "go with scale 'column' only, not with 'row'"),
        ({"levels": "optimal", "bits": 8}, "up to 8 stored bits"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options, text):
    with pytest.raises(UsageError, match=text) as caught:
        CompressOptions(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("table_bits", [8, 16])
@pytest.mark.parametrize("samples", [1, 2, 4])
def test_what_is_stored_does_not_depend_on_chunks_and_threads(tmp_path, table_bits, samples):
    source = SOURCES[table_bits](tmp_path / "t.npz", rows=3000)
    datasets = [
        compressed(
            source, tmp_path / f"d{rows}", ("y",), samples=samples, chunk_rows=rows, threads=n
        )
        for rows, n in ((64, 3), (640, 1), (4096, 2))
    ]
    first = datasets[0].spec
    # The grid of 8 bits has 63 steps for four samples, too few for 16 levels.
    assert table_bits_of(first.level_tables.places) == (table_bits if samples < 4 else 16)
    for other in datasets[1:]:
        assert np.array_equal(other.spec.level_tables.places, first.level_tables.places)
        assert other.spec.variance.tobytes() == first.variance.tobytes()
        assert decoded(other).tobytes() == decoded(datasets[0]).tobytes()
    again = open_dataset(datasets[0].path).spec
    assert again.level_tables.places.dtype == first.level_tables.places.dtype


@pytest.mark.parametrize("make", [regression_npz, heavy_npz])
def test_variance_in_the_attributes_is_the_exact_one_of_all_rows(tmp_path, make):
    source = make(tmp_path / "t.npz", rows=700)
    spec = compressed(source, tmp_path / "d", bits=3, samples=1, chunk_rows=64).spec
    x = np.load(source)["X"]
    z = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("f4").astype("f8")
    steps = grid_steps(table_bits_of(spec.level_tables.places), 1)
    share = spec.level_tables.places.astype(float) / steps
    levels = z.min(axis=0)[:, None] + np.ptp(z, axis=0)[:, None] * share
    expected = np.empty(len(levels))
    for j, level in enumerate(levels):
        at = np.clip(np.searchsorted(np.unique(level), z[:, j], "right"), 1, 7)
        right, left = np.unique(level)[at], np.unique(level)[at - 1]
        expected[j] = np.mean((right - z[:, j]) * (z[:, j] - left))
    np.testing.assert_allclose(spec.variance, expected, rtol=2e-3)
    # And it is what was promised when the levels were fitted.
    uniform = np.modf((z - z.min(axis=0)) / np.ptp(z, axis=0) * 7)[0]
    saved = (uniform * (1 - uniform)).mean(axis=0) * (np.ptp(z, axis=0) / 7) ** 2
    np.testing.assert_allclose(spec.level_tables.uniform_variance, saved, rtol=2e-2)


def test_missing_values_are_stored_at_the_mean_and_levels_know_it(tmp_path):
    rng = np.random.default_rng(0)
    x = np.where(rng.random((2000, 2)) < 0.5, np.nan, rng.uniform(0, 1, (2000, 2)) ** 3)
    x[:10, 1] = np.nan  # the first values of a column may all be missing
    np.savez(tmp_path / "t.npz", X=x)
    spec = compressed(tmp_path / "t.npz", tmp_path / "d", bits=3, nan="mean").spec
    mean = (spec.statistics.mean - spec.statistics.minimum) / (
        spec.statistics.maximum - spec.statistics.minimum
    )
    places = spec.level_tables.places / grid_steps(table_bits_of(spec.level_tables.places), 2)
    for j in range(2):  # half of all values: a level is as near as the grid has it
        assert np.abs(places[j] - mean[j]).min() <= 0.5 / 127
    assert (spec.variance < spec.level_tables.uniform_variance).all()


def test_the_blocks_of_the_source_do_not_matter_to_the_levels():
    values = np.random.default_rng(1).gamma(0.3, size=(5000, 3))
    quantizer, places = Quantizer(bits=3), []
    for cuts in ([5000], [1, 4999], [1000] * 5):
        gatherer = LevelGatherer(3, quantizer, missing=False)
        start = 0
        for rows in cuts:
            gatherer.update(values[start : start + rows])
            start += rows
        places.append(fit_levels(gatherer._histograms, quantizer).places)
    assert all(np.array_equal(p, places[0]) for p in places)


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("table_bits", [8, 16])
def test_training_sees_the_values_that_decoding_gives(tmp_path, table_bits, samples):
    source = SOURCES[table_bits](tmp_path / "t.npz", rows=1000)
    dataset = compressed(source, tmp_path / "d", ("y",), samples=samples, bits=4)
    problem = make_problem(dataset.spec, TrainOptions())
    assert problem.tables.dtype.itemsize * 8 == (table_bits if samples < 4 else 16)
    loaded = load_tiles(dataset, problem, np.arange(dataset.spec.tiles))
    scaled = (decoded(dataset) - problem.column_mean) / problem.column_std
    model = np.random.default_rng(0).standard_normal((1, problem.columns)).astype("f4")
    margins = loaded.margins(model, np.zeros(1, "f4"))
    np.testing.assert_allclose(margins, scaled @ model.T.astype("f8"), rtol=1e-4, atol=1e-4)
    expected = sum(block.T @ block for block in _scaled_blocks(loaded, problem))
    np.testing.assert_allclose(second_moments(loaded, problem)[0], expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("table_bits", [8, 16])
@pytest.mark.parametrize("arithmetic", ["float", "int16", "int8"])
@pytest.mark.parametrize("form", ["mean", "split"])
def test_training_comes_near_least_squares_in_every_form(tmp_path, table_bits, arithmetic, form):
    source = SOURCES[table_bits](tmp_path / "t.npz", rows=6000, columns=5)
    dataset = compressed(source, tmp_path / "d", ("y",), bits=4)
    options = TrainOptions(arithmetic=arithmetic, double_form=form, epochs=30)
    result = train(dataset, options)
    data = np.load(source)
    best = least_squares_loss(data["X"], data["y"])
    raw = 0.5 * float(np.mean((np.ravel(result.model.predict(data["X"])) - data["y"]) ** 2))
    assert best <= raw < 1.02 * best
    assert result.loss == pytest.approx(best, rel=0.05)
    assert evaluate(result.model, dataset)["rows"] == 6000


def test_classes_are_trained_on_fitted_levels(tmp_path):
    source = classes_npz(tmp_path / "t.npz", rows=4000)
    accuracy = [
        evaluate(train(dataset).model, source)["accuracy"]
        for dataset in (
            compressed(source, tmp_path / levels, ("y",), levels=levels)
            for levels in ("uniform", "optimal")
        )
    ]
    assert accuracy[1] > accuracy[0] - 0.01


def test_damaged_tables_in_the_attributes_are_noticed(tmp_path):
    dataset = compressed(regression_npz(tmp_path / "t.npz"), tmp_path / "d")
    file = dataset.path / "zarr.json"
    metadata = json.loads(file.read_text())
    tables = metadata["attributes"]["zipml"]["level_tables"]
    for change in ({"bits": 7}, {"places": tables["places"][:-1]}, {"places": [[0, 1]] * 10}):
        metadata["attributes"]["zipml"]["level_tables"] = {**tables, **change}
        file.write_text(json.dumps(metadata))
        with pytest.raises(DataError, match=r"attributes of .* are damaged"):
            open_dataset(dataset.path)
    moved = [[0, *(k + (k < 127) for k in row[1:])] for row in tables["places"]]
    metadata["attributes"]["zipml"]["level_tables"] = {**tables, "places": moved}
    file.write_text(json.dumps(metadata))
    with pytest.raises(DataError, match="belongs to another dataset"):
        open_dataset(dataset.path).read_chunk(0)


def test_uniform_datasets_say_nothing_of_levels(tmp_path):
    dataset = compressed(regression_npz(tmp_path / "t.npz"), tmp_path / "d", levels="uniform")
    attributes = json.loads((dataset.path / "zarr.json").read_text())["attributes"]["zipml"]
    assert attributes["version"] == "1.0"
    assert "level_tables" not in attributes and "levels" not in attributes["quantizer"]


def test_description_tells_what_the_levels_save(tmp_path):
    x = np.random.default_rng(0).standard_exponential((3000, 2))
    x[:, 1] = np.linspace(0, 1, 3000)  # nothing to gain here
    source = write_csv(tmp_path / "t.csv", {"skewed": x[:, 0], "even": x[:, 1]})
    facts = describe(compressed(source, tmp_path / "d"))
    assert facts["levels"] == "optimal" and facts["table_bits"] == 8
    skewed, even = facts["per_column"]
    assert skewed["saved"] > 0.5 > 0.05 > abs(even["saved"])
    assert skewed["variance"] < 0.5 * skewed["uniform_variance"]
    assert [c["name"] for c in facts["most_saved"]] == ["skewed", "even"]
    assert 0.3 < facts["variance_saved"] < skewed["saved"]


@pytest.mark.parametrize(
    ("name", "target"), [("cadata.csv.gz", "medianHouseValue"), ("cpusmall.csv.gz", "usr")]
)
@pytest.mark.parametrize("bits", [2, 3])
def test_on_real_tables_fitted_levels_beat_equal_spacing(tmp_path, real_data, name, target, bits):
    path = real_data(name)
    with gzip.open(path, "rt") as file:
        names = file.readline().strip().split(",")
        table = np.loadtxt(file, delimiter=",")
    y = table[:, names.index(target)]
    x = np.delete(table, names.index(target), axis=1)
    best, excess, variance = least_squares_loss(x, y), {}, {}
    for levels in ("uniform", "optimal"):
        losses = []
        for seed in range(3):
            dataset = compress(
                path,
                tmp_path / "d",
                CompressOptions(bits=bits, levels=levels, seed=seed),
                source_options=SourceOptions(target=(target,)),
                force=True,
            )
            predicted = np.ravel(train(dataset).model.predict(x))
            losses.append(0.5 * np.mean((predicted - y) ** 2) / best - 1)
        excess[levels], variance[levels] = np.median(losses), dataset.spec.variance.sum()
    assert variance["optimal"] < 0.25 * variance["uniform"]
    assert excess["optimal"] < excess["uniform"]

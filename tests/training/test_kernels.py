"""The native training kernels against the NumPy reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zipml_codecs import TILE_ROWS, EncodedChunk, Quantizer, encode_chunk
from zipml_codecs._native import TileBatch
from zipml_codecs.reference import unpack_codes
from zipml_codecs.reference_sgd import (
    ReferenceOptions,
    ReferenceTile,
    affine_values,
    gradient,
    margins,
    sgd,
)


class Case:
    """Random chunks of a random quantiser, for both implementations."""

    def __init__(
        self, rows: list[int], columns: int, quantizer: Quantizer, outputs: int, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        self.columns, self.outputs, self.quantizer = columns, outputs, quantizer
        self.chunks: list[EncodedChunk] = []
        self.targets = []
        first = 0
        lower, upper = np.full(columns, -4, "f4"), np.full(columns, 4, "f4")
        fixed: dict[str, Any] = {} if quantizer.by_row else {"lower": lower, "upper": upper}
        for count in rows:
            values = np.clip(rng.standard_normal((count, columns)), -4, 4).astype("f4")
            encoded = encode_chunk(
                values, quantizer, first_tile=first, chunk_shape=values.shape, **fixed
            )
            self.chunks.append(EncodedChunk.parse(encoded))
            self.targets.append(rng.integers(0, 2, (count, outputs)).astype("f4"))
            first += -(-count // TILE_ROWS)
        refs = [(c, t) for c, count in enumerate(rows) for t in range(-(-count // TILE_ROWS))]
        rng.shuffle(refs)
        self.refs = np.array(refs, np.uint32).reshape(-1, 2)
        step = (2.0 if quantizer.by_row else 8.0) / quantizer.intervals
        offset = -1.0 if quantizer.by_row else -4.0
        self.offset = np.full(columns, offset, "f4")
        self.slope = np.full(columns, step / quantizer.samples, "f4")
        self.centre = rng.standard_normal(columns).astype("f4") * np.float32(0.1)
        self.model = (rng.standard_normal((outputs, columns)) * 0.3).astype("f4")
        self.intercept = rng.standard_normal(outputs).astype("f4")
        self.variance = rng.uniform(0, 0.3, columns).astype("f4")
        self.l2 = rng.uniform(0, 0.1, columns).astype("f4")
        self.batch = TileBatch(
            codes=[c.codes for c in self.chunks],
            targets=self.targets,
            row_scales=[c.upper if c.lower is None else None for c in self.chunks],
            first_tiles=np.array([c.header.first_tile for c in self.chunks], np.uint64),
            tiles=self.refs,
            offset=self.offset,
            slope=self.slope,
            centre=self.centre,
            stored_bits=quantizer.stored_bits,
            outputs=outputs,
        )

    def options(self, **changes: Any) -> ReferenceOptions:
        values: dict[str, Any] = {
            "offset": self.offset.astype("f8"),
            "slope": self.slope.astype("f8"),
            "centre": self.centre.astype("f8"),
            "loss": "squared",
            "split": False,
            "correction": 0.0,
            "variance": self.variance.astype("f8"),
            "l2": self.l2.astype("f8"),
            "fit_intercept": True,
            "batch_tiles": 1,
            "batch_rows": 64.0,
            "step_first": 0.05,
            "step_last": 0.01,
            "average_from": 0,
            "seed": 3,
            "draw": 5,
        }
        return ReferenceOptions(**(values | changes))

    def reference_tiles(self) -> list[ReferenceTile]:
        tiles = []
        for c, t in self.refs.tolist():
            chunk = self.chunks[c]
            part = slice(t * TILE_ROWS, (t + 1) * TILE_ROWS)
            rows, columns = chunk.header.rows, chunk.header.columns
            codes = unpack_codes(chunk.codes, rows, columns, self.quantizer.stored_bits)[part]
            scale = chunk.upper[part].astype("f8") if chunk.lower is None else None
            tiles.append(
                ReferenceTile(
                    codes,
                    self.targets[c][part].astype("f8"),
                    scale,
                    chunk.header.first_tile + t,
                )
            )
        return tiles

    def run(self, o: ReferenceOptions) -> tuple[Any, ...]:
        model, intercept = self.model.copy(), self.intercept.copy()
        model_sum = np.zeros(self.model.shape)
        intercept_sum = np.zeros(self.outputs)
        loss_sum, rows, averaged = self.batch.sgd(
            model=model,
            intercept=intercept,
            model_sum=model_sum,
            intercept_sum=intercept_sum,
            loss=o.loss,
            arithmetic="float",
            split=o.split,
            correction=o.correction,
            variance=self.variance,
            l2=self.l2,
            fit_intercept=o.fit_intercept,
            batch_tiles=o.batch_tiles,
            batch_rows=o.batch_rows,
            step_first=o.step_first,
            step_last=o.step_last,
            average_from=o.average_from,
            seed=o.seed,
            draw=o.draw,
        )
        return model, intercept, model_sum, intercept_sum, loss_sum, rows, averaged


quantizers = st.builds(
    Quantizer,
    bits=st.integers(1, 8),
    samples=st.sampled_from([1, 2]),
    scale=st.sampled_from(["column", "row", "row-l2"]),
    seed=st.integers(0, 2**64 - 1),
)
cases = st.builds(
    Case,
    rows=st.lists(st.integers(1, 200), min_size=1, max_size=3),
    columns=st.integers(1, 40),
    quantizer=quantizers,
    outputs=st.integers(1, 3),
    seed=st.integers(0, 1000),
)


@settings(max_examples=60)
@given(case=cases)
def test_margins_agree_with_the_reference(case: Case) -> None:
    out = np.empty((case.batch.rows, case.outputs), "f4")
    case.batch.margins(case.model, case.intercept, out)
    expected = np.concatenate(
        [
            margins(t, case.options(), case.model.astype("f8"), case.intercept.astype("f8"))
            for t in case.reference_tiles()
        ]
    )
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-4)


@settings(max_examples=60)
@given(case=cases)
def test_gradient_agrees_with_the_reference(case: Case) -> None:
    residual = (
        np.random.default_rng(0).standard_normal((case.batch.rows, case.outputs)).astype("f4")
    )
    out = np.empty((case.outputs, case.columns))
    case.batch.gradient(residual, out)
    expected = np.zeros_like(out)
    start = 0
    for tile in case.reference_tiles():
        rows = len(tile.codes)
        expected += gradient(tile, case.options(), residual[start : start + rows].astype("f8"))
        start += rows
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-3)


@settings(max_examples=80)
@given(
    case=cases,
    loss=st.sampled_from(["squared", "logistic"]),
    split=st.booleans(),
    correction=st.floats(0, 1),
    batch_rows=st.sampled_from([5.0, 64.0, 192.0]),
    fit_intercept=st.booleans(),
    batch_tiles=st.integers(1, 3),
    average_from=st.integers(0, 4),
)
def test_sgd_agrees_with_the_reference(case: Case, split: bool, **changes: Any) -> None:
    split = split and case.quantizer.samples == 2
    o = case.options(split=split, **changes)
    model, intercept, model_sum, intercept_sum, loss_sum, rows, averaged = case.run(o)
    expected = sgd(case.reference_tiles(), o, case.model.astype("f8"), case.intercept.astype("f8"))
    assert rows == case.batch.rows
    assert averaged == max(0, -(-len(case.refs) // o.batch_tiles) - o.average_from)
    scale = 1 + float(np.abs(expected[0]).max())
    np.testing.assert_allclose(model, expected[0], rtol=1e-4, atol=2e-4 * scale)
    np.testing.assert_allclose(intercept, expected[1], rtol=1e-4, atol=2e-4 * scale)
    np.testing.assert_allclose(model_sum, expected[2], rtol=1e-3, atol=2e-3 * scale)
    np.testing.assert_allclose(intercept_sum, expected[3], rtol=1e-3, atol=2e-3 * scale)
    np.testing.assert_allclose(loss_sum, expected[4], rtol=1e-3, atol=1e-1 * scale**2)


def test_split_and_mean_forms_have_the_same_expected_gradient() -> None:
    """Averaged over the draws of the split, the paper's form is the mean form less the parity.

    Where a code sum is odd the two samples differ; averaging the split over the two ways gives
    q1 q2 in place of the squared mean: exactly (step / 2)^2 less on the diagonal.
    """
    case = Case([128], 6, Quantizer(bits=2, samples=2, seed=8), outputs=1, seed=2)
    tiles = case.reference_tiles()
    o = case.options(l2=np.zeros(6))
    case.l2[:] = 0
    whole: dict[str, Any] = {
        "batch_tiles": 2, "batch_rows": 128.0, "step_first": 1.0, "step_last": 1.0
    }  # fmt: skip
    base = case.options(split=False, **whole)
    mean_step = case.run(base)[0] - case.model
    steps = []
    for draw in range(4000):
        split = case.options(split=True, correction=1.0, draw=draw, **whole)
        steps.append(case.run(split)[0] - case.model)
    odd = np.mean([np.mean(t.codes % 2, axis=0) for t in tiles], axis=0)
    expected = mean_step + odd * np.square(o.slope) * case.model
    error = np.mean(steps, axis=0) - expected
    deviation = np.std(steps, axis=0) / np.sqrt(len(steps))
    # Six standard errors over six columns: a false alarm has probability below 1e-7.
    assert (np.abs(error) <= 6 * deviation + 1e-6).all()


def test_values_of_the_affine_map_are_the_decoded_values() -> None:
    case = Case([130], 5, Quantizer(bits=5, samples=2), outputs=1, seed=1)
    decoded = case.chunks[0].decode_rows(0, 130)
    order = np.argsort(case.refs[:, 1])
    tiles = [case.reference_tiles()[i] for i in order]
    values = np.concatenate([affine_values(t, t.codes, case.options()) for t in tiles])
    np.testing.assert_allclose(values + case.centre, decoded, atol=1e-5)


def test_runs_repeat_bit_for_bit() -> None:
    case = Case([300, 77], 33, Quantizer(bits=4, samples=2), outputs=2, seed=4)
    for split in (False, True):
        first, second = (case.run(case.options(split=split, correction=0.5)) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiles": np.array([[0, 9]], np.uint32)}, "outside of its chunk"),
        ({"tiles": np.array([[3, 0]], np.uint32)}, "outside of its chunk"),
        ({"codes": [np.zeros(5, np.uint8)]}, "wrong size"),
        ({"targets": [np.zeros((99, 1), "f4")]}, "wrong size"),
        ({"slope": np.zeros(3, "f4")}, "one entry a column"),
        ({"stored_bits": 10}, "1..9"),
        ({"row_scales": [np.zeros(2, "f4")]}, "one row scale"),
    ],
)
def test_sizes_are_checked_before_anything_is_read(change: dict[str, Any], message: str) -> None:
    case = Case([64], 4, Quantizer(), outputs=1, seed=0)
    arguments: dict[str, Any] = {
        "codes": [case.chunks[0].codes],
        "targets": case.targets,
        "row_scales": [None],
        "first_tiles": np.zeros(1, np.uint64),
        "tiles": case.refs,
        "offset": case.offset,
        "slope": case.slope,
        "centre": case.centre,
        "stored_bits": 4,
        "outputs": 1,
    }
    with pytest.raises(ValueError, match=message):
        TileBatch(**(arguments | change))

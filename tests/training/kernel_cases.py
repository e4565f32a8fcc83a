"""Random or given codes as packed tiles, for the native training kernels and their reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from zipml_codecs import TILE_ROWS
from zipml_codecs import reference_sgd as reference
from zipml_codecs._native import TileBatch, codes_size, live_simd, select_simd, simd_levels
from zipml_codecs.reference import _pack_tile
from zipml_codecs.reference_sgd import ReferenceOptions, ReferenceTile

LEVELS: list[str] = simd_levels()
NUMBER_LOSSES = ["squared", "huber"]
CLASS_LOSSES = ["logistic", "hinge", "squared-hinge", "ls-svm"]
LOSSES = [*NUMBER_LOSSES, *CLASS_LOSSES, "softmax"]
FIRST_TILE = 2**32 - 2  # the halves of a tile's number both matter


@contextmanager
def simd(name: str) -> Iterator[None]:
    """Run with one instruction set, and put back the one before."""
    before = live_simd()
    select_simd(name)
    try:
        yield
    finally:
        select_simd(before)


def on_every_level(f: Callable[[], tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    out = {}
    for name in LEVELS:
        with simd(name):
            out[name] = f()
    return out


def packed(codes: np.ndarray, stored_bits: int) -> np.ndarray:
    parts = [
        _pack_tile(codes[i : i + TILE_ROWS].astype(np.int64), stored_bits)
        for i in range(0, len(codes), TILE_ROWS)
    ]
    out = np.concatenate(parts)
    assert len(out) == codes_size(*codes.shape, stored_bits)
    return out


class KernelCase:
    """Chunks of codes with all that the kernels need; what is not given is random.

    `samples` is 2 for sums of codes. No writer makes a sum with all bits set, but a kernel may
    meet it in a chunk that was tampered with: a third of the cases have it. With `class_codes` a
    row's target is the number of one output; with `weighted` rows count 0 to 3 times.
    """

    def __init__(
        self,
        rows: list[int],
        columns: int,
        stored_bits: int,
        *,
        outputs: int = 1,
        seed: int = 0,
        samples: int = 1,
        row_scales: bool = False,
        tables: str | None = None,
        codes: int | None = None,
        shuffle: bool = True,
        class_codes: bool = False,
        weighted: bool = False,
        **given: Any,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.rows, self.columns, self.outputs = rows, columns, outputs
        self.stored_bits, self.samples = stored_bits, samples
        top = (1 << stored_bits) - (2 if samples == 2 and seed % 3 else 1)
        self.codes = [
            np.full((n, columns), codes) if codes is not None else
            rng.integers(0, top + 1, (n, columns))
            for n in rows
        ]  # fmt: skip
        self.targets = [rng.integers(0, 2, (n, outputs)).astype("f4") for n in rows]
        self.row_scales = [
            rng.uniform(0.1, 3, n).astype("f4") if row_scales else None for n in rows
        ]
        self.tables = None
        highest = top
        if tables:
            highest = int(np.iinfo(tables).max)
            self.tables = rng.integers(0, highest + 1, (columns, 1 << stored_bits)).astype(tables)
        self.offset = rng.uniform(-2, -1, columns).astype("f4")
        self.slope = (rng.uniform(2, 4, columns) / highest).astype("f4")
        self.slope[rng.random(columns) < 0.1] = 0  # columns of one value
        self.centre = rng.normal(0, 0.5, columns).astype("f4")
        self.model = rng.normal(0, 1 / np.sqrt(max(columns, 1)), (outputs, columns)).astype("f4")
        self.intercept = rng.normal(0, 1, outputs).astype("f4")
        self.variance = rng.uniform(0, 0.3, columns).astype("f4")
        self.variance[self.slope == 0] = 0
        self.l2 = rng.uniform(0, 0.1, columns).astype("f4")
        tiles = [(c, t) for c, n in enumerate(rows) for t in range(-(-n // TILE_ROWS))]
        self.tiles = np.array(tiles, np.uint32).reshape(-1, 2)
        if shuffle:
            rng.shuffle(self.tiles)
        self.packed = None
        if class_codes:
            self.targets = [rng.integers(0, outputs, (n, 1)).astype("f4") for n in rows]
        self.weights = [rng.choice([0, 0.25, 1, 3], n).astype("f4") for n in rows if weighted]
        for name, value in given.items():
            assert hasattr(self, name)
            setattr(self, name, value)
        counts = [-(-n // TILE_ROWS) for n in rows]
        self.first_tiles = FIRST_TILE + np.cumsum([0, *counts[:-1]]).astype(np.uint64)
        self.batch = self.tile_batch()

    def __repr__(self) -> str:
        kind = None if self.tables is None else self.tables.dtype
        return (
            f"KernelCase({self.rows}, {self.columns}, bits={self.stored_bits}, "
            f"outputs={self.outputs}, samples={self.samples}, tables={kind}, "
            f"row_scales={self.row_scales[0] is not None}, targets={self.targets[0].shape[1]}, "
            f"weighted={bool(self.weights)})"
        )

    def tile_batch(self, **changes: Any) -> TileBatch:
        arguments: dict[str, Any] = {
            "codes": self.packed or [packed(z, self.stored_bits) for z in self.codes],
            "targets": self.targets,
            "row_scales": self.row_scales,
            "first_tiles": self.first_tiles,
            "tiles": self.tiles,
            "offset": self.offset,
            "slope": self.slope,
            "centre": self.centre,
            "stored_bits": self.stored_bits,
            "outputs": self.outputs,
            "tables": self.tables,
            "weights": self.weights,
        }
        return TileBatch(**(arguments | changes))

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
            "batch_tiles": len(self.tiles),
            "batch_rows": float(max(sum(self.rows), 1)),
            "step_first": 0.5,
            "step_last": 0.1,
            "average_from": 0,
            "seed": 2**63 + 2**31 + 11,
            "draw": 5,
            "arithmetic": "float",
            "stored_bits": self.stored_bits,
            "tables": self.tables,
        }
        return ReferenceOptions(**(values | changes))

    def reference_tiles(self) -> list[ReferenceTile]:
        tiles = []
        for c, t in self.tiles.tolist():
            part = slice(t * TILE_ROWS, (t + 1) * TILE_ROWS)
            scale = self.row_scales[c]
            tiles.append(
                ReferenceTile(
                    self.codes[c][part],
                    self.targets[c][part].astype("f8"),
                    None if scale is None else scale[part].astype("f8"),
                    int(self.first_tiles[c]) + t,
                    self.weights[c][part].astype("f8") if self.weights else None,
                )
            )
        return tiles

    def run(self, o: ReferenceOptions) -> tuple[Any, ...]:
        """Model, intercept, their sums, loss sum, rows and the number of averaged models."""
        model, intercept = self.model.copy(), self.intercept.copy()
        model_sum, intercept_sum = np.zeros(model.shape), np.zeros(self.outputs)
        names = (
            "loss arithmetic split correction fit_intercept batch_tiles batch_rows step_first "
            "step_last average_from seed draw huber_delta"
        )
        loss_sum, rows, averaged = self.batch.sgd(
            model=model,
            intercept=intercept,
            model_sum=model_sum,
            intercept_sum=intercept_sum,
            variance=o.variance.astype("f4"),
            l2=o.l2.astype("f4"),
            **{name: getattr(o, name) for name in names.split()},
        )
        return model, intercept, model_sum, intercept_sum, loss_sum, rows, averaged


def assert_same_bits(results: dict[str, tuple[Any, ...]]) -> tuple[Any, ...]:
    """All instruction sets gave the same bits; any NaN equals any other."""
    first, *others = results.items()
    for name, other in others:
        for a, b in zip(first[1], other, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{first[0]} against {name}")
            assert np.array_equal(np.signbit(a) | np.isnan(a), np.signbit(b) | np.isnan(b))
    return first[1]


def start(case: KernelCase) -> tuple[np.ndarray, np.ndarray]:
    return case.model.astype("f8"), case.intercept.astype("f8")


def agrees(case: KernelCase, o: ReferenceOptions) -> None:
    """One mini-batch of the kernel and of the reference.

    Single precision moves a residual by a few 1e-6 of the largest, so 4e-6 `largest` of a step,
    and so often it is rounded the other way: in int8 once in some 2000 numbers, in int16 once in
    eight. Each time the gradient moves by one step times one value. Two numbers (of up to 600) may
    differ in int8, and a quarter of them and two in int16, all in the same direction: 3 % and
    0.5 % of what a single row may add, where a wrong scale, sign, column or digit changes the
    gradient as a whole. The test below, on whole numbers, admits none.
    """
    assert o.batch_tiles >= len(case.tiles)
    got = case.run(o)
    expected = reference.sgd(case.reference_tiles(), o, *start(case))
    tiles = case.reference_tiles()
    residual = 2 * max(np.abs(reference.margins(t, o, *start(case))).max() + 1 for t in tiles)
    residual *= 2.0 if o.loss == "squared-hinge" else 1.0
    if o.loss in ("logistic", "softmax", "hinge", "huber"):
        residual = 2.0 * max(o.huber_delta, 1.0)
    residual *= max(w.max() for w in case.weights) if case.weights else 1.0
    by_scale = max(reference.scales(t).max() for t in tiles)
    value = np.max([np.abs(reference.unscaled(t.codes, o)).max(axis=0) for t in tiles], axis=0)
    flips = {"float": 0.0, "int8": 2.0, "int16": 2 + sum(case.rows) / 4}[o.arithmetic]
    step = residual * by_scale / reference.largest_number(o)
    admitted = o.step_first / o.batch_rows * flips * step * (value + np.abs(o.centre))
    scale = 1 + float(np.abs(expected[0]).max())
    single = 1e-4 * np.abs(expected[0]) + 1e-4 * scale
    assert (np.abs(got[0] - expected[0]) <= admitted + single).all()
    assert (np.abs(got[2] - expected[2]) <= admitted + single).all()
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-4, atol=1e-4 * scale)
    np.testing.assert_allclose(got[3], expected[3], rtol=1e-4, atol=1e-4 * scale)
    np.testing.assert_allclose(got[4], expected[4], rtol=1e-3, atol=1e-3 * sum(case.rows))

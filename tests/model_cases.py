"""Models with random parts, and what makes two of them equal."""

from __future__ import annotations

import numpy as np

from zipml_ooc.model import LinearModel

ARRAYS = ("coef", "intercept", "mean", "scale")


def make(outputs=1, d=3, *, loss="squared", classes=None, **parts):
    rng = np.random.default_rng(outputs * 100 + d)
    defaults = {
        "loss": loss,
        "coef": rng.standard_normal((outputs, d)),
        "intercept": rng.standard_normal(outputs),
        "columns": tuple(f"c{j}" for j in range(d)),
        "mean": rng.standard_normal(d),
        "scale": rng.uniform(0.5, 2, d),
        "targets": tuple(f"t{j}" for j in range(outputs)),
        "classes": classes,
        "encoder": {"columns": [{"name": "c0", "levels": ["a", "é"]}], "version": 1},
        "record": {"epochs": 3, "loss": [0.5, 0.25], "seed": None},
    }
    return LinearModel(**(defaults | parts))


def assert_same(a: LinearModel, b: LinearModel) -> None:
    for name in ARRAYS:
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype == right.dtype == np.float64
        assert left.tobytes() == right.tobytes() and left.shape == right.shape
    for name in ("loss", "columns", "targets", "classes", "encoder", "record"):
        assert getattr(a, name) == getattr(b, name)
    if a.classes is not None:
        assert [type(c) for c in a.classes] == [type(c) for c in b.classes]

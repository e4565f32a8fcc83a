"""A small part of `python -m benchmarks.accelerator`: few bits against 32, to the same loss."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("benchmarks.accelerator")

from benchmarks.accelerator.learners import Course, Float32, Quantised, Table, make_table
from benchmarks.accelerator.search import Budget, fastest, final_loss, search
from zipml_ooc.gateware.profiles import PROFILES

BUDGET = Budget(epochs=(1, 2, 3), steps=(2.0**-5, 2.0**-6, 2.0**-7), batches=(1,), seeds=1)


@pytest.fixture(scope="module")
def table() -> Table:
    return make_table("synthetic", None)


def test_four_bits_reach_the_loss_of_full_precision_in_a_fraction_of_the_time(table: Table) -> None:
    board, seconds = PROFILES["pynq-z1"], {}
    for learner in (Float32(table), Quantised(table, 4)):
        best = fastest(learner, search(learner, 1.01, BUDGET), board)
        assert best is not None and best.loss <= 1.01
        seconds[learner.bits] = best.course.epochs * learner.epoch(best.course, board).seconds
    # An epoch moves 808 / 104 times as many bytes; epochs may differ by one.
    assert 808 / 104 / 2 <= seconds[32] / seconds[4] <= 808 / 104 * 2


def test_a_course_that_gets_lost_reaches_nothing(table: Table) -> None:
    budget = replace(BUDGET, steps=(4.0,), epochs=(2,))
    full = Float32(table)
    assert final_loss(full, Course(20, 4.0), 1) == math.inf
    assert search(full, 1.01, budget) == []
    assert fastest(full, [], PROFILES["harp"]) is None


def test_a_delayed_course_meets_the_model_of_the_step_before() -> None:
    """Two mini-batches of one column: the second gradient is that of the first model."""
    x, y = np.ones((128, 1), np.float32), np.full(128, 2, np.float32)
    full = Float32(Table("t", x, y, 1.0))
    prompt, delayed = (next(full.losses(Course(1, 0.1, 1, d), 0)) for d in (False, True))
    # A gradient of -2 for both numbers: each moves by 0.2, and their sum by 0.4.
    assert delayed == pytest.approx(0.5 * (2 - 0.8) ** 2, rel=1e-5)
    assert prompt == pytest.approx(0.5 * (2 - 0.4 - 2 * 0.1 * 1.6) ** 2, rel=1e-5)

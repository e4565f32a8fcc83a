"""Sizes and numbers as they are shown."""

from __future__ import annotations

import math

from cli_cases import strict
from zipml_cli.render import size


def test_sizes_read_well():
    assert [size(n) for n in (0, 999, 1000, 15_400, 1_300_000, 2 * 10**12)] == [
        "0 bytes", "999 bytes", "1.00 kB", "15.4 kB", "1.30 MB", "2.00 TB",
    ]  # fmt: skip
    assert all(size(10**n) for n in range(22))


def test_numbers_that_are_not_finite_become_null(capsys):
    from zipml_cli.render import print_json

    print_json({"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}})
    assert strict(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": {"d": None}}

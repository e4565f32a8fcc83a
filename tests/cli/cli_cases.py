"""What tests of the command line share beside their fixtures."""

from __future__ import annotations

import json


def strict(text: str) -> dict:
    """One JSON object and nothing else, without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value

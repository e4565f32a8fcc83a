"""Tables of measurements and the claims that they bear on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Cell", "Claim", "Findings"]

Cell = str | int | float


@dataclass(frozen=True)
class Claim:
    """A sentence, whether the table bears it out, and the number that decides."""

    text: str
    holds: bool
    found: str

    def __str__(self) -> str:
        return f"{'HOLDS' if self.holds else 'DOES NOT HOLD'}: {self.text} ({self.found})"


@dataclass(frozen=True)
class Findings:
    """A table, what was counted in it, and the claims.

    Attributes
    ----------
    title, method : str
    columns : dict of str to str
        Heading of each column and the format of its cells.
    rows : list of tuples
        Numbers as they were measured; NaN where a run was stopped or a goal not reached.
    claims : list of Claim
    """

    title: str
    method: str
    columns: dict[str, str]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    def where(self, **values: Cell) -> list[dict[str, Cell]]:
        """Rows with these cells, as dictionaries."""
        named = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return [row for row in named if all(row[key] == value for key, value in values.items())]

    def __str__(self) -> str:
        cells = [
            [_cell(c, f) for c, f in zip(r, self.columns.values(), strict=True)] for r in self.rows
        ]
        lines = [self.title, *(f"  {line}" for line in self.method.splitlines()), ""]
        lines += [
            f"  {line}" for line in _aligned([list(self.columns), *cells], self.columns.values())
        ]
        return "\n".join([*lines, "", *(f"  {claim}" for claim in self.claims)])


def _cell(value: Cell, spec: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "-"
    return format(value, spec)


def _aligned(table: list[list[str]], formats: Sequence[str] | object) -> list[str]:
    specs = list(formats)  # type: ignore[call-overload]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if spec else cell.ljust(width)
            for cell, width, spec in zip(row, widths, specs, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines

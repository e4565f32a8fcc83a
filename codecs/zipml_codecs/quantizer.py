"""What a quantiser does, as one frozen description that both codecs and the header share."""

from __future__ import annotations

import operator
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

__all__ = ["LEVELS", "NAN_POLICIES", "SCALES", "TILE_ROWS", "Quantizer"]

TILE_ROWS = 64
"""Rows of a tile; chunks that start at a multiple of it share their draws with any chunking."""

SCALES = ("column", "row", "row-l2")
NAN_POLICIES = ("error", "mean")
LEVELS = ("uniform", "optimal")


@dataclass(frozen=True)
class Quantizer:
    """Stochastic quantiser (ZipML, sections 2.1 and 3; arXiv 1611.05402).

    Parameters
    ----------
    bits : int
        1 to 8: a value is rounded to one of ``2**bits`` levels.
    samples : int
        1, or 2 for double sampling: the sum of two independent codes is stored, in ``bits + 1``
        bits, and decodes as the mean of the two samples.
    scale : {"column", "row", "row-l2"}
        ``column``: levels span the smallest to the largest value of each column of a chunk.
        ``row``: they span minus to plus the row's largest magnitude; ``row-l2``: minus to plus
        the row's l2 norm.
    seed : int
        Key of the counter-based generator, 0 to ``2**64 - 1``.
    nan : {"error", "mean"}
        ``error`` refuses NaN; ``mean`` puts the mean of the column's finite values in its place
        (the chunk records how many). Infinite values are always refused.
    levels : {"uniform", "optimal"}
        ``uniform``: equally spaced; ``optimal``, for ``scale="column"``: those with the least
        rounding variance, on a fine grid between the bounds of the column.
    """

    bits: int = 4
    samples: int = 1
    scale: str = "column"
    seed: int = 0
    nan: str = "error"
    levels: str = "uniform"

    def __post_init__(self) -> None:
        for name in ("bits", "samples", "seed"):
            value = getattr(self, name)
            try:
                if isinstance(value, bool):
                    raise TypeError
                object.__setattr__(self, name, operator.index(value))
            except TypeError:
                raise TypeError(f"{name} must be an integer, got {value!r}") from None
        if not 1 <= self.bits <= 8:
            raise ValueError(f"bits must lie in 1..8, got {self.bits}")
        if self.samples not in (1, 2):
            raise ValueError(f"samples must be 1 or 2, got {self.samples}")
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}; got {self.scale!r}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must lie in 0..2**64-1, got {self.seed}")
        if self.nan not in NAN_POLICIES:
            raise ValueError(f"nan must be one of {', '.join(NAN_POLICIES)}; got {self.nan!r}")
        if self.levels not in LEVELS:
            raise ValueError(f"levels must be one of {', '.join(LEVELS)}; got {self.levels!r}")
        if self.levels == "optimal" and self.by_row:
            raise ValueError(
                f"optimal levels go with scale 'column' only, not with {self.scale!r}: "
                "a row has too few values to fit levels to"
            )

    @property
    def stored_bits(self) -> int:
        """Bits of a stored code: ``bits``, and one more for the sum of two samples."""
        return self.bits + self.samples - 1

    @property
    def intervals(self) -> int:
        """Number of intervals between levels, ``2**bits - 1``."""
        return (1 << self.bits) - 1

    @property
    def by_row(self) -> bool:
        """Whether every row has its own scale."""
        return self.scale != "column"

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain JSON values; what readers of 1.0 do not know only if used."""
        options = asdict(self)
        if self.levels == "uniform":
            del options["levels"]
        return options

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        """Build from `to_dict`'s form; an unknown option is an error that names it."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(config) - known)
        if unknown:
            raise ValueError(
                f"zipml.quantize has no option {', '.join(map(repr, unknown))}; "
                f"known: {', '.join(sorted(known))}"
            )
        return cls(**config)

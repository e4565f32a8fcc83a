"""What a quantiser does, as one frozen description that both codecs and the header share."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

__all__ = ["LAYOUTS", "LEVELS", "NAN_POLICIES", "SCALES", "TILE_ROWS", "Quantizer"]

TILE_ROWS = 64
"""Rows of a tile; chunks that start at a multiple of it share their draws with any chunking."""

SCALES = ("column", "row", "row-l2")
NAN_POLICIES = ("error", "mean")
LEVELS = ("uniform", "optimal")
LAYOUTS = ("packed", "weaved")
_PRECISIONS = (1, 2, 4, 8)
_SAMPLES = (1, 2, 4, 8)
_MOST_STORED_BITS = 8  # of more than two samples


@dataclass(frozen=True)
class Quantizer:
    """Stochastic quantiser (ZipML, sections 2.1 and 3; arXiv 1611.05402).

    Parameters
    ----------
    bits : int
        1 to 8: a value is rounded to one of ``2**bits`` levels.
    samples : int
        1, or 2 for double sampling: the sum of two independent codes is stored, in ``bits + 1``
        bits, and decodes as the mean of the two samples. Or 4 or 8, in ``bits + 2`` or
        ``bits + 3`` bits, at most 8, with the packed layout and ``scale="column"``.
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
    layout : {"packed", "weaved"}
        ``packed``: each code in one piece, read at `bits` bits. ``weaved``, for column scales and
        equally spaced levels: each bit in a plane of its own, read at any of `precisions`, and
        there are ``2**bits + 1`` levels, those of every precision among them.
    precisions : sequence of int
        With ``layout="weaved"``: how many bits a reader may take; `bits` is always among them. By
        default 1, 2, 4 and 8, as far as `bits` goes. Each has samples of its own.
    """

    bits: int = 4
    samples: int = 1
    scale: str = "column"
    seed: int = 0
    nan: str = "error"
    levels: str = "uniform"
    layout: str = "packed"
    precisions: tuple[int, ...] = ()

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
        if self.samples not in _SAMPLES:
            raise ValueError(f"samples must be 1, 2, 4 or 8, got {self.samples}")
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
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {self.layout!r}")
        object.__setattr__(self, "precisions", self._checked_precisions(self.precisions))
        if self.samples > 2:
            self._check_many_samples()

    def _check_many_samples(self) -> None:
        if self.by_row or self.weaved:
            raise ValueError(
                f"{self.samples} samples go with scale 'column' and layout 'packed', got "
                f"{self.scale!r} and {self.layout!r}: take 1 or 2"
            )
        if self.stored_bits > _MOST_STORED_BITS:
            raise ValueError(
                f"{self.bits} bits x {self.samples} samples take {self.stored_bits} stored bits, "
                f"more than {_MOST_STORED_BITS}: take at most "
                f"{_MOST_STORED_BITS - self.stored_bits + self.bits} bits, or fewer samples"
            )

    def _checked_precisions(self, given: Sequence[int]) -> tuple[int, ...]:
        if not self.weaved:
            if len(given):
                raise ValueError("precisions go with layout 'weaved': a packed code is read whole")
            return ()
        if self.by_row or self.levels != "uniform":
            raise ValueError(
                "layout 'weaved' goes with scale 'column' and levels 'uniform', got "
                f"{self.scale!r} and {self.levels!r}"
            )
        try:
            asked = [operator.index(k) for k in given] or [k for k in _PRECISIONS if k < self.bits]
        except TypeError:
            raise TypeError(f"precisions must be integers, got {given!r}") from None
        if not all(1 <= k <= self.bits for k in asked):
            raise ValueError(f"precisions must lie in 1..{self.bits}, the bits; got {given!r}")
        return tuple(sorted({*asked, self.bits}))

    @property
    def stored_bits(self) -> int:
        """Bits that a value takes.

        ``bits``, and one, two or three more for the sum of two, four or eight samples; weaved: its
        planes, ``bits`` and the samples of each precision.
        """
        if self.weaved:
            return self.bits + self.samples * len(self.precisions)
        return self.bits + self.samples.bit_length() - 1

    @property
    def intervals(self) -> int:
        """Number of intervals between levels, ``2**bits - 1``; weaved: ``2**bits``."""
        return (1 << self.bits) - (0 if self.weaved else 1)

    @property
    def weaved(self) -> bool:
        """Whether bits lie in planes."""
        return self.layout == "weaved"

    def at(self, precision: int) -> Quantizer:
        """Return what a weaved chunk is to a reader at a precision: one stored for that alone."""
        return replace(self, bits=precision, precisions=(precision,))

    @property
    def by_row(self) -> bool:
        """Whether every row has its own scale."""
        return self.scale != "column"

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain JSON values; what readers of 1.0 do not know only if used."""
        options = asdict(self)
        if self.levels == "uniform":
            del options["levels"]
        if self.weaved:
            options["precisions"] = list(self.precisions)
        else:
            del options["layout"], options["precisions"]
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

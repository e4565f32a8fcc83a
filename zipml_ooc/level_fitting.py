"""Levels that fit a source, from histograms that the pass for statistics fills on the way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from zipml_codecs import LevelHistograms, Quantizer
from zipml_codecs.levels import default_bins
from zipml_codecs.tables import FittedLevels, fit_levels

from .statistics import ColumnStatistics

__all__ = ["LevelGatherer"]


class LevelGatherer:
    """Counts the values of a source block by block.

    Levels do not change with the units of a column, so values are counted as the source has them,
    not standardised. What comes out depends on the values alone.

    Parameters
    ----------
    columns : int
    quantizer : Quantizer
        For its bits and samples.
    missing : bool
        Whether there may be NaN. They are left out when they are counted, column by column, and
        stand at their column's mean, where they will be stored.
    """

    def __init__(self, columns: int, quantizer: Quantizer, *, missing: bool) -> None:
        self._quantizer, self._missing = quantizer, missing
        bins = default_bins(columns)
        widths = [1] * columns if missing else [columns]
        self._histograms = [LevelHistograms(width, bins) for width in widths]

    def update(self, values: npt.NDArray[np.float64]) -> None:
        """Count the values of some rows."""
        if not self._missing:
            self._histograms[0].add(values)
            return
        for histogram, column in zip(self._histograms, values.T, strict=True):
            histogram.add(column[~np.isnan(column)][:, None])

    def merge(self, other: LevelGatherer) -> None:
        """Count what another one has counted, which may become part of this one."""
        pairs = zip(self._histograms, other._histograms, strict=True)
        self._histograms = [_merged(mine, theirs) for mine, theirs in pairs]

    def fit(self, statistics: ColumnStatistics) -> FittedLevels:
        """Find the levels, once every row has been counted."""
        return fit_levels(
            self._histograms, self._quantizer, at=statistics.mean, more=statistics.missing
        )


def _merged(mine: LevelHistograms, theirs: LevelHistograms) -> LevelHistograms:
    if not mine.rows:  # nothing to add to: bins are not gone through
        return theirs
    mine.merge(theirs)
    return mine

"""What one way to train gave: the same for all sides."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

__all__ = ["ENOUGH", "Run", "Way"]

ENOUGH = 0.01
"""How far above the best loss is close enough."""


@dataclass(frozen=True)
class Run:
    """One run.

    `read_seconds` is the part of each epoch that went into reading, where it can be told apart;
    `seconds_to_enough` the time at which the model was close enough, scoring not counted, None
    where it was not or was not asked.
    """

    name: str
    epoch_seconds: tuple[float, ...]
    read_seconds: tuple[float, ...]
    bytes_per_epoch: int
    values: int
    excess: float | None
    seconds_to_enough: float | None


@dataclass(frozen=True)
class Way:
    """The runs of one way to train; times are medians."""

    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """Of the way."""
        return self.runs[0].name

    @property
    def epoch(self) -> float:
        """Seconds of an epoch."""
        return statistics.median(s for run in self.runs for s in run.epoch_seconds)

    @property
    def reading(self) -> float | None:
        """Seconds of an epoch that go into reading."""
        parts = [s for run in self.runs for s in run.read_seconds]
        return statistics.median(parts) if parts else None

    @property
    def to_enough(self) -> float | None:
        """Seconds to a model that is close enough."""
        times = [run.seconds_to_enough for run in self.runs]
        known = [time for time in times if time is not None]
        return statistics.median(known) if len(known) == len(times) else None

    @property
    def values_per_second(self) -> float:
        """Values of an epoch by its seconds: tables of different sizes compare by this."""
        return self.runs[0].values / self.epoch

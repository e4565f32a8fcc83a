"""How many rounds to compute in one go.

Between two goes a run can be saved, interrupted and shown; each go costs a way to the workers and
back. So a go should take a second or two, whatever a round takes here. What is computed does not
depend on it.
"""

from __future__ import annotations

__all__ = ["Pace"]

_SECONDS = 2.0
_FIRST, _GROWTH, _MOST = 2, 4, 256


class Pace:
    """Learns from the goes so far.

    Parameters
    ----------
    every : float, optional
        Seconds between checkpoints: a go takes half of them at most.
    """

    def __init__(self, every: float | None = None) -> None:
        self._seconds = min(_SECONDS, _SECONDS if every is None else every / 2)
        self._rounds = _FIRST

    def next_rounds(self, left: int) -> int:
        """Rounds of the next go, of so many that are left."""
        return min(self._rounds, left)

    def took(self, rounds: int, seconds: float) -> None:
        """Note how long a go took."""
        fitting = int(rounds * self._seconds / max(seconds, 1e-9))
        self._rounds = max(1, min(fitting, rounds * _GROWTH, _MOST))

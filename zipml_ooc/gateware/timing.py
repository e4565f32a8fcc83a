"""The accelerator's clock cycles: what its counters hold after a run whose beats never wait.

docs/accelerator.md, "Timing", derives the formula; simulations of the gateware are what it is
tested on.
"""

from __future__ import annotations

from .formats import Format

__all__ = ["run_beats", "run_cycles", "run_stalls"]

_ENDS = 3  # cycles of a run's start and of its end
_HOST = 8  # from the start to the first beat, where the host reads STATUS in between


def run_beats(form: Format, columns: int, tiles: int) -> int:
    """Beats that a run takes."""
    return tiles * (columns + form.target_beats)


def run_stalls(
    form: Format, columns: int, tiles: int, batch_tiles: int = 1, *, delayed: bool = False
) -> int:
    """Cycles in which a beat has to wait for a mini-batch's update."""
    wait = 0 if delayed else max(form.update_wait - form.target_beats, 0)
    return (-(-tiles // batch_tiles) - 1) * wait


def run_cycles(
    form: Format, columns: int, tiles: int, batch_tiles: int = 1, *, delayed: bool = False
) -> int:
    """Cycles of a run from its start to its end.

    Parameters
    ----------
    form : Format
    columns, tiles, batch_tiles : int
    delayed : bool

    Examples
    --------
    >>> run_cycles(Format(bits=4), columns=784, tiles=200)
    162399
    """
    waits = run_stalls(form, columns, tiles, batch_tiles, delayed=delayed)
    return _HOST + _ENDS + run_beats(form, columns, tiles) + waits + columns + form.update_wait

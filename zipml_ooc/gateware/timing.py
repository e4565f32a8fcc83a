"""The accelerator's clock cycles: what its counters hold after a run whose beats never wait.

docs/accelerator.md, "Timing", derives the formula; simulations of the gateware are what it is
tested on.
"""

from __future__ import annotations

from .formats import LOGISTIC_LATENCY, Format, Loss

__all__ = ["run_beats", "run_cycles", "run_stalls", "update_wait"]

_ENDS = 5  # cycles of a run's start and of its end
_HOST = 9  # from the start to the first beat, where the host reads STATUS in between


def run_beats(form: Format, columns: int, tiles: int) -> int:
    """Beats that a run takes."""
    return tiles * (columns + form.target_beats)


def update_wait(form: Format, loss: Loss) -> int:
    """Cycles from a mini-batch's last beat to the first that meets the new model."""
    return form.update_wait + LOGISTIC_LATENCY * (loss == Loss.LOGISTIC)


def run_stalls(
    form: Format,
    columns: int,
    tiles: int,
    batch_tiles: int = 1,
    *,
    delayed: bool = False,
    loss: Loss = Loss.SQUARED,
) -> int:
    """Cycles in which a beat has to wait for a mini-batch's update."""
    wait = 0 if delayed else max(update_wait(form, loss) - form.target_beats, 0)
    return (-(-tiles // batch_tiles) - 1) * wait


def run_cycles(
    form: Format,
    columns: int,
    tiles: int,
    batch_tiles: int = 1,
    *,
    delayed: bool = False,
    loss: Loss = Loss.SQUARED,
) -> int:
    """Cycles of a run from its start to its end.

    Parameters
    ----------
    form : Format
    columns, tiles, batch_tiles : int
    delayed : bool
    loss : Loss

    Examples
    --------
    >>> run_cycles(Format(bits=4), columns=784, tiles=200)
    162402
    """
    waits = run_stalls(form, columns, tiles, batch_tiles, delayed=delayed, loss=loss)
    beats, last = run_beats(form, columns, tiles), columns + update_wait(form, loss)
    return _HOST + _ENDS + beats + waits + last

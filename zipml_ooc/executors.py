"""What computes on encoded tiles on this machine: so far the native core."""

from __future__ import annotations

from dataclasses import dataclass

from zipml_codecs import _native

from .errors import UsageError
from .training.options import ARITHMETICS

__all__ = ["ExecutorInfo", "check_simd", "executors"]


@dataclass(frozen=True)
class ExecutorInfo:
    """An executor and what it can do here.

    Attributes
    ----------
    name : str
    simd : str
        The instruction set that is live: the best that the processor runs, or what the
        environment variable ``ZIPML_SIMD`` asks for.
    simd_levels : tuple of str
        All that this machine runs, best first. Every one computes the same bits.
    arithmetics : tuple of str
        What `TrainOptions.arithmetic` may be.
    """

    name: str
    simd: str
    simd_levels: tuple[str, ...]
    arithmetics: tuple[str, ...]


def check_simd() -> str:
    """Name of the live instruction set.

    Raises
    ------
    UsageError
        ``ZIPML_SIMD`` asks for one that this machine does not run.
    """
    try:
        return str(_native.live_simd())
    except ValueError as error:
        raise UsageError(str(error)) from error


def executors() -> list[ExecutorInfo]:
    """List the executors that this machine has."""
    live = check_simd()
    return [ExecutorInfo("native", live, tuple(_native.simd_levels()), ARITHMETICS[1:])]

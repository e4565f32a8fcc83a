"""What the native core runs on: the instruction sets of this machine."""

from __future__ import annotations

from zipml_codecs import _native

from ..errors import UsageError

__all__ = ["check_simd", "simd_levels"]


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


def simd_levels() -> tuple[str, ...]:
    """All instruction sets that this machine runs, best first. Every one computes the same bits."""
    return tuple(_native.simd_levels())

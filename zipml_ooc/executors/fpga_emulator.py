"""The executor `fpga-emulator`: the accelerator's arithmetic natively, and its time by a model."""

from __future__ import annotations

from ..errors import UsageError
from ..gateware.driver import Device
from ..gateware.emulator import Emulator
from ..gateware.formats import Format
from ..gateware.profiles import PROFILES, get_profile
from .fpga import FpgaExecutor
from .protocol import Option, Settings

__all__ = ["executor"]

_PROFILE = Option(
    "profile",
    str,
    "the board whose clock, memory and link seconds are modelled for",
    "pynq-z1",
    tuple(PROFILES),
)


def _make(form: Format, device: str | None, settings: Settings) -> Device:
    return Emulator(form, get_profile(settings["profile"]))


def _fit(form: Format, settings: Settings) -> None:
    profile = get_profile(settings["profile"])
    most = profile.columns_limit(form)
    if form.columns_limit > most:
        raise UsageError(
            f"executor fpga-emulator: {profile.title} has block RAM for {most} columns of "
            f"{form.bits} stored bits, and the dataset has more: choose another profile"
        )


def executor() -> FpgaExecutor:
    """Make it."""
    return FpgaExecutor(
        "fpga-emulator",
        "the arithmetic of the accelerator on this processor, with modelled cycles and seconds",
        _make,
        lambda: None,
        options=(_PROFILE,),
        resource=None,
        fit=_fit,
    )

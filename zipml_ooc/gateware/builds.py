"""The gateware made for a device, in a folder: Verilog, reports, and ``build.json`` about them.

`build` writes such a folder, whole or not at all, and `read_build` reads it again. What a build can
do with a link of some bandwidth is its `roofline`, and on known boards `profile_rooflines`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from ..partial import Partial
from .formats import Format
from .profiles import PROFILES, modelled
from .tools import NEXTPNR, YOSYS, require_extra

__all__ = ["DEVICES", "Build", "Roof", "build", "profile_rooflines", "read_build", "roofline"]

ECP5, ZYNQ = "ecp5-85", "zynq-7020"
DEVICES = {
    ECP5: "ECP5-85, speed grade 8",
    ZYNQ: "Zynq-7020, speed grade 1: sources for Vivado, which was not run",
}
_AIM_MHZ = {ECP5: 160.0, ZYNQ: 100.0}
_ABOUT = "build.json"


@dataclass(frozen=True)
class Build:
    """The gateware for a device.

    Attributes
    ----------
    device : str
        One of `DEVICES`.
    bits, lanes, depth : int
        See `Format`.
    frequency_mhz : float
        What was aimed at.
    seed : int or None
        Of the placer.
    clock_mhz : float or None
        What was reached; None where nothing was placed.
    used : dict
        Used and available cells: ``lut``, ``register``, ``multiplier``, ``memory``.
    tools : dict
        Versions of what made it.
    """

    device: str
    bits: int
    lanes: int
    depth: int
    frequency_mhz: float
    seed: int | None
    clock_mhz: float | None
    used: dict[str, tuple[int, int]]
    tools: dict[str, str]

    @property
    def form(self) -> Format:
        """What the gateware is built for."""
        return Format(self.bits, self.lanes, self.depth)

    @property
    def codes_per_second(self) -> float:
        """A code for each lane in every cycle, at the clock reached or else at the one aimed at."""
        return (self.clock_mhz or self.frequency_mhz) * 1e6 * self.lanes

    @property
    def bytes_per_second(self) -> float:
        """What the stream carries then."""
        return self.codes_per_second * self.form.value_bits / 8


@dataclass(frozen=True)
class Roof:
    """The most that a build does behind a link, or on a board.

    Attributes
    ----------
    link_bytes : float
        Bytes a second of the link; of a board, those of its memory or its link, if that is slower.
    codes_per_second : float
    bound : str
        What sets the limit: "clock" or "link", on a board also "memory".
    gain : float
        As a multiple of the float32 values that would come the same way.
    profile : str or None
        Name of the board in `profiles`.
    """

    link_bytes: float
    codes_per_second: float
    bound: str
    gain: float
    profile: str | None = None


def roofline(made: Build, link_bytes: float) -> Roof:
    """The most codes a second behind a link of so many bytes a second.

    >>> made = Build("ecp5-85", 4, 64, 1024, 160, 1, 130.0, {}, {})
    >>> roof = roofline(made, 3e9)
    >>> roof.codes_per_second, roof.bound, roof.gain
    (6000000000.0, 'link', 8.0)
    >>> roofline(made, 13e9).bound
    'clock'
    """
    if not (math.isfinite(link_bytes) and link_bytes > 0):
        raise UsageError(f"a link has a bandwidth above 0 bytes a second, not {link_bytes:g}")
    of_link = link_bytes * 8 / made.form.value_bits
    codes = min(of_link, made.codes_per_second)
    bound = "link" if of_link < made.codes_per_second else "clock"
    return Roof(link_bytes, codes, bound, codes / (link_bytes / 4))


def profile_rooflines(made: Build) -> list[Roof]:
    """The most codes a second on each of the boards of `profiles`, at the clock that they assume.

    On the board with the device that it was placed for, the clock is the one that was reached.
    """
    roofs, beats = [], 1_000_000
    codes = beats * made.lanes
    for name, profile in PROFILES.items():
        board = profile
        if name == made.device and made.clock_mhz is not None:
            board = replace(profile, clock_hz=made.clock_mhz * 1e6)
        found = modelled(board, beats, codes * made.form.value_bits // 8)
        gain = modelled(board, 0, codes * 4).seconds / found.seconds
        link = min(board.memory_bytes_per_s, board.link_bytes_per_s)
        roofs.append(Roof(link, codes / found.seconds, found.bound_by, gain, name))
    return roofs


def build(
    dest: str | Path,
    form: Format,
    *,
    device: str = ECP5,
    seed: int | None = None,
    frequency_mhz: float | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Build:
    """Make the gateware for a device.

    Parameters
    ----------
    dest : path
        The folder that appears when all is done.
    form : Format
    device : str
        One of `DEVICES`. For ECP5 the gateware is synthesised, placed and routed; for Zynq, sources
        for Vivado are written and not run.
    seed : int, optional
        Of the placer; 1 by default. Vivado takes none.
    frequency_mhz : float, optional
        The clock to aim at; by default 160 for ECP5 and 100 for Zynq.
    force : bool
        Replace a build that is there.
    progress : callable, optional
        Told what is being done.

    Raises
    ------
    UsageError
        A wrong request, a missing extra, or the folder exists.
    ToolError
        Yosys or nextpnr failed.
    """
    say = progress or (lambda step: None)
    aim = _checked_request(device, seed, frequency_mhz)
    place_seed = (1 if seed is None else seed) if device == ECP5 else None
    modules = ["amaranth", YOSYS[0]] + ([NEXTPNR[0]] if device == ECP5 else [])
    require_extra("building the accelerator", *modules)
    from . import synthesis, zynq

    with _published(Path(dest), force=force) as folder:
        say("Verilog")
        synthesis.verilog(form, folder)
        clock: float | None = None
        used: dict[str, tuple[int, int]] = {}
        if place_seed is not None:
            say("synthesis, placing and routing")
            clock, used = synthesis.place(form, folder, frequency_mhz=aim, seed=place_seed)
        else:
            zynq.write_sources(form, folder, frequency_mhz=aim)
        made = Build(
            device,
            form.bits,
            form.lanes,
            form.depth,
            aim,
            place_seed,
            clock,
            used,
            _versions(modules),
        )
        (folder / _ABOUT).write_text(json.dumps(asdict(made), indent=2) + "\n")
    return made


def read_build(folder: str | Path) -> Build:
    """Read what `build` wrote about a folder.

    Raises
    ------
    UsageError
        There is no build.
    DataError
        Its description is damaged.
    """
    path = Path(folder) / _ABOUT
    try:
        facts = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{folder} is no build of the gateware: make one with zipml fpga build"
        ) from None
    except (ValueError, RecursionError):
        raise DataError(f"{path} is damaged: build again with --force") from None
    try:
        return _parsed(facts)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, UsageError) as error:
        raise DataError(f"{path} is damaged ({error}): build again with --force") from error


def _parsed(facts: dict[str, Any]) -> Build:
    """A build from what is stored, with everything of the type that it should have."""
    seed, clock = facts["seed"], facts["clock_mhz"]
    made = Build(
        device=str(facts["device"]),
        bits=int(facts["bits"]),
        lanes=int(facts["lanes"]),
        depth=int(facts["depth"]),
        frequency_mhz=_above_0(facts["frequency_mhz"]),
        seed=None if seed is None else int(seed),
        clock_mhz=None if clock is None else _above_0(clock),
        used={str(k): (int(used), int(there)) for k, (used, there) in facts["used"].items()},
        tools={str(name): str(text) for name, text in facts["tools"].items()},
    )
    if made.device not in DEVICES:
        raise ValueError(f"device {made.device!r}")
    for name, (used, there) in made.used.items():
        if not (used >= 0 and there > 0):
            raise ValueError(f"{name}: {used} of {there}")
    assert made.form  # a format that there is
    return made


def _above_0(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{value} MHz")
    return number


def _checked_request(device: str, seed: int | None, frequency_mhz: float | None) -> float:
    """The clock to aim at, if the rest makes sense too."""
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is unknown; choose one of {', '.join(DEVICES)}")
    if seed is not None and device != ECP5:
        raise UsageError(f"--seed is for {ECP5}: Vivado, which places for {device}, takes none")
    if seed is not None and not 0 <= seed < 1 << 31:
        raise UsageError(f"--seed is {seed}; choose a number from 0 to {(1 << 31) - 1}")
    aim = _AIM_MHZ[device] if frequency_mhz is None else frequency_mhz
    if not 1 <= aim <= 1000:
        raise UsageError(f"--frequency is {aim:g} MHz; choose one from 1 to 1000")
    return aim


def _versions(modules: list[str]) -> dict[str, str]:
    """Versions of installed packages."""
    found = {}
    for name in modules:
        try:
            found[name.replace("_", "-")] = version(name.replace("_", "-"))
        except PackageNotFoundError:  # on the path without having been installed
            found[name.replace("_", "-")] = "unknown"
    return found


@contextmanager
def _published(place: Path, *, force: bool) -> Iterator[Path]:
    """A folder that takes its name at the end, if all goes well.

    What a build left behind that was killed is put right by the next one.
    """
    place = place.absolute()
    if place.is_symlink():
        place = place.resolve()
    _require_free(place, force=force)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write in {place.parent}: {error.strerror or error}") from error
    beside = Partial(place, "build")
    with beside.locked():
        try:
            beside.recover()
            _require_free(place, force=force)  # a build that was moved aside may be back
            beside.clear()
            beside.data.mkdir()
            yield beside.data
            if place.exists() and not force:
                raise UsageError(f"{place} has appeared in the meantime: nothing was replaced")
            beside.publish()
        finally:
            beside.recover()
            beside.clear()


def _require_free(place: Path, *, force: bool) -> None:
    """Refuse a place where something is that a build may not replace."""
    if not place.exists():
        return
    if not force:
        raise UsageError(f"{place} exists: choose another folder, or --force to replace it")
    if not (place / _ABOUT).is_file():
        raise UsageError(f"{place} is no build of the gateware: --force does not replace it")

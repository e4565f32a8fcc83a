"""What a host does on the accelerator's bus: check, load, run, read back.

The bus is anything with `Bus`'s methods: the `simulation` has them, and so have boards behind their
`transports`. All that the driver does goes through these, as docs/accelerator.md says. What trains
knows a `Device` only, which the driver is, and which may be something without a bus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ExecutorError
from .formats import IDENTITY, VERSION, Error, Format, Register, Status, Table
from .reference import Program, State

__all__ = [
    "Bus",
    "Counters",
    "Device",
    "DeviceError",
    "Driver",
    "TransferError",
    "check_load",
    "check_status",
]

U8 = npt.NDArray[np.uint8]
_NOBODY = 0xFFFFFFFF  # what PCI Express gives for a device that is not there
_WORDS = {
    Error.EARLY_LAST: "a packet ended early",
    Error.MISSING_LAST: "a packet did not end where it should",
    Error.CONFIGURATION: "a setting is out of range",
}


class DeviceError(ExecutorError):
    """The accelerator is not the one that is expected, or a run did not come to its end."""


class TransferError(DeviceError):
    """Packets did not get through to the accelerator."""


def check_load(form: Format, program: Program, state: State) -> None:
    """Refuse what an accelerator of a format cannot hold.

    Raises
    ------
    DeviceError
        Codes or columns do not fit it, or a number does not fit its place.
    """
    columns = len(state.model) - 1
    if program.bits != form.bits:
        raise DeviceError(
            f"the accelerator is built for {form.bits} stored bits, the data have {program.bits}"
        )
    if columns < 0:
        raise DeviceError("a model without entries: it has one for the intercept at least")
    if columns > form.columns_limit:
        raise DeviceError(
            f"the accelerator holds {form.columns_limit} columns, the data have {columns}"
        )
    if not 0 <= state.seed < 1 << 64:
        raise DeviceError(f"a generator has 64 bits, the state's is {state.seed:#x}")
    for name, number, bits in (
        ("step", program.step, 16),
        ("shift", program.shift, 5),
        ("mini-batch's number of tiles", program.batch_tiles, 32),
        ("exponent", program.exponent, 8),
    ):
        if not 0 <= number < 1 << bits:
            raise DeviceError(f"the {name} is {number}, and its register has {bits} bits")
    for name, values, low, high in (
        ("model", state.model, -(1 << 15), (1 << 15) - 1),
        ("centres", program.centre, 0, (1 << 16) - 1),
        ("paces", program.pace, 0, (1 << 16) - 1),
        ("variances", program.variance, 0, (1 << 16) - 1),
    ):
        if len(values) != columns + 1:
            raise DeviceError(f"{len(values)} {name} for a model of {columns + 1} entries")
        if values.dtype.kind not in "iu":
            raise DeviceError(f"{name} are {values.dtype}: the accelerator holds whole numbers")
        if values.min() < low or values.max() > high:
            raise DeviceError(
                f"{name} from {values.min()} to {values.max()}: entries hold {low} to {high}"
            )


def check_status(status: int) -> None:
    """Raise a `DeviceError` if a status has an error."""
    for error, words in _WORDS.items():
        if status >> error & 1:
            raise DeviceError(f"the accelerator refused the run: {words} (STATUS {status:#x})")


def _refuse_busy(status: int) -> None:
    """Raise if a run is under way: tables and settings do not answer then."""
    if status >> Status.BUSY & 1:
        raise DeviceError(
            "the accelerator is busy with a run that has not come to its end: reset it first"
        )


class Bus(Protocol):
    """Registers and stream of an accelerator."""

    def read(self, address: int) -> int:
        """Read a word."""

    def write(self, address: int, value: int) -> None:
        """Write a word."""

    def stream(self, packet: U8) -> int:
        """Send a packet, or queue it; return how many of its beats were taken or queued."""

    def drain(self) -> bool:
        """Wait until all that is queued was taken; False if the accelerator takes no more."""

    def abort(self) -> None:
        """Drop what is queued and stop sending, ahead of a reset."""

    def close(self) -> None:
        """Let go of the accelerator; once more does nothing."""


@dataclass(frozen=True)
class Counters:
    """Of the last run.

    Attributes
    ----------
    cycles, beats, stalls : int
        As the registers of these names have them.
    more : mapping of str to float
        What else a device counts or works out, by its name, such as modelled seconds: numbers that
        can be added up over runs.
    """

    cycles: int
    beats: int
    stalls: int
    more: Mapping[str, float] = field(default_factory=dict)


class Device(Protocol):
    """What runs programs over packets, bit for bit as `reference` does.

    Methods raise a `DeviceError`, or another `ExecutorError`, where the device does not answer or
    stopped on the way. It is closed then, and another one is made.

    Attributes
    ----------
    form : Format
        What it is built for.
    """

    form: Format

    def load(self, program: Program, state: State) -> None:
        """Take settings, tables, model and generator."""

    def run(self, packets: Iterable[U8], tiles: int) -> Counters:
        """Take the packets of a run, so many tiles, to its end.

        Parameters
        ----------
        packets : iterable of (beats, bytes) uint8
            One for each tile, as `zipml_ooc.gateware.stream` makes them.
        tiles : int
        """

    def state(self, columns: int) -> State:
        """Give model, generator, and what was clipped in the last run."""

    def reset(self) -> None:
        """End a run and clear errors; settings and tables stay."""

    def close(self) -> None:
        """Let go of what it runs on; once more does nothing."""


class Driver:
    """An accelerator behind a bus.

    Raises
    ------
    DeviceError
        There is none, or one of another version.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        identity, version = bus.read(Register.IDENTITY), bus.read(Register.VERSION)
        if identity != IDENTITY:
            raise DeviceError(f"no accelerator answers: identity {identity:#010x}")
        if version >> 16 != VERSION >> 16:
            raise DeviceError(
                f"the bitstream has version {version >> 16}.{version & 0xFFFF} and this is the "
                f"driver of {VERSION >> 16}: build the bitstream again"
            )
        built = bus.read(Register.FORMAT)
        depth = bus.read(Register.COLUMNS_LIMIT) + 24
        self.form = Format(built & 0xFF, built >> 8 & 0xFF, depth)
        self._held: dict[Table, npt.NDArray[np.int64]] = {}

    def load(self, program: Program, state: State) -> None:
        """Write settings, tables, model and generator; entries that are there already stay."""
        bus, columns = self._bus, len(state.model) - 1
        check_load(self.form, program, state)
        self._check_idle()
        held, self._held = self._held, {}  # nothing is known of what is written by half
        for table, values in (
            (Table.MODEL, state.model),
            (Table.CENTRE, program.centre),
            (Table.PACE, program.pace),
            (Table.VARIANCE, program.variance),
        ):
            entries: npt.NDArray[np.intp] = np.arange(columns + 1)
            if table in held and len(held[table]) == len(values):
                entries = np.flatnonzero(held[table] != values)
            for entry in entries.tolist():
                bus.write((table << 16) + 4 * entry, int(values[entry]) & 0xFFFF)
            held[table] = np.array(values)
        for register, value in (
            (Register.COLUMNS, columns),
            (Register.BATCH_TILES, program.batch_tiles),
            (Register.STEP, program.step),
            (Register.SHIFT, program.shift),
            (Register.LOSS, program.loss),
            (Register.MODE, int(program.delayed)),
            (Register.EXPONENT, program.exponent),
            (Register.SEED_LOW, state.seed & 0xFFFFFFFF),
            (Register.SEED_HIGH, state.seed >> 32),
        ):
            bus.write(register, value)
        self._held = held

    def run(self, packets: Iterable[U8], tiles: int, *, patience: int = 100_000) -> Counters:
        """Stream the packets of a run and wait for its end.

        Parameters
        ----------
        packets : iterable of (beats, bytes) uint8
        tiles : int
            How many there are.
        patience : int
            How often STATUS is asked before the run is given up.
        """
        bus = self._bus
        if not 1 <= tiles < 1 << 32:
            raise DeviceError(f"a run of {tiles} tiles: its register holds 1 to {(1 << 32) - 1}")
        self._check_idle()
        self._held.pop(Table.MODEL, None)
        bus.write(Register.TILES, tiles)
        bus.write(Register.CONTROL, 1)
        check_status(self._status())
        try:
            for number, packet in enumerate(packets):
                if bus.stream(packet) < len(packet):
                    check_status(self._status())
                    raise DeviceError(f"the accelerator stopped taking beats in tile {number}")
            if not bus.drain():
                check_status(self._status())
                raise DeviceError("the accelerator stopped taking beats in the last tiles")
        except TransferError:
            check_status(self._status())  # a packet that was refused is the reason, if one was
            raise
        for _ in range(patience):
            status = self._status()
            check_status(status)
            if status >> Status.DONE & 1:
                return Counters(
                    self._wide(Register.CYCLES_LOW),
                    self._wide(Register.BEATS_LOW),
                    self._wide(Register.STALLS_LOW),
                )
        raise DeviceError(f"the run did not end: {tiles} tiles were sent, STATUS is {status:#x}")

    def state(self, columns: int) -> State:
        """Read model, generator, and what was clipped in the last run."""
        status = self._status()
        _refuse_busy(status)
        words = [self._bus.read((Table.MODEL << 16) + 4 * j) for j in range(columns + 1)]
        model = np.array(words, np.uint16).astype(np.int16).astype(np.int64)
        self._held[Table.MODEL] = model.copy()
        return State(
            model,
            self._wide(Register.SEED_LOW),
            bool(status >> Status.MODEL_SATURATED & 1),
            bool(status >> Status.RESIDUAL_SATURATED & 1),
        )

    def reset(self) -> None:
        """End a run and clear errors; settings and tables stay."""
        self._bus.abort()
        self._bus.write(Register.CONTROL, 2)

    def close(self) -> None:
        """Let go of the bus."""
        self._bus.close()

    def _status(self) -> int:
        """STATUS of an accelerator that is still there."""
        status = self._bus.read(Register.STATUS)
        if status == _NOBODY:
            raise DeviceError(
                "the accelerator is gone: its registers read as ones. Check the board and its "
                "power, and load the bitstream again"
            )
        return status

    def _check_idle(self) -> None:
        """Refuse what the accelerator would, which not every bus passes on."""
        status = self._status()
        for error in (Error.EARLY_LAST, Error.MISSING_LAST):
            if status >> error & 1:
                raise DeviceError(
                    f"the accelerator has stopped for good ({_WORDS[error]}; STATUS {status:#x}): "
                    "reset it first"
                )
        _refuse_busy(status)

    def _wide(self, low: Register) -> int:
        """A number of two words."""
        return self._bus.read(low) | self._bus.read(low + 4) << 32

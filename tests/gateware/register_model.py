"""A board as its host sees it: registers and a stream, over the emulator; faults when asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from zipml_ooc.gateware.driver import DeviceError
from zipml_ooc.gateware.emulator import Emulator
from zipml_ooc.gateware.formats import (
    IDENTITY,
    VERSION,
    Error,
    Format,
    Loss,
    Register,
    Status,
    Table,
)
from zipml_ooc.gateware.reference import Program, State


@dataclass
class RegisterModel:
    """Words at addresses, and packets; `stops` is set where no beat is taken any more.

    Attributes
    ----------
    log : list
        What was written and streamed, in order: ("write", address, value), ("packet", bytes).
    """

    form: Format
    words: dict[int, int] = field(default_factory=dict)
    log: list[tuple[object, ...]] = field(default_factory=list)
    status: int = 0
    pending: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        form = self.form
        self.fixed = {
            Register.IDENTITY: IDENTITY,
            Register.VERSION: VERSION,
            Register.FORMAT: form.target_beats << 16 | form.lanes << 8 | form.bits,
            Register.COLUMNS_LIMIT: form.columns_limit,
        }
        self.words = {**self.fixed, Register.BATCH_TILES: 1, Register.SEED_LOW: 1, **self.words}

    @property
    def stops(self) -> bool:
        """Whether a packet finds nobody who takes it."""
        return not self.status >> Status.BUSY & 1

    def read(self, address: int) -> int:
        """A word; an access that the gateware refuses is a failed test."""
        assert not (address >> 16 and self.status >> Status.BUSY & 1)
        return self.status if address == Register.STATUS else self.words.get(address, 0)

    def write(self, address: int, value: int) -> None:
        """Take a word."""
        self.log.append(("write", address, value))
        if address == Register.CONTROL and value & 2:
            self.status, self.pending = 0, []
            self.words |= {Register.SEED_LOW: 1, Register.SEED_HIGH: 0}
        elif address == Register.CONTROL:
            assert not self.status & (1 << Error.EARLY_LAST | 1 << Error.MISSING_LAST)
            self.status, self.pending = 1 << Status.BUSY, []
        else:
            assert address not in self.fixed
            assert not self.status >> Status.BUSY & 1
            self.words[address] = value

    def packet(self, data: bytes) -> None:
        """Take a packet of a run; with the last one the run comes to its end."""
        assert not self.stops
        self.log.append(("packet", data))
        beats = np.frombuffer(data, np.uint8).reshape(-1, self.form.beat_bits // 8)
        expected = self.words[Register.COLUMNS] + self.form.target_beats
        if len(beats) != expected:
            early = len(beats) < expected
            self.status = 1 << (Error.EARLY_LAST if early else Error.MISSING_LAST)
            return
        self.pending.append(beats)
        if len(self.pending) == self.words[Register.TILES]:
            self._run()

    def _table(self, table: Table) -> np.ndarray:
        entries = self.words[Register.COLUMNS] + 1
        return np.array([self.words.get((table << 16) + 4 * j, 0) for j in range(entries)])

    def _run(self) -> None:
        words, device = self.words, Emulator(self.form)
        program = Program(
            self.form.bits,
            words[Register.BATCH_TILES],
            words[Register.STEP],
            words[Register.SHIFT],
            self._table(Table.CENTRE),
            self._table(Table.PACE),
            self._table(Table.VARIANCE),
            bool(words[Register.MODE]),
            Loss(words[Register.LOSS]),
            words[Register.EXPONENT],
        )
        model = self._table(Table.MODEL).astype(np.uint16).astype(np.int16).astype(np.int64)
        seed = words[Register.SEED_HIGH] << 32 | words[Register.SEED_LOW]
        device.load(program, State(model, seed))
        try:
            counted = device.run(self.pending, len(self.pending))
        except DeviceError:
            self.status = 1 << Error.CONFIGURATION
            return
        found = device.state(len(model) - 1)
        for entry, value in enumerate(found.model.tolist()):
            words[(Table.MODEL << 16) + 4 * entry] = value & 0xFFFF
        for register, number in (
            (Register.SEED_LOW, found.seed),
            (Register.CYCLES_LOW, counted.cycles),
            (Register.BEATS_LOW, counted.beats),
            (Register.STALLS_LOW, counted.stalls),
        ):
            words[register], words[register + 4] = number & 0xFFFFFFFF, number >> 32
        self.status = (
            1 << Status.DONE
            | found.model_saturated << Status.MODEL_SATURATED
            | found.residual_saturated << Status.RESIDUAL_SATURATED
        )

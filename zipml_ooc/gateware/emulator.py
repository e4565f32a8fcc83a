"""The accelerator without its gateware: the same arithmetic in the native core, and its counters.

An `Emulator` is a `driver.Device`: it runs the programs and packets that a driver does, to the same
model, generator and flags, bit for bit. What is cycle by cycle in the gateware is a formula here
(`timing`): that of beats which never keep it waiting.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from zipml_codecs import _native

from . import sigmoid
from .driver import Counters, DeviceError, check_load, check_status
from .formats import (
    BATCH_TILES_LIMIT,
    DELAYED_COLUMNS,
    FEWEST_COLUMNS,
    Error,
    Format,
    Loss,
    Status,
)
from .profiles import Profile, modelled, modelled_float32, stream_bytes
from .reference import Program, State
from .timing import run_beats, run_cycles, run_stalls

__all__ = ["Emulator"]

U8 = npt.NDArray[np.uint8]


class Emulator:
    """An accelerator that computes natively.

    Parameters
    ----------
    form : Format
        Of codes, or of values in float32.
    profile : Profile, optional
        A board: counters then have in `more` what a run would take there, in all
        (``modelled_seconds``) and by clock, memory and link, and what the same rows at 32 bits a
        value would take (``modelled_float32_seconds``).

    Examples
    --------
    >>> import numpy as np
    >>> from zipml_ooc.gateware.formats import Format
    >>> from zipml_ooc.gateware.reference import Program, State, Tile
    >>> from zipml_ooc.gateware.stream import pack
    >>> form, entries = Format(bits=4), np.arange(9)
    >>> tile = Tile(np.ones((64, 8), int), np.full(64, 100))
    >>> emulator = Emulator(form)
    >>> emulator.load(Program(4, 1, 9000, 3, entries, entries, entries), State(entries, seed=1))
    >>> emulator.run([pack(tile, form)], tiles=1)
    Counters(cycles=58, beats=12, stalls=0, more={})
    """

    def __init__(self, form: Format, profile: Profile | None = None) -> None:
        self.form = form
        self.profile = profile
        self._model = np.zeros(form.columns_limit + 1, np.int16)
        self._program: Program | None = None
        self._tables: list[npt.NDArray[np.uint16]] = []
        self._columns = 0
        self._seed = 1
        self._status = 0

    def load(self, program: Program, state: State) -> None:
        """Take settings, tables, model and generator."""
        self._check_idle()
        check_load(self.form, program, state)
        self._program, self._columns = program, len(state.model) - 1
        self._tables = [
            np.array(table, np.uint16) for table in (program.centre, program.pace, program.variance)
        ]
        self._tables[0][0] = 0  # the gateware has no other
        self._model[: len(state.model)] = state.model
        self._seed = state.seed

    def run(self, packets: Iterable[U8], tiles: int) -> Counters:
        """Take the packets of a run, so many tiles, to its end.

        Parameters
        ----------
        packets : iterable of (beats, bytes) uint8
        tiles : int

        Raises
        ------
        DeviceError
            A setting is out of range, or packets are not as a driver would have to send them:
            then a `reset` has to follow.
        """
        self._check_idle()
        program, form, columns = self._program, self.form, self._columns
        if program is None or not self._is_sensible(program, tiles):
            check_status(1 << Error.CONFIGURATION)
            raise AssertionError
        model = self._model[: columns + 1]
        run = _native.FixedPointRun(
            form.bits,
            form.lanes,
            program.batch_tiles,
            program.step,
            program.shift,
            program.delayed,
            *self._tables,
            model,
            self._seed,
            int(program.loss),
            program.refinement if program.loss == Loss.LOGISTIC else 0,
            *(half.astype(np.int16) for half in sigmoid.table()),
        )
        self._status = 1 << Status.BUSY
        taken = 0
        for packet in packets:
            if taken == tiles:
                self._status = 1 << Status.DONE
                raise DeviceError(f"the accelerator stopped taking beats in tile {taken}")
            run.tiles(self._whole(packet).reshape(1, -1))
            taken += 1
        if taken < tiles:
            raise DeviceError(f"the run did not end: {taken} of {tiles} tiles were sent")
        run.finish()
        run.model(model)
        self._seed = run.seed
        self._status = (
            1 << Status.DONE
            | run.model_saturated << Status.MODEL_SATURATED
            | run.residual_saturated << Status.RESIDUAL_SATURATED
        )
        shape = form, columns, tiles
        batch, delayed, loss = program.batch_tiles, program.delayed, program.loss
        cycles = run_cycles(*shape, batch, delayed=delayed, loss=loss)
        stalls = run_stalls(*shape, batch, delayed=delayed, loss=loss)
        return Counters(cycles, run_beats(*shape), stalls, self._modelled(cycles, tiles))

    def _modelled(self, cycles: int, tiles: int) -> dict[str, float]:
        """What a run takes on the profile's board, in all and by clock, memory and link."""
        if self.profile is None:
            return {}
        size = stream_bytes(self.form, self._columns, tiles)
        own = modelled(self.profile, cycles, size)
        full = modelled_float32(self.profile, self._columns, tiles * self.form.lanes)
        return {
            "modelled_seconds": own.seconds,
            "modelled_clock_seconds": own.clock_seconds,
            "modelled_memory_seconds": own.memory_seconds,
            "modelled_link_seconds": own.link_seconds,
            "modelled_float32_seconds": full.seconds,
        }

    def state(self, columns: int) -> State:
        """Give model, generator, and what was clipped in the last run."""
        if columns > self.form.columns_limit:
            raise DeviceError(f"the accelerator holds {self.form.columns_limit} columns")
        return State(
            self._model[: columns + 1].astype(np.int64),
            self._seed,
            bool(self._status >> Status.MODEL_SATURATED & 1),
            bool(self._status >> Status.RESIDUAL_SATURATED & 1),
        )

    def reset(self) -> None:
        """End a run and clear errors; settings and tables stay, the generator is set to 1."""
        self._status, self._seed = 0, 1

    def close(self) -> None:
        """Do nothing: it holds nothing but memory."""

    def _check_idle(self) -> None:
        """Refuse to start, as the gateware does, after a run that came to no end."""
        check_status(self._status)
        if self._status >> Status.BUSY & 1:
            raise DeviceError("the accelerator is busy with a run that lacks packets: reset it")

    def _is_sensible(self, program: Program, tiles: int) -> bool:
        """Whether the gateware starts with these settings."""
        fewest = DELAYED_COLUMNS if program.delayed else FEWEST_COLUMNS
        return (
            self._columns >= fewest
            and 1 <= program.batch_tiles <= BATCH_TILES_LIMIT
            and 1 <= tiles < 1 << 32
            and self._seed != 0
            and (program.loss != Loss.LOGISTIC or 0 <= program.refinement <= 3)
        )

    def _whole(self, packet: U8) -> U8:
        """A packet of the right size."""
        beats = np.ascontiguousarray(packet, np.uint8)
        size = self.form.beat_bits // 8
        if beats.shape[1:] != (size,):
            raise DeviceError(f"beats of {size} bytes, not {beats.shape}")
        expected = self._columns + self.form.target_beats
        if len(beats) != expected:
            early = len(beats) < expected
            self._status = 1 << (Error.EARLY_LAST if early else Error.MISSING_LAST)
            check_status(self._status)
        return beats

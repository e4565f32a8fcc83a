"""Checkpoints of a run: when they are taken, which are kept, and whether a run may go on from one.

A run that goes on must be the run that was stopped: the same program, dataset and options. Where it
computes does not matter, and so is not asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..dataset_spec import DatasetSpec
from ..errors import DataError, UsageError
from .checkpoint_file import read_checkpoint, write_checkpoint
from .course import Course
from .options import TrainOptions
from .plan import Plan
from .replicas import State
from .signals import signals_ignored

__all__ = ["Checkpoints", "Keeper", "fingerprint", "parse_every"]

_NAME = re.compile(r"checkpoint-(\d{6,})\.zipml-checkpoint")
_EVERY = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smh])")
_UNITS = {"s": 1, "m": 60, "h": 3600}
_VERSION = 1


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a run is saved.

    Parameters
    ----------
    folder : path
        Made if it does not exist; one run, one folder.
    every : str or int
        An interval such as ``"30s"``, ``"5m"`` or ``"1h"``: the run is saved at the end of the
        round that completes it, also within an epoch. Or a number of epochs. A run is saved at its
        end, and when it is interrupted or fails, whatever this says.
    keep : int
        How many of the newest are kept.
    resume : bool
        Go on from the newest one that is whole; begin at the beginning if there is none.
    overwrite : bool
        Without `resume`: remove the checkpoints of an earlier run.
    """

    folder: str | os.PathLike[str]
    every: str | int = "60s"
    keep: int = 2
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not os.fspath(self.folder):  # pathlib takes it for the current folder
            raise UsageError("the folder of the checkpoints has an empty name: give one")
        parse_every(self.every)
        if self.keep < 1:
            raise UsageError(f"one checkpoint or more must be kept; got {self.keep}")


def parse_every(every: str | int) -> tuple[float | None, int | None]:
    """Seconds between checkpoints, or epochs; the other one is None.

    >>> parse_every("1.5m"), parse_every("3"), parse_every(3)
    ((90.0, None), (None, 3), (None, 3))
    """
    text = str(every).strip()
    if re.fullmatch(r"\d{1,9}", text) and int(text) > 0:
        return None, int(text)
    match = _EVERY.fullmatch(text)
    if match is None or float(match[1]) == 0:
        raise UsageError(
            "checkpoints are taken every so many seconds, minutes or hours (30s, 5m, 1h) or "
            f"epochs (2); got {every!r}"
        )
    return float(match[1]) * _UNITS[match[2]], None


def fingerprint(spec: DatasetSpec) -> str:
    """Digest of a dataset's attributes: levels, statistics, seed, source; not of its place."""
    text = json.dumps(spec.to_attributes(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


class Keeper:
    """Saves a run and finds where to go on.

    `notice` is told what a person should know: a damaged checkpoint, a disk that is full.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        spec: DatasetSpec,
        options: TrainOptions,
        notice: Callable[[str], None],
    ) -> None:
        if options.solver == "gram":
            raise UsageError(
                "solver gram takes no steps and has no checkpoints, a run that was stopped begins "
                "again: leave out --checkpoint"
            )
        self._folder, self._keep = Path(checkpoints.folder).absolute(), checkpoints.keep
        self.seconds, self._epochs = parse_every(checkpoints.every)
        self._notice = notice
        self._run: dict[str, Any] = {
            "version": _VERSION,
            "program": __version__,
            "dataset": fingerprint(spec),
            "options": options.to_dict(),
        }
        self._resume = checkpoints.resume
        self._saved: Course | None = None
        self._when = time.monotonic()
        self._damaged: list[Path] = []
        self._prepare(overwrite=checkpoints.overwrite)

    def _prepare(self, *, overwrite: bool) -> None:
        """See, before anything is computed, that checkpoints can be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in self._folder.glob(".checkpoint-*.tmp"):  # by a process that was killed
                left.unlink()
            if self._found() and not self._resume and not overwrite:
                raise UsageError(
                    f"{self._folder} holds checkpoints of an earlier run: go on from them with "
                    "--resume, give another folder, or begin anew with --force"
                )
            probe = self._folder / f".checkpoint-{os.getpid()}.tmp"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"checkpoints cannot be written to {self._folder}: {error.strerror or error}"
            ) from error

    def _found(self) -> list[Path]:
        """Files of checkpoints, oldest first."""
        return sorted(
            (path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)), key=_number
        )

    def load(self, plan: Plan, begun: State) -> Course | None:
        """Find where a run goes on that has this plan and begins there; None: at the beginning.

        Raises
        ------
        UsageError
            The checkpoints are those of another run.
        DataError
            There are some, and none of them is whole.
        """
        self._plan = plan
        self._run["plan"] = asdict(plan)
        found = self._found()
        if not self._resume:
            for path in found:  # those of an earlier run, which may go
                path.unlink()
            return None
        if not found:
            self._notice(f"there is no checkpoint in {self._folder}: beginning at the beginning")
            return None
        for path in reversed(found):
            try:
                tree = read_checkpoint(path)
                self._require_same(tree["run"])
                course = Course.from_tree(tree["course"])
                course.require_arrays_of(begun)
                place = course.place(plan)
            except (DataError, KeyError, TypeError, AttributeError, ValueError) as error:
                what = error if isinstance(error, DataError) else f"it lacks a part ({error!r})"
                self._damaged.append(path)
                self._notice(f"checkpoint {path} is left out: {what}")
                continue
            self._saved = course
            self._notice(f"going on from {path.name}: {place}")
            return course
        raise DataError(
            f"none of the {len(found)} checkpoint(s) in {self._folder} is whole: begin anew with "
            "--force and without --resume"
        )

    def _require_same(self, there: dict[str, Any]) -> None:
        """Say what differs between the run that was saved and this one."""
        here = json.loads(json.dumps(self._run))
        whose = f"the checkpoints in {self._folder} are of"
        theirs, ours = (f"{run['program']} (checkpoints {run['version']})" for run in (there, here))
        if theirs != ours:
            raise UsageError(
                f"{whose} zipml-ooc {theirs} and this is {ours}: go on with that version, or begin "
                "anew in another folder"
            )
        if there["dataset"] != here["dataset"]:
            raise UsageError(
                f"{whose} another dataset: give the one that the run began with, or another folder"
            )
        for kind in ("options", "plan"):
            other = [
                f"{name.replace('_', ' ')} {there[kind].get(name)} there and "
                f"{here[kind].get(name)} here"
                for name in here[kind] | there[kind]
                if there[kind].get(name) != here[kind].get(name)
            ]
            if other:
                raise UsageError(
                    f"{whose} a run with other options ({'; '.join(other)}): give the same, or "
                    "another folder"
                )

    def passed(self, course: Course) -> None:
        """Save the run if it is time to; what cannot be written is said, and the run goes on."""
        if self.seconds is not None:
            due = time.monotonic() - self._when >= self.seconds
        else:
            assert self._epochs is not None
            due = course.rounds is None and course.epoch % self._epochs == 0 and course.epoch > 0
        if (due or course.settled) and course is not self._saved:
            self._save(course, "goes on")

    def leave(self, course: Course) -> None:
        """Save the run as it stands, because it is about to stop, and say how to go on."""
        with signals_ignored():
            saved = course is self._saved or self._save(course, "stops")
        if saved:
            self._notice(
                f"the run is saved in {self._folder}: {course.place(self._plan)}; the same command "
                "with --resume goes on from there"
            )

    def _save(self, course: Course, then: str) -> bool:
        try:
            self._folder.mkdir(exist_ok=True)
            everything = self._found()
            last = max((_number(path) for path in everything), default=0)
            path = self._folder / f"checkpoint-{last + 1:06d}.zipml-checkpoint"
            write_checkpoint(path, {"run": self._run, "course": course.to_tree()})
        except OSError as error:
            self._when = time.monotonic()
            self._notice(
                f"the run could not be saved in {self._folder}, and {then}: "
                f"{error.strerror or error}"
            )
            return False
        found = [path for path in everything if path not in self._damaged]
        self._saved, self._when = course, time.monotonic()
        for old in [*self._damaged, *found[: max(0, len(found) + 1 - self._keep)]]:
            with contextlib.suppress(OSError):
                old.unlink()
        self._damaged = []
        return True

"""Replicas of a model: what they hold, what they send after a round, and how they are merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..executors.protocol import Counters
from .channels import Channel, Packed
from .executing import Lost, added, first_lost
from .plan import Step
from .problem import F32, F64, Problem
from .refetching import NOTHING, Reread
from .sizes import Sized

__all__ = ["Sent", "State", "initial_state", "merge", "outset", "send"]

_MODEL, _MEAN, _VELOCITY = range(3)  # vectors of a replica, for the draws that round them


@dataclass(frozen=True)
class State(Sized):
    """A model in training, and what has been summed up on the way.

    Attributes
    ----------
    model : (outputs, columns) float32, intercept : (outputs,) float32
    model_sum, intercept_sum : float64
        Sums of the averaged iterates.
    velocity, intercept_velocity : float32 or None
        Smoothed gradients, with momentum.
    averaged : int
        How many iterates have been summed.
    loss_sum : float
        Loss of each row with the model before its mini-batch, rounding bias removed.
    rows : float
        How often the rows counted together.
    bytes_read : int
    reread : Reread
        Rows that were read again.
    counters : Counters or None
        What an executor has counted.
    lost : Lost or None
        Where it was given up.
    """

    model: F32
    intercept: F32
    model_sum: F64
    intercept_sum: F64
    velocity: F32 | None = None
    intercept_velocity: F32 | None = None
    averaged: int = 0
    loss_sum: float = 0.0
    rows: float = 0
    bytes_read: int = 0
    reread: Reread = NOTHING
    counters: Counters | None = None
    lost: Lost | None = None

    def estimate(self) -> tuple[F64, F64]:
        """The averaged model, or the last iterate where nothing was averaged."""
        if self.averaged == 0:
            return self.model.astype(np.float64), self.intercept.astype(np.float64)
        return self.model_sum / self.averaged, self.intercept_sum / self.averaged

    def without_counts(self) -> State:
        """The same model with loss, rows and bytes counted from zero."""
        return replace(
            self,
            loss_sum=0.0,
            rows=0,
            bytes_read=0,
            reread=NOTHING,
            counters=None,
            lost=None,
        )


@dataclass(frozen=True)
class Sent(Sized):
    """A replica's change over a window, as it travels.

    Attributes
    ----------
    model : Packed
        Of the model.
    mean : Packed or None
        From the model at the start to the mean of the iterates that are averaged.
    velocity : Packed or None
    rest : State
        Intercepts and counts, exact, and empty arrays for what is packed.
    """

    model: Packed
    mean: Packed | None
    velocity: Packed | None
    rest: State


def initial_state(problem: Problem, *, momentum: float = 0.0) -> State:
    """All zeros."""
    shape = (problem.outputs, problem.columns)
    moving = momentum > 0
    return State(
        np.zeros(shape, np.float32),
        np.zeros(problem.outputs, np.float32),
        np.zeros(shape),
        np.zeros(problem.outputs),
        np.zeros(shape, np.float32) if moving else None,
        np.zeros(problem.outputs, np.float32) if moving else None,
    )


def outset(state: State) -> State:
    """What replicas need to begin a round: not what has been summed up before."""
    none = np.zeros(0)
    begun = replace(state, model_sum=none, intercept_sum=none, averaged=0)
    return begun.without_counts()


def send(channel: Channel | None, start: State, end: State, step: Step) -> State | Sent:
    """Round what a replica has to tell, if there is a channel; `end` has sums of its own alone."""
    if channel is None:
        return end

    def pack(values: F64, vector: int) -> Packed:
        return channel.pack(values, draw=step.epoch, window=step.window, vector=vector)

    begun = start.model.astype(np.float64)
    mean = velocity = None
    if end.averaged:
        mean = pack(end.model_sum / end.averaged - begun, _MEAN)
    if end.velocity is not None and start.velocity is not None:
        velocity = pack(end.velocity.astype(np.float64) - start.velocity, _VELOCITY)
    none = np.zeros(0)
    rest = replace(end, model=none.astype(np.float32), model_sum=none, velocity=None)
    return Sent(pack(end.model - begun, _MODEL), mean, velocity, rest)


def receive(channel: Channel, start: State, sent: Sent) -> State:
    """Put a replica together again from the model it began with and its rounded change."""
    begun = start.model.astype(np.float64)
    model_sum, velocity = np.zeros(begun.shape), None
    if sent.mean is not None:
        model_sum = sent.rest.averaged * (begun + channel.unpack(sent.mean))
    if sent.velocity is not None and start.velocity is not None:
        velocity = (start.velocity + channel.unpack(sent.velocity)).astype(np.float32)
    model = (begun + channel.unpack(sent.model)).astype(np.float32)
    return replace(sent.rest, model=model, model_sum=model_sum, velocity=velocity)


def merge(start: State, ends: Sequence[State | Sent], channel: Channel | None = None) -> State:
    """Average the replicas of a round, in their order, and add up what they have summed."""
    states = [receive(_given(channel), start, e) if isinstance(e, Sent) else e for e in ends]
    one = len(states) == 1
    return State(
        states[0].model if one else _mean([e.model for e in states]),
        states[0].intercept if one else _mean([e.intercept for e in states]),
        start.model_sum + np.sum([e.model_sum for e in states], axis=0),
        start.intercept_sum + np.sum([e.intercept_sum for e in states], axis=0),
        _mean_or_none([e.velocity for e in states]),
        _mean_or_none([e.intercept_velocity for e in states]),
        start.averaged + sum(e.averaged for e in states),
        start.loss_sum + sum(e.loss_sum for e in states),
        start.rows + sum(e.rows for e in states),
        start.bytes_read + sum(e.bytes_read for e in states),
        sum((e.reread for e in states), start.reread),
        added(start.counters, *(e.counters for e in states)),
        first_lost(start.lost, *(e.lost for e in states)),
    )


def _given(channel: Channel | None) -> Channel:
    if channel is None:
        raise ValueError("what came through a channel needs it to be read")
    return channel


def _mean(parts: Sequence[F32]) -> F32:
    return np.asarray(np.mean([p.astype(np.float64) for p in parts], axis=0), np.float32)


def _mean_or_none(parts: Sequence[F32 | None]) -> F32 | None:
    present = [p for p in parts if p is not None]
    return _mean(present) if present else None

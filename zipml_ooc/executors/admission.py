"""Whether an executor takes a training problem, and what to change where it does not."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .protocol import Capabilities, Executor, Option, Settings

if TYPE_CHECKING:
    from ..dataset_spec import DatasetSpec
    from ..training.options import TrainOptions
    from ..training.problem import Problem

__all__ = ["lacking", "parse_settings", "require", "resolved_arithmetic"]

_TRUE, _FALSE = ("yes", "true", "on", "1"), ("no", "false", "off", "0")


def parse_settings(executor: Executor, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all options of an executor, those that are not given at their default.

    Parameters
    ----------
    executor : Executor
    given : mapping
        Of the right types, or as text.

    Raises
    ------
    UsageError
        An option that it does not have, or a value that is none.
    """
    known = {option.name: option for option in executor.capabilities().options}
    for name in given:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"executor {executor.name} has no option {name!r}: {has}")
    values = {name: _parsed(executor.name, known[name], value) for name, value in given.items()}
    return {name: option.default for name, option in known.items()} | values


def _parsed(executor: str, option: Option, value: Any) -> Any:
    found = value
    if isinstance(value, str) and option.kind is bool:
        word = value.strip().lower()
        found = True if word in _TRUE else False if word in _FALSE else value
    elif isinstance(value, str) and option.kind is not str:
        with contextlib.suppress(ValueError):
            found = option.kind(value)
    elif option.kind is float and type(value) is int:
        found = float(value)
    fits = type(found) is option.kind and (not option.choices or found in option.choices)
    if not fits or (option.kind is float and not math.isfinite(found)):
        kinds = {int: "a whole number", float: "a number", bool: "yes or no", str: "a text"}
        wanted = ", ".join(map(str, option.choices)) or kinds.get(option.kind, str(option.kind))
        raise UsageError(
            f"executor {executor}: option {option.name} must be {wanted}; got {value!r}"
        )
    return found


def resolved_arithmetic(executor: Executor, problem: Problem, options: TrainOptions) -> str:
    """What an executor multiplies codes by, for this problem."""
    arithmetics = executor.capabilities().arithmetics
    if options.arithmetic == "auto" and problem.arithmetic not in arithmetics:
        return arithmetics[0]
    return problem.arithmetic if options.arithmetic == "auto" else options.arithmetic


def require(
    executor: Executor,
    spec: DatasetSpec,
    problem: Problem,
    options: TrainOptions,
    settings: Settings,
) -> None:
    """See to it that an executor takes a problem of a dataset.

    Raises
    ------
    UsageError
        One line: what does not go, and what to change.
    """
    able = executor.capabilities()
    for what, remedy in lacking(able, spec, problem, options):
        raise UsageError(f"executor {executor.name} does not take {what}: {remedy}")
    executor.check(problem, options, settings)


def _among(choices: Sequence[object]) -> str:
    return " or ".join(map(str, choices))


def lacking(
    able: Capabilities, spec: DatasetSpec, problem: Problem, options: TrainOptions
) -> list[tuple[str, str]]:
    """All that an executor cannot do of a problem, each with what to change."""
    p, out = problem, []
    weighted = spec.weight is not None or options.class_weight != "none"
    bits = p.precision if p.woven else p.stored_bits
    layout = "weaved" if p.woven else "packed"
    levels = "uniform" if p.tables is None else "optimal"
    scale = "row" if spec.quantizer.by_row else "column"
    estimator = "refetch" if p.finer else p.estimator
    again = "compress the source again with"
    for value, choices, what, remedy in (
        (p.loss, able.losses, f"the {p.loss} loss", f"use --loss {_among(able.losses)}"),
        (options.solver, able.solvers, f"--solver {options.solver}",
         f"use --solver {_among(able.solvers)}"),
        (layout, able.layouts, f"the {layout} layout",
         f"{again} --layout {_among(able.layouts)}"),
        (levels, able.levels, f"{levels} levels",
         f"{again} --levels {_among(able.levels)}"),
        (scale, able.scales, f"scales by {scale}",
         f"{again} --scale {_among(able.scales)}"),
        (p.samples, able.samples, f"{p.samples} sample(s) of a value",
         f"{again} --samples {_among(able.samples)}"),
        (bits, able.stored_bits, f"codes of {bits} stored bits",
         f"{again} --bits and --samples that give {_among(able.stored_bits)} stored bits"),
        (estimator, able.estimators, _ESTIMATORS[estimator][0],
         _ESTIMATORS[estimator][1]),
    ):  # fmt: skip
        if value not in choices:
            out.append((what, remedy))
    if options.arithmetic not in ("auto", *able.arithmetics):
        out.append((f"{options.arithmetic} arithmetic", "leave out --arithmetic and --model-bits"))
    for there, taken, what, remedy in (
        (p.outputs > 1, able.outputs, f"{p.outputs} outputs", "use a target of its own for each"),
        (weighted, able.weights, "weights of rows",
         f"{again[:-5]} without --weight, and leave out --class-weight"),
        (options.momentum > 0, able.momentum, "momentum", "leave out --momentum"),
        (options.l1 > 0, "l1" in able.penalties, "an L1 penalty", "leave out --l1"),
        (options.l2 > 0, "l2" in able.penalties, "an L2 penalty", "leave out --l2"),
    ):  # fmt: skip
        if there and not taken:
            out.append((what, remedy))
    if able.columns_limit is not None and p.columns > able.columns_limit:
        out.append((f"{p.columns} columns", f"it takes up to {able.columns_limit}"))
    if p.columns < able.fewest_columns:
        out.append((f"{p.columns} column(s)", f"it takes {able.fewest_columns} and more"))
    limit = able.batch_tiles_limit
    if limit is not None and options.batch_tiles > limit:
        rows = options.batch_rows
        out.append((f"mini-batches of {rows} rows", f"use --batch-rows {64 * limit} or less"))
    return out


_ESTIMATORS = {
    "mean": ("the mean form", "use --double-form split"),
    "split": ("the split form of double sampling", "use --double-form mean"),
    "polynomial": ("polynomial gradients", "use --gradient auto"),
    "refetch": ("rows that are read again", "use --gradient auto"),
}

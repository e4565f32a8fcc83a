"""The commands about what computes: executors, executors check."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt
from .executor_options import ExecutorOptions, pairs
from .render import one_line, print_facts, print_json

if TYPE_CHECKING:
    from zipml_ooc.executors import Capabilities, ExecutorInfo
    from zipml_ooc.testing.executor_suite import Result

app = typer.Typer(rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})


@app.callback(invoke_without_command=True)
def executors(context: typer.Context, json: opt.Json = False) -> None:
    """Show what computes the steps of a training run, and what it can do.

    The environment variable ZIPML_SIMD forces an instruction set of the native
    core (ZIPML_SIMD=scalar, say); all give the same bits.

    \b
    Examples:
      zipml executors
      zipml executors --json
      zipml executors check fpga-rtl
    """
    if context.invoked_subcommand is not None:
        return
    from zipml_ooc.executors import executors as find

    found = find()
    if json:
        print_json({"executors": [_plain(executor) for executor in found]})
        return
    for number, executor in enumerate(found):
        if number:
            print()
        print_facts(_facts(executor))


def _plain(executor: ExecutorInfo) -> dict[str, Any]:
    able = executor.capabilities
    out = asdict(executor) | {"available": executor.available}
    out["arithmetics"] = [] if able is None else list(able.arithmetics)
    if able is not None:
        out["capabilities"]["options"] = [
            asdict(option) | {"kind": option.kind.__name__} for option in able.options
        ]
    return out


def _facts(executor: ExecutorInfo) -> list[tuple[str, str]]:
    facts = [("executor", executor.name)]
    if executor.summary:
        facts.append(("what", executor.summary))
    if executor.reason is not None:
        facts.append(("unavailable", executor.reason))
    if executor.simd is not None:
        every = ", ".join(executor.simd_levels)
        facts.append(("simd", f"{executor.simd} (this machine runs {every})"))
    if executor.capabilities is not None:
        facts += _able(executor.capabilities)
    return facts


def _able(able: Capabilities) -> list[tuple[str, str]]:
    """What an executor can do, in the words of the options."""
    bits = ", ".join(map(str, able.stored_bits))
    samples = ", ".join(map(str, able.samples))
    more = [
        name
        for name, there in (
            *((f"--{penalty}", True) for penalty in able.penalties),
            ("several outputs", able.outputs),
            ("weights", able.weights),
            ("momentum", able.momentum),
            ("averaging", able.averaging),
        )
        if there
    ]
    facts = [
        ("arithmetic", ", ".join(able.arithmetics)),
        ("losses", ", ".join(able.losses)),
        ("solvers", ", ".join(able.solvers)),
        ("codes", f"{bits} stored bits, {samples} sample(s) of a value"),
        (
            "layouts",
            f"{', '.join(able.layouts)}; levels {', '.join(able.levels)}; "
            f"scales by {', '.join(able.scales)}",
        ),
        ("estimators", ", ".join(able.estimators)),
        ("also", ", ".join(more) or "nothing"),
    ]
    if able.columns_limit is not None:
        facts.append(("columns", f"{able.fewest_columns} to {able.columns_limit:,}"))
    if able.resource is not None:
        facts.append(("resource", f"{able.resource}, which Dask workers must declare"))
    for option in able.options:
        kind = " or ".join(map(str, option.choices)) or option.kind.__name__
        shown = "" if option.default is None else f" (default {option.default})"
        facts.append(("option", f"{option.name}={kind}: {option.meaning}{shown}"))
    return facts


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The executor.")],
    executor_option: ExecutorOptions = None,
    json: opt.Json = False,
) -> None:
    """Check whether an executor keeps what it promises: a line for each check.

    It is run on small tables and compared with itself and with the native core.
    The exit code is 1 if a check fails.

    \b
    Examples:
      zipml executors check reference
      zipml executors check fpga-rtl --executor-option delayed=no --json
    """
    from zipml_ooc.executors import get_executor
    from zipml_ooc.executors.admission import parse_settings
    from zipml_ooc.testing.executor_suite import run_suite

    executor, options = get_executor(name), pairs(executor_option)
    parse_settings(executor, options)
    results = run_suite(executor, options, progress=None if json else _show)
    failed = [result for result in results if not result.passed]
    if json:
        print_json({"executor": name, "checks": [asdict(result) for result in results]})
    elif failed:
        print(f"{len(failed)} of {len(results)} checks failed")
    if failed:
        raise typer.Exit(1)


def _show(result: Result) -> None:
    word = "ok" if result.passed else "FAILED"
    print(f"{word:<6}  {result.check:<22}  {one_line(result.detail)}", flush=True)

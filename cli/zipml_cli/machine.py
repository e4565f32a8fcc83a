"""The command about the machine: executors."""

from __future__ import annotations

from dataclasses import asdict

from . import options as opt
from .render import print_facts, print_json


def executors(json: opt.Json = False) -> None:
    """Show what computes on this machine.

    The environment variable ZIPML_SIMD forces an instruction set (ZIPML_SIMD=scalar, say); all
    give the same bits.

    \b
    Examples:
      zipml executors
      zipml executors --json
    """
    from zipml_ooc.executors import executors as find

    found = find()
    if json:
        print_json({"executors": [asdict(executor) for executor in found]})
        return
    for executor in found:
        print_facts(
            [
                ("executor", executor.name),
                ("simd", f"{executor.simd} (this machine runs {', '.join(executor.simd_levels)})"),
                ("arithmetic", ", ".join(executor.arithmetics)),
            ]
        )

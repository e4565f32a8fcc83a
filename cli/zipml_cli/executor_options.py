"""The executor's own options, which several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

ExecutorOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--executor-option",
        metavar="NAME=VALUE",
        help="An option of the executor; may be given several times.",
    ),
]


def pairs(given: list[str] | None) -> dict[str, str]:
    """Names and values of ``NAME=VALUE`` options."""
    from zipml_ooc import UsageError

    out: dict[str, str] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--executor-option takes NAME=VALUE; got {text!r}")
        if name.strip() in out:
            raise UsageError(f"--executor-option {name.strip()} is given twice")
        out[name.strip()] = value.strip()
    return out

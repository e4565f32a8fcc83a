"""The application `zipml`: its commands, and what becomes of errors.

Nothing heavy is imported before a command runs, so that help and completion answer at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NoReturn

import typer

from zipml_ooc import UsageError, ZipmlError, __version__

from . import datasets, fpga, machine, models, upkeep
from .render import one_line

__all__ = ["app", "main"]

FAILURE, USAGE, INTERRUPTED, TERMINATED = 1, 2, 130, 143
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Typer has carried its own copy of click since 0.27; both put their base class here.
_ParserError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="zipml",
    help="Compress data sets larger than memory to a few bits a value, and train on the codes.",
    epilog="Start with: zipml demo",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    datasets.compress,
    datasets.info,
    upkeep.verify,
    upkeep.repair,
    models.train,
    models.evaluate,
    models.predict,
    datasets.synth,
    datasets.demo,
):
    app.command()(_command)
app.add_typer(machine.app, name="executors")
app.add_typer(fpga.app, name="fpga")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"zipml {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, too.")
    ] = False,
) -> None:
    # `main` has taken --debug out already, wherever it stood; here it is for the help.
    if os.environ.get("ZIPML_SIMD"):  # said at once, not from the depths of a computation
        from zipml_ooc.executors import check_simd

        check_simd()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 is success, 1 a failure, 2 a wrong request, 130 an interruption. An error is one line on
    standard error that begins with ``zipml: error:``.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default the process's own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names in data may not fit the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        with _cleaning_up_when_stopped():
            code = app(arguments or ["--help"], prog_name="zipml", standalone_mode=False)
            sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
        return FAILURE
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError):
            _abandon_stdout()
        return _report(error)
    if code == INTERRUPTED:
        print("zipml: interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _report(error: Exception) -> int:
    code = FAILURE
    if isinstance(error, _ParserError):
        message = error.format_message().replace("Value error, ", "").rstrip(".")
        code, text = USAGE, message + _see_help(error)
    elif isinstance(error, ZipmlError):
        code, text = USAGE if isinstance(error, UsageError) else FAILURE, str(error)
    elif isinstance(error, OSError):
        text = error.strerror or str(error)
        text = f"{error.filename}: {text}" if error.filename else text
    elif isinstance(error, MemoryError):
        text = f"out of memory: {error or 'no details'}; use fewer threads or smaller chunks"
    else:
        text = f"unexpected {type(error).__name__}: {error} (--debug shows the traceback)"
    print(f"zipml: error: {one_line(text)}", file=sys.stderr)
    return code


def _see_help(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context is not None else ""


def _abandon_stdout() -> None:
    """Nobody reads on, or nothing can be written: spare the interpreter another try at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _cleaning_up_when_stopped() -> Iterator[None]:
    """Let signals end the run as an exception does, so that no partial file stays behind."""

    def stop(number: int, frame: Any) -> NoReturn:
        # What is dropped half done on the way out is no news: coroutines, tasks of event loops.
        warnings.simplefilter("ignore")
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        print("zipml: terminated", file=sys.stderr)
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):  # nohup's wish stands
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

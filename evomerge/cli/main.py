"""The ``evomerge`` command: parse, call, print; no logic.

Heavy libraries are imported inside the commands, so that help and mistakes answer at once.
"""

from __future__ import annotations

import errno
import gc
import logging
import sys
import traceback
from typing import Annotated, Protocol, runtime_checkable

import typer

from evomerge import __version__
from evomerge.cli import (
    calibrating,
    catalogue,
    comparing,
    importing,
    masking,
    models,
    reading,
    searching,
    starting,
)
from evomerge.cli.terminal import console, forget_faults, print_error, print_faults
from evomerge.errors import EvomergeError
from evomerge.execution.interrupts import interrupts_kept, termination_interrupts
from evomerge.secrets import without_secrets

__all__ = ["app", "main"]

app = typer.Typer(
    help="Search for merge recipes of language models, and export the best as a checkpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_USER_MISTAKE, _OUR_BUG, _INTERRUPTED = 2, 1, 130
_CHATTY = ("torchao", "torch.utils._pytree")  # warn of what transformers imports, whoever needs it
_OBJECTS_BEFORE_GC = 100_000  # importing makes many that stay: to go through them takes a tenth
_debug = False


@runtime_checkable
class _UsageError(Protocol):
    """What typer raises for a wrong command line; where its class lies depends on the version."""

    def format_message(self) -> str: ...


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"evomerge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    handler = logging.StreamHandler()  # warnings of ours, on stderr
    handler.setFormatter(_WithoutSecrets("%(message)s"))
    logging.basicConfig(handlers=[handler])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    global _debug  # noqa: PLW0603  read by main() after the command has failed
    _debug = debug


_SEARCHES = (starting, importing, searching, calibrating, comparing, reading)
for _commands in (*_SEARCHES, models, masking, catalogue):
    _commands.register(app)


def main() -> None:
    """Run the command line; exit 0, 2 for a user's mistake, 1 for a bug of ours."""
    gc.set_threshold(_OBJECTS_BEFORE_GC)
    forget_faults()
    try:
        with termination_interrupts(), interrupts_kept():
            sys.exit(app(standalone_mode=False))
    except EvomergeError as err:
        _show_traceback()
        print_faults(err.faults)
        sys.exit(_USER_MISTAKE)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except OSError as err:
        _show_traceback()
        print_error(_os_error_line(err))
        sys.exit(_USER_MISTAKE)
    except Exception as err:
        if isinstance(err, _UsageError):
            if err.format_message():  # none where no command was named, and the help is printed
                print_error(_usage_line(err))
            sys.exit(_USER_MISTAKE)
        _show_traceback()
        print_error(
            f"{type(err).__name__}: {err} (this is a bug in evomerge; "
            "'evomerge --debug …' shows where)"
        )
        sys.exit(_OUR_BUG)


def _show_traceback() -> None:
    if _debug:
        sys.stderr.write(without_secrets(traceback.format_exc()))


class _WithoutSecrets(logging.Formatter):
    """Writes log lines of ours and of libraries."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def _usage_line(err: _UsageError) -> str:
    """Say what is wrong with the command line, and where all that it takes is listed."""
    message = " ".join(err.format_message().replace("Value error, ", "").split()).rstrip(".")
    context = getattr(err, "ctx", None)
    command = "evomerge" if context is None else context.command_path
    return f"{message}; '{command} --help' lists what there is"


def _os_error_line(err: OSError) -> str:
    if err.errno == errno.ENOSPC:
        return "no space left on the disk; free some, then 'evomerge resume DIR' continues"
    return f"{err.strerror or err}: {err.filename or 'no file named'}"


if __name__ == "__main__":
    main()

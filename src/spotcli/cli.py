"""The command line: ``main`` runs the program, and an error becomes a message and an exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from spotcli import stage_commands, tool_commands
from spotcli.program import app

if TYPE_CHECKING:
    from spotcli.errors import SpotError

__all__ = ["app", "main", "stage_commands", "tool_commands"]

INTERRUPTED = 130
"""Typer's exit code for Ctrl-C, without a message."""


def main() -> None:
    """Run the ``spot`` command; show a ``SpotError`` without a traceback and exit with its code."""
    import gc

    if sys.platform == "win32":
        print("spot does not run on Windows: it locks its files with fcntl\n  cure: run it in WSL 2", file=sys.stderr)
        sys.exit(2)

    from spotcli.console import escape_library_messages
    from spotcli.errors import SpotError, Unfinished, storage_error
    from spotcli.interrupts import terminated_as_interrupted

    escape_library_messages()
    try:
        with terminated_as_interrupted():
            app()
    except SpotError as error:
        _fail(error)
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        _fail(Unfinished("interrupted before the work began", cure="run the same command again"))
    except OSError as error:
        # Results are printed after the work: stdout can be a file on a full disk.
        known = storage_error(error)
        if known is None:
            raise
        _fail(known)
    finally:
        # Otherwise the interpreter searches all objects for cycles when it ends: seconds with litellm or torch.
        gc.freeze()


def _fail(error: SpotError) -> None:
    import signal

    from spotcli.console import show_error
    from spotcli.interrupts import end_with

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would interrupt the message
    show_error(error)
    end_with(error.exit_code)
    sys.exit(error.exit_code)

"""The command line ``napari-unet``: the same steps as in the dock, with the same settings.

Exit status: 0 done; 1 an error, told in one or two lines on standard error; 2 wrong usage. The
rule: what can be known to be wrong from the command line alone is wrong usage; what depends on
the files, the model or the computer is an error.

Nothing heavy is imported before a command needs it, so that ``--help`` is quick.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, get_args

from napari_unet.errors import UnetError, UsageError
from napari_unet.network.threads import wait_with_the_system
from napari_unet.settings import ZarrFormat

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from napari_unet.cli.output import Console

    Command = Callable[[argparse.Namespace, Console], dict[str, Any]]

DONE, FAILED, WRONG_USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What stands behind ``napari-unet``; by default that of this process.

    Returns
    -------
    int
        The exit status.
    """
    from napari_unet.cli.arguments import build_parser
    from napari_unet.cli.output import Console

    given = sys.argv[1:] if arguments is None else list(arguments)
    console = Console(as_json="--json" in given)
    try:
        options = build_parser().parse_args(given)
    except SystemExit:  # --help and --version have been answered
        return DONE
    except UsageError as error:
        console.problem(str(error))
        console.result({})
        return WRONG_USAGE
    wait_with_the_system()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            return _run(options, console)
        except BrokenPipeError:  # e.g. `napari-unet models | head`
            _close_standard_output()
            return FAILED


def _run(options: argparse.Namespace, console: Console) -> int:
    """Run a command and tell how it ended."""
    values: dict[str, Any] = {}
    status = DONE
    try:
        values = _command(options)(options, console)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the edge: all is told
        if options.debug:
            console.traceback()
        console.problem(_sentence(error, options))
        status = WRONG_USAGE if isinstance(error, UsageError) else FAILED
    console.result({"command": options.command, **values})
    return status or (FAILED if console.problems else DONE)


def _sentence(error: BaseException, options: argparse.Namespace) -> str:
    """Say an error; one that is not ours is a defect and says so."""
    if isinstance(error, UnetError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        if set(get_args(ZarrFormat)) & set(getattr(options, "format", None) or ()):
            return "Interrupted; the same command goes on with the tiles that are not done."
        return "Interrupted; what was not finished was not written."
    if isinstance(error, MemoryError):
        return "The memory of this computer does not suffice. Use a smaller image or --tile-px."
    about = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")
    return f"This should not have happened ({about}). Add --debug to see where."


def _command(
    options: argparse.Namespace,
) -> Callable[[argparse.Namespace, Console], dict[str, Any]]:
    """Import the function of a command."""
    module, function = options.run.split(":")
    command: Callable[[argparse.Namespace, Console], dict[str, Any]] = getattr(
        importlib.import_module(f"napari_unet.cli.{module}"), function
    )
    return command


def _close_standard_output() -> None:
    """Let Python end without writing to a reader that has gone."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")

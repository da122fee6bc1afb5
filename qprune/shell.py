"""What every command of the shell does alike: printing, errors as sentences, `-v` before and after its name."""

import logging
import shutil
import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import click

from qprune.errors import QpruneError
from qprune.escaping import visible


def say(text: object, err: bool = False) -> None:
    """Print, with the control characters of whatever file the text came from written out.

    Example:
        >>> say("12 runs")
        12 runs
    """
    click.echo(visible(str(text), keep="\n"), err=err)


def columns() -> int | None:
    """How many columns the terminal has; None where the output goes to a file or another program.

    Example:
        >>> columns() is None  # where the examples are run
        True
    """
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def explaining_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print errors as sentences without a traceback, with exit code 2; Ctrl-C has exit code 130, SIGTERM 143.

    Example:
        >>> explaining_errors(lambda: 3)()
        3
    """

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except QpruneError as error:
            say(f"qprune: {error}", err=True)
            sys.exit(2)
        except OSError as error:
            what = error.filename or "A file"
            say(
                f"qprune: {what} cannot be used: {error.strerror or error}. Check the path, and the room there.",
                err=True,
            )
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)

    return run


class _Formatter(logging.Formatter):
    """Log lines, with control characters written out."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), keep="\n\t")


def _set_verbosity(context: click.Context, _: click.Parameter, verbose: bool) -> None:
    """Log warnings, or also what happens; where both the program and the command have the option, either will do."""
    if context.parent is None:
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter("%(message)s"))
        logging.basicConfig(handlers=[handler], level=logging.WARNING)
    if verbose:
        root = logging.getLogger()
        context.call_on_close(partial(root.setLevel, root.level))
        root.setLevel(logging.INFO)


def _verbose() -> click.Option:
    flags, told = ("-v", "--verbose"), "Say more about what happens."
    return click.Option(flags, is_flag=True, expose_value=False, callback=_set_verbosity, help=told)


class Command(click.Command):
    """A command that has ``-v``, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_verbose())


class Commands(click.Group):
    """The program: ``-v`` may stand before the name of a command or after it."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_verbose())

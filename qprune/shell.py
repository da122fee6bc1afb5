"""What every command of the shell does alike: printing, errors as sentences, `-v` before and after its name."""

import logging
import shutil
import sys
from collections.abc import Callable
from functools import cached_property, partial, wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from qprune.errors import DataError, QpruneError
from qprune.escaping import visible

PATH, SOME = click.Path(path_type=Path), click.IntRange(min=1)
SET = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
                   help="Replace a value of the spec, such as train.batch=32 or prune.0.sparsity=0.5. May be repeated."
                   )  # fmt: skip
RUNS = click.option("--runs", type=PATH, help="Folder of the runs; else QPRUNE_RUNS, else ./runs.")
DATA = click.option("--data", type=PATH, help="Folder of the data; else QPRUNE_DATA.")
TRUSTED = click.option("--trusted", is_flag=True, help="Open RUN even if it is a .pt2 file, which runs the code in it.")
DEVICE = click.option("--device", help='Where to compute: "cpu", "cuda", ...; a GPU if there is one.')
QUIET = click.option("--quiet", is_flag=True, help="No progress.")


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


def new_file(folder: Path, name: str) -> Path:
    """A file to write, in a folder that is made if need be.

    Raises:
        DataError: if the file is there already.

    Example:
        >>> str(new_file(Path("drawn"), "a.png"))
        'drawn/a.png'
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    if file.exists():
        raise DataError(f"{file} is there already. Move it away, or choose another --out.")
    return file


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


class Later(click.Command):
    """A command that is imported when it is used, not when the program starts: most need torch, which takes seconds.

    Example:
        >>> Later("list", "qprune.cli_list", "List the specs.").real.name
        'list'
    """

    def __init__(self, name: str, module: str, about: str) -> None:
        super().__init__(name, short_help=about)
        self.module = module

    @cached_property
    def real(self) -> click.Command:
        """The command itself."""
        found: click.Command = getattr(import_module(self.module), str(self.name))
        return found

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """That of the command itself, which runs in place of this one."""
        return self.real.make_context(*args, **kwargs)

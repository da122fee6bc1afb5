"""The command `qprune list`, which needs no torch."""

import click

from qprune.shell import Command, explaining_errors, say
from qprune.spec import spec_tree


@click.command(cls=Command)
@click.argument("part", default="")
@click.option("--networks", is_flag=True, help="List what model.arch may name: networks of the zoo and of libraries.")
@click.option("--full", is_flag=True, help="Every spec, also of folders with many.")
@explaining_errors
def list(part: str, networks: bool, full: bool) -> None:
    """List the specs, all of them or those with PART in their name.

    The last words of a name are enough for the other commands; in brackets stands the published experiment's name.
    Without PART a folder with many specs is one line.
    """
    if not networks:
        say(spec_tree(part, full))
        return
    from qprune.zoo import library_names, names  # with torch

    say("\n".join(name for name in (*names(), *library_names()) if part in name))

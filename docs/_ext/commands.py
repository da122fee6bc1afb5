"""The program with its commands themselves, which `qprune.cli` imports when they are used, for the page about them."""

import click

from qprune.cli import main

program = click.Group("qprune", {name: each.real for name, each in main.commands.items()}, help=main.help)

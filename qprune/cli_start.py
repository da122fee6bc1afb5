"""The commands of the first hour: `qprune new` and `qprune doctor`."""

import sys
from pathlib import Path

import click

from qprune.shell import PATH, RUNS, Command, explaining_errors, say
from qprune.starting import examine, write_specs


@click.command(cls=Command)
@click.argument("name")
@click.option("--data", type=PATH, required=True, help="Folder of the images.")
@click.option("--arch", help="The network: of the zoo, or torchvision/... and timm/...; by default resnet20, or unet.")
@click.option(
    "--recipe", default="a50_w8a8", show_default=True,
    help="a75: percent of the channels to drop; w8a8: bits; both with _ between; or budget, for a search.",
)  # fmt: skip
@click.option("--pretrained", is_flag=True, help="Start from trained weights of torchvision or timm.")
@explaining_errors
def new(name: str, data: Path, arch: str | None, recipe: str, pretrained: bool) -> None:
    """Write specs for images of your own: a baseline, a pruned and a quantized network.

    The images lie in {train,val,test}/CLASS/IMAGE, or as scenes with labels, or as images to translate. What they are,
    how many, and how large says how the network is trained. The specs are written to specs/NAME, with comments, and
    nothing there is replaced; the commands that train them are shown.
    """
    say(write_specs(name, data, arch=arch, recipe=recipe, pretrained=pretrained))


@click.command(cls=Command)
@RUNS
@explaining_errors
def doctor(runs: Path | None) -> None:
    """Show what this machine trains with, and whether anything is missing.

    Exit code 0, or 1 where something is missing that training needs.
    """
    needed = False
    for finding in examine(runs):
        needed |= finding.is_needed
        say(f"{'MISSING  ' if finding.is_needed else ''}{finding}")
    if needed:
        sys.exit(1)

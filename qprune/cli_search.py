"""The commands that find what a network can spare: `qprune sensitivity | search`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from qprune import searches
from qprune.budget import METHODS
from qprune.errors import PlanError
from qprune.shell import DATA, DEVICE, PATH, QUIET, RUNS, SOME, Command, explaining_errors, new_file, say
from qprune.spec import spec_to_toml
from qprune.training import model_file, runs_root

N = TypeVar("N", int, float)

RATIOS = click.option("--ratios", help="Shares of channels to drop, such as 0.25,0.5; by default six, 0.125 to 0.875.")
IMAGES = click.option(
    "--images", type=SOME, help="How many to measure on; by default 256, or 32 with outputs per pixel."
)
RANKED = click.option("--importance", default="activation-l1", show_default=True, help="By which channels are ranked.")


@click.command(cls=Command)
@click.argument("run")
@RATIOS
@click.option("--bits", help="Numbers of bits, such as 4,8; by default 2,4,8.")
@IMAGES
@RANKED
@click.option("--out", type=PATH, help="The picture; by default sensitivity.png beside RUN's model.")
@QUIET
@DATA
@RUNS
@DEVICE
@explaining_errors
def sensitivity(
    run: str, ratios: str | None, bits: str | None, out: Path | None, quiet: bool, runs: Path | None, **options: Any
) -> None:
    """Show how much of each group of channels RUN's dense network can spare.

    Every group is pruned by each ratio, and quantized to each number of bits, alone; shown is how far the network's
    outputs move, without training, on a few hundred training images. What was measured is kept beside RUN's model, so
    that the same command goes on after an interruption.
    """
    grid: dict[str, Any] = {}
    if ratios is not None:
        grid["ratios"] = _numbers(ratios, float, "--ratios")
    if bits is not None:
        grid["bits"] = _numbers(bits, int, "--bits")
    beside = model_file(run, runs_root(runs)).with_name("sensitivity.png")
    picture = beside if out is None else new_file(out.parent, out.name)
    found = searches.sensitivity(run, runs=runs, verbose=0 if quiet else "auto", **grid, **options)
    say(found)
    found.plot(picture)
    say(f"\nThe curves are in {picture}")


@click.command(cls=Command)
@click.argument("run")
@click.option(
    "--budget", "budgets", multiple=True, required=True, metavar="COST=MOST",
    help="macs=0.25, bytes=100kB, bops=1%, params=50k or latency=2.5ms, say; up to 1 it is a share. May be repeated.",
)  # fmt: skip
@click.option("--bits", help="Numbers of bits to choose from, such as 2,4,8; without it all stays in float.")
@click.option("--method", type=click.Choice(list(METHODS)), default="sensitivity", show_default=True,
              help="By what was measured; or, to compare, the same everywhere or by chance.")  # fmt: skip
@RATIOS
@IMAGES
@RANKED
@click.option("--least", type=float, default=0.1, show_default=True, help="Share of its channels each group keeps.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the images, and of what is drawn by chance.")
@click.option("--scratch", is_flag=True, help="Train what is found from scratch, with RUN as its teacher.")
@click.option("--name", help="Of the spec; by default RUN and the budget.")
@click.option("--out", type=PATH, help="The spec; by default NAME.toml beside RUN's model.")
@QUIET
@DATA
@RUNS
@DEVICE
@explaining_errors
def search(
    run: str,
    budgets: tuple[str, ...],
    bits: str | None,
    ratios: str | None,
    scratch: bool,
    name: str | None,
    out: Path | None,
    quiet: bool,
    runs: Path | None,
    **options: Any,
) -> None:
    """Find what to drop of RUN's dense network, layer by layer, and how many bits to use, for a budget.

    Nothing is trained: what every group of channels can spare is measured (as by `qprune sensitivity`, whose
    measurements are taken over), and the choice is written as a spec, which `qprune plan` shows and `qprune fit`
    trains. The same command goes on after an interruption.
    """
    grid: dict[str, Any] = {} if ratios is None else {"ratios": _numbers(ratios, float, "--ratios")}
    widths = () if bits is None else _numbers(bits, int, "--bits")
    found = searches.search(run, budgets, bits=widths, runs=runs, verbose=0 if quiet else "auto", **grid, **options)
    say(found)
    spec = found.spec(name, scratch)
    file = out or model_file(run, runs_root(runs)).with_name(f"{spec.name.rpartition('/')[2]}.toml")
    text = spec_to_toml(spec)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:  # the same search finds the same
        new_file(file.parent, file.name).write_text(text, encoding="utf-8")
    say(f"\nThe spec is in {file}\n\n  qprune plan {file}\n  qprune fit {file}")


def _numbers(text: str, kind: Callable[[str], N], option: str) -> tuple[N, ...]:
    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise PlanError(f'{option} must be numbers with commas between them; received "{text}".') from error

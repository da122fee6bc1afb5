"""`qprune report`, `qprune compare` and `qprune sweep`."""

import sys
from pathlib import Path
from typing import Any

import click

from qprune import comparison, reports, sweeps
from qprune.comparison import Comparison
from qprune.shell import DATA, DEVICE, PATH, QUIET, RUNS, Command, explaining_errors, say
from qprune.training import is_writer

SORT = click.option(
    "--sort", metavar="KEY", help="score, name, or a cost: bytes, macs, bops, params, latency; else as they are named."
)
HTML = click.option("--html", type=PATH, help="Also write the table and the trade-off plots as one HTML file.")


@click.command(cls=Command)
@click.argument("run")
@click.option("--out", type=PATH, help="The file; by default report.html in the folder of RUN.")
@DATA
@RUNS
@DEVICE
@explaining_errors
def report(run: str, out: Path | None, data: Path | None, runs: Path | None, device: str | None) -> None:
    """Write a page about RUN: scores, costs, the training, the network, and what it makes of test images.

    The page is one HTML file that needs no network. What is not at hand, such as the test images, is said in its place.
    One that is there is replaced. Needs `pip install "qprune[report]"`.
    """
    say(f"The page is in {reports.report(run, out, data=data, runs=runs, device=device)}")


@click.command(cls=Command)
@click.argument("run", nargs=-1, required=True)
@SORT
@HTML
@RUNS
@explaining_errors
def compare(run: tuple[str, ...], sort: str | None, html: Path | None, runs: Path | None) -> None:
    """Put finished RUNs side by side: what each scores on test images, and what it costs.

    A RUN may be a folder of runs. A star marks where no other run is as good for less.
    """
    _show(comparison.compare(*run, sort=sort, runs=runs), html)


def _show(found: Comparison, html: Path | None) -> None:
    say(found)
    if html is not None:
        say(f"\nThe page is in {found.to_html(html)}")


@click.command(cls=Command)
@click.argument("spec")
@click.option("--set", "values", multiple=True, metavar="KEY=VALUE,VALUE",
              help="Values of the spec to try, such as prune.0.sparsity=0.25,0.5. Several of these are combined."
              )  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="How many seeds of each.")
@click.option("--chain", is_flag=True, help="First train the run that the spec starts from (init), if it is missing.")
@click.option("--dry-run", is_flag=True, help="Only list the runs.")
@QUIET
@SORT
@HTML
@DATA
@RUNS
@DEVICE
@explaining_errors
def sweep(
    spec: str, values: tuple[str, ...], seeds: int, dry_run: bool, quiet: bool, sort: str | None, html: Path | None,
    **options: Any,
) -> None:  # fmt: skip
    """Train SPEC with every combination of values, each with every seed, and compare the runs.

    They are ordinary runs with the values in their names. What is there is not trained again, and what was interrupted
    goes on, so the same command completes a sweep.
    """
    if dry_run:
        known = sweeps.trials(spec, values, seeds=seeds, data=options["data"], runs=options["runs"])
        say("\n".join(f"{trial.name}{' (done)' if trial.done else ''}" for trial in known))
        return
    try:
        found = sweeps.sweep(spec, values, seeds=seeds, verbose=0 if quiet else "auto", **options)
    except sweeps.InterruptedSweep as interrupt:
        say(interrupt, err=True)
        sys.exit(143 if interrupt.preempted else 130)  # as a shell reports SIGTERM and SIGINT
    if is_writer():
        say("")
        _show(found if sort is None else found.sorted_by(sort), html)

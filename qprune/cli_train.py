"""The commands of training: `qprune fit | plan | evaluate | predict | summary`."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import click

from qprune import api, trained
from qprune.costs import chain_of, chain_table
from qprune.data import read_inputs
from qprune.errors import CheckpointError, DataError
from qprune.exporting import open_run
from qprune.shell import (
    DATA,
    DEVICE,
    PATH,
    QUIET,
    RUNS,
    SET,
    SOME,
    TRUSTED,
    Command,
    columns,
    explaining_errors,
    new_file,
    say,
)  # fmt: skip
from qprune.tables import table
from qprune.tasks import to_pixels, write_png
from qprune.training import Opened, is_writer, runs_root


@click.command(cls=Command)
@click.argument("spec")
@click.option("--chain", is_flag=True, help="First train the run that the spec starts from (init), if it is missing.")
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted.")
@click.option("--overwrite", is_flag=True, help="Replace a run of the same name.")
@click.option("--name", help="Name of the run, in place of the spec's.")
@click.option("--seed", type=int, help="Another seed; the run is called NAME@seedN, and so is the run it starts from.")
@QUIET
@click.option("--download", is_flag=True, help="Fetch weights (model.weights) and CIFAR, if they are not here.")
@click.option("--deterministic", is_flag=True, help="The same bits in every run; names the operations that cannot.")
@SET
@DATA
@RUNS
@DEVICE
@explaining_errors
def fit(spec: str, chain: bool, overrides: tuple[str, ...], data: Path | None, quiet: bool, **options: Any) -> None:
    """Train SPEC and leave a run folder with its model, history and report."""
    options["verbose"] = 0 if quiet else "auto"
    history = api.fit(spec, chain=chain, overrides=overrides, data=data, **options)
    run = history.run
    if history.interrupted or run is None:
        if is_writer():
            say(f"Interrupted; everything is saved in {run}. {_GO_ON}", err=True)
        sys.exit(143 if history.preempted else 130)  # as a shell reports SIGTERM and SIGINT
    if not is_writer():
        return
    root = runs_root(options["runs"])
    say(f"\n{chain_table(chain_of(run.relative_to(root).as_posix(), root), columns())}\n\nThe run is in {run}")


_GO_ON = "Go on with the same command and --resume (in place of --overwrite)."


@click.command(cls=Command)
@click.argument("spec")
@click.option(
    "--steps-per-epoch", type=SOME, help="Optimizer steps of one epoch; by default from the size of the data."
)
@click.option("--full", is_flag=True, help="A line for every site and note, also where many go alike.")
@SET
@DATA
@RUNS
@explaining_errors
def plan(spec: str, full: bool, **options: Any) -> None:
    """Show what training SPEC would do, step by step, without training.

    What the run that it starts from has pruned counts; if that is not trained yet, it is planned first.
    """
    say(api.plan(spec, **options).text(full))


@click.command(cls=Command)
@click.argument("run")
@click.option("--split", type=click.Choice(["test", "val", "train"]), default="test", show_default=True)
@click.option("--batch", type=SOME, help="Images at a time; by default RUN's, up to 1024.")
@click.option(
    "--workers", type=click.IntRange(min=0), help="Processes that load images; by default RUN's, up to one per core."
)
@TRUSTED
@DATA
@RUNS
@DEVICE
@explaining_errors
def evaluate(run: str, split: str, data: Path | None, **options: Any) -> None:
    """Score RUN, or a file that was exported from one, on its data; prints JSON."""
    say(json.dumps(trained.evaluate(run, split=split, data=data, **options), indent=2))


@click.command(cls=Command)
@click.argument("run")
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, help="Folder for the results: a PNG for each image, or a CSV.")
@TRUSTED
@RUNS
@explaining_errors
def predict(run: str, images: tuple[Path, ...], out: Path | None, trusted: bool, runs: Path | None) -> None:
    """Show what RUN, or a file that was exported from one, makes of image files.

    Classification prints class and confidence, and writes them to predictions.csv in the folder --out. Segmentation
    writes PNGs whose values are the classes and which show their colours; translation writes the images it makes. These
    two take images of any size.
    """
    opened = open_run(run, runs_root(runs), trusted=trusted)
    if opened.spec.task.is_own:
        raise DataError(
            "What the network makes of an image is known to its own task alone; call qprune.predict in Python."
        )
    if opened.spec.task.name == "classification":
        _classify(opened, images, out)
    else:
        _draw(opened, images, out)


def _classify(opened: Opened, images: tuple[Path, ...], out: Path | None) -> None:
    shares = trained.predict(opened.net, read_inputs(opened.spec.data, images, opened.shape)).flatten(1).softmax(1)
    if shares.shape[1] != len(opened.classes):
        raise CheckpointError(
            f"The network tells {shares.shape[1]} classes apart; its file names {len(opened.classes)}."
        )
    rows = [
        (str(path), opened.classes[int(p.argmax())], float(p.max())) for path, p in zip(images, shares, strict=True)
    ]
    header = ("image", "class", "confidence")
    say(table(header, [(path, name, f"{share:.1%}") for path, name, share in rows], right="llr"))
    if out is not None:
        with new_file(out, "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])


def _draw(opened: Opened, images: tuple[Path, ...], out: Path | None) -> None:
    if out is None:
        raise DataError(f"What {opened.spec.name} makes of an image is an image: say where to, with --out FOLDER.")
    stems = [path.stem for path in images]
    twice = next((path for path in images if stems.count(path.stem) > 1), None)
    if twice is not None:
        raise DataError(
            f"Several images are called {twice.stem}, and would be written to one file: rename all but one."
        )
    for path, file in zip(images, [new_file(out, f"{stem}.png") for stem in stems], strict=True):
        (output,) = trained.predict(opened.net, read_inputs(opened.spec.data, [path]))
        if opened.spec.task.name == "segmentation":
            write_png(file, output.argmax(0), opened.palette)
        else:
            write_png(file, to_pixels(output, mean=(0.5,), std=(0.5,)))
        say(file)


@click.command(cls=Command)
@click.argument("run")
@RUNS
@explaining_errors
def summary(run: str, runs: Path | None) -> None:
    """Show what RUN's network costs, per layer and in total."""
    say(trained.summary(run, runs=runs))

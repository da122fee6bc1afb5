"""The command line: `qprune fit | plan | evaluate | predict | sensitivity | search | summary | shrink | export | list`.

Other commands are in files of their own, `cli_*.py`.

The only place that prints.
"""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import torch
from attrs import evolve
from torch import nn

from qprune import api, searches, trained
from qprune.budget import METHODS
from qprune.cli_compare import compare, report, sweep
from qprune.cli_start import doctor, new
from qprune.costs import chain_of, chain_table, forward_times, report_shrunk, time_table
from qprune.data import read_inputs
from qprune.errors import CheckpointError, DataError, ExportError, PlanError
from qprune.export import DIALECTS, RUNTIMES, Certificate, OnnxModel, file_model, monitored, open_run, write_network
from qprune.layers import sites
from qprune.shell import Commands, columns, explaining_errors, say
from qprune.shrink import shrink_with_facts
from qprune.spec import spec_to_toml, spec_tree
from qprune.tables import short, table
from qprune.tasks import to_pixels, write_png
from qprune.training import Opened, is_writer, load_model, model_file, open_model, runs_root, save_small
from qprune.zoo import deployed, library_names, names

N = TypeVar("N", int, float)

PATH, SOME = click.Path(path_type=Path), click.IntRange(min=1)
SET = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
                   help="Replace a value of the spec, such as train.batch=32 or prune.0.sparsity=0.5. May be repeated."
                   )  # fmt: skip
RUNS = click.option("--runs", type=PATH, help="Folder of the runs; else QPRUNE_RUNS, else ./runs.")
DATA = click.option("--data", type=PATH, help="Folder of the data; else QPRUNE_DATA.")
TRUSTED = click.option("--trusted", is_flag=True, help="Open RUN even if it is a .pt2 file, which runs the code in it.")
DEVICE = click.option("--device", help='Where to compute: "cpu", "cuda", ...; a GPU if there is one.')
QUIET = click.option("--quiet", is_flag=True, help="No progress.")
RATIOS = click.option("--ratios", help="Shares of channels to drop, such as 0.25,0.5; by default six, 0.125 to 0.875.")
IMAGES = click.option(
    "--images", type=SOME, help="How many to measure on; by default 256, or 32 with outputs per pixel."
)
RANKED = click.option("--importance", default="activation-l1", show_default=True, help="By which channels are ranked.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="qprune")
def main() -> None:
    """Train convolutional networks into small, low-precision ones.

    Start with `qprune list`, then `qprune plan SPEC` and `qprune fit SPEC --chain`. SPEC is a name from the list, a
    part of one, or the path of a TOML file; RUN is a run folder, or its name below ./runs.
    """


@main.command()
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


@main.command()
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


@main.command()
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


@main.command()
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
        with _new_file(out, "predictions.csv").open("w", newline="", encoding="utf-8") as file:
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
    for path, file in zip(images, [_new_file(out, f"{stem}.png") for stem in stems], strict=True):
        (output,) = trained.predict(opened.net, read_inputs(opened.spec.data, [path]))
        if opened.spec.task.name == "segmentation":
            write_png(file, output.argmax(0), opened.palette)
        else:
            write_png(file, to_pixels(output, mean=(0.5,), std=(0.5,)))
        say(file)


def _new_file(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    if file.exists():
        raise DataError(f"{file} is there already. Move it away, or choose another --out.")
    return file


@main.command()
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
    picture = beside if out is None else _new_file(out.parent, out.name)
    found = searches.sensitivity(run, runs=runs, verbose=0 if quiet else "auto", **grid, **options)
    say(found)
    found.plot(picture)
    say(f"\nThe curves are in {picture}")


@main.command()
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
    spec = found.spec(name)
    file = out or model_file(run, runs_root(runs)).with_name(f"{spec.name.rpartition('/')[2]}.toml")
    text = spec_to_toml(spec)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:  # the same search finds the same
        _new_file(file.parent, file.name).write_text(text, encoding="utf-8")
    say(f"\nThe spec is in {file}\n\n  qprune plan {file}\n  qprune fit {file}")


def _numbers(text: str, kind: Callable[[str], N], option: str) -> tuple[N, ...]:
    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise PlanError(f'{option} must be numbers with commas between them; received "{text}".') from error


@main.command()
@click.argument("run")
@RUNS
@explaining_errors
def summary(run: str, runs: Path | None) -> None:
    """Show what RUN's network costs, per layer and in total."""
    say(trained.summary(run, runs=runs))


@main.command()
@click.argument("run")
@click.option("--fold", is_flag=True, help="Also make normalizations a part of the convolutions beside them.")
@click.option("--out", type=PATH, help="The file to write; by default small.pt in the folder of RUN.")
@RUNS
@explaining_errors
def shrink(run: str, fold: bool, out: Path | None, runs: Path | None) -> None:
    """Take dropped channels out of RUN's network, and write the smaller one, which computes the same.

    Shows per layer what went, what could not and why, and how long a forward pass of the dense, the masked and the
    shrunk network takes on this machine's CPU. The file is opened as RUN is: `qprune evaluate FILE`.
    """
    source = model_file(run, runs_root(runs))
    opened = open_model(run, runs_root(runs))
    layout = torch.channels_last if opened.spec.train.channels_last else torch.contiguous_format
    out = out or source.with_name("small.pt")
    file = _new_file(out.parent, out.name)
    example = torch.rand(1, *opened.shape, generator=torch.Generator().manual_seed(0))
    shrunk = shrink_with_facts(opened.net, example, fold=fold)
    say(report_shrunk(opened.net, shrunk, example))
    save_small(file, load_model(source), opened.net, shrunk.net)
    say(f"\n{_times(opened, shrunk.net, layout)}")
    size = short(file.stat().st_size, "B")
    say(f"\nThe smaller network is in {file} ({size}); qprune.load opens it as it does a run.")


def _times(opened: Opened, small: nn.Module, layout: torch.memory_format) -> str:
    """One forward pass: dense, where that is known, masked and shrunk."""
    dense = opened.dense()
    nets = ({} if dense is None else {"dense": dense}) | {"masked": deployed(opened.net), "shrunk": small}
    for net in nets.values():
        net.to(memory_format=layout)
    images = torch.rand(8, *opened.shape).to(memory_format=layout)
    times = {batch: forward_times(nets, images[:batch]) for batch in (1, 8)}
    threads = torch.get_num_threads()
    lines = [f"One forward pass on the CPU ({threads} {'thread' if threads == 1 else 'threads'}), medians of turns:"]
    if any(site.quant is not None and bool(site.quant.active) for site in sites(small)):
        lines.append("(masked and shrunk round to low precision in float arithmetic, which takes time of its own)")
    if dense is None:
        lines.append(_NO_DENSE)
    return "\n".join([*lines, "", time_table(times)])


_NO_DENSE = "(the network was handed over and has been cut, so what it was before is not known here)"


@main.command()
@click.argument("run")
@click.option("--out", type=PATH, help="The file to write; by default model.onnx in the folder of RUN.")
@click.option(
    "--require",
    help="How many points of its metric the file may differ on test images; by default 0.1, or two standard errors of "
    'the difference where that is more. "exact": no bit; "nothing": anything goes.',
)
@click.option("--storage", type=click.Choice(["int8", "int4"]), default="int8", show_default=True,
              help="int4 packs weights of up to 4 bits, which are computed with as floats.")  # fmt: skip
@click.option("--dialect", type=click.Choice(DIALECTS), default=DIALECTS[0], show_default=True,
              help="qonnx: real numbers with Quant nodes, for tools that make hardware.")  # fmt: skip
@click.option("--also", type=click.Choice(list(RUNTIMES)), multiple=True,
              help="Another runtime that runs the file and is compared and timed, too.")  # fmt: skip
@DATA
@RUNS
@explaining_errors
def export(
    run: str, out: Path | None, require: str | None, storage: str, dialect: str, also: tuple[str, ...],
    data: Path | None, runs: Path | None,
) -> None:  # fmt: skip
    """Write RUN's network as an integer ONNX file, with a certificate of how equal it is.

    With --out FILE.pt2 it is a program of torch.export instead, which torch runs without the network's code.

    The file and the network run on the same images: shows per output and per quantizer what is equal, the metric of
    both, which operators ran, and how long an image takes beside the dense network in the same runtime. The
    certificate is kept beside the file as JSON. Needs `pip install "qprune[onnx]"`.
    """
    source = model_file(run, runs_root(runs))
    allowed = _allowed(require)
    out = out or source.with_name("model.onnx")
    file = _new_file(out.parent, out.name)
    record = _new_file(out.parent, f"{out.stem}.certificate.json")
    certificate = trained.export(run, file, storage=storage, dialect=dialect, also=also, data=data, runs=runs)
    opened = open_model(run, runs_root(runs))
    run_elsewhere = [name for name, each in certificate.elsewhere.items() if not each.refusal]
    times = _exported_times(opened, file, run_elsewhere)
    certificate = evolve(certificate, milliseconds={name: 1000 * time for name, time in times[1].items()})
    record.write_text(certificate.to_json(), encoding="utf-8")
    say(f"{certificate}\n\n{time_table(times)}")
    held = _check_certificate(certificate, monitored(opened), require, allowed, opened.spec.data.is_own)
    say(f"\n{held}")


_POINTS = 0.1


def _allowed(require: str | None) -> float | None:
    words = {None: None, "exact": 0.0, "nothing": float("inf")}
    try:
        return words[require] if require in words else float(str(require))
    except ValueError as error:
        raise ExportError(f'--require must be a number, "exact" or "nothing"; received "{require}".') from error


def _check_certificate(
    certificate: Certificate, metric: str, require: str | None, allowed: float | None, own_data: bool = False
) -> str:
    """Check the certificate against ``--require``; a line that says what was required."""
    if require == "exact" and not certificate.exact:
        raise ExportError(
            f'{certificate.file} differs from the network. Train with numerics = "exact", or require less.'
        )
    if require in ("exact", "nothing"):
        return f"Required was {require}."
    if metric not in certificate.scores:
        own = 'It was your own: call qprune.export in Python with data={"test": ...}'
        way_out = own if own_data else "Say where it is (--data)"
        raise ExportError(f"There is no data to score the file on. {way_out}, or --require nothing.")
    points, chance = 100 * certificate.loss(metric), 100 * certificate.noise(metric)
    reason = "--require" if allowed is not None else "the default"
    if allowed is None and points > _POINTS and chance > _POINTS:
        allowed, reason = chance, "two standard errors of the difference on these images"
    allowed = _POINTS if allowed is None else allowed
    told = f"by {points:.3g} points of {metric}; allowed are {allowed:.3g} ({reason})."
    if not points <= allowed:
        raise ExportError(
            f'{certificate.file} differs {told} Train with numerics = "exact", where nothing differs, or require less.'
        )
    return f"The file differs {told}"


def _exported_times(opened: Opened, file: Path, elsewhere: Sequence[str]) -> dict[int, dict[str, float]]:
    images = torch.rand(8, *opened.shape, generator=torch.Generator().manual_seed(0))
    nets: dict[str, nn.Module] = {"exported": file_model(file, trusted=True)}
    nets |= {name: RUNTIMES[name](file) for name in elsewhere}
    dense = opened.dense()
    if dense is not None:
        nets = {"dense": OnnxModel(write_network(dense, images[:1]).model.SerializeToString())} | nets
    return {batch: forward_times(nets, images[:batch]) for batch in (1, 8)}


@main.command(name="list")
@click.argument("part", default="")
@click.option("--networks", is_flag=True, help="List what model.arch may name: networks of the zoo and of libraries.")
@click.option("--full", is_flag=True, help="Every spec, also of folders with many.")
@explaining_errors
def list_(part: str, networks: bool, full: bool) -> None:
    """List the specs, all of them or those with PART in their name.

    The last words of a name are enough for the other commands; in brackets stands the published experiment's name.
    Without PART a folder with many specs is one line.
    """
    known = [*names(), *library_names()] if networks else []
    say("\n".join(name for name in known if part in name) if networks else spec_tree(part, full))


for each in (new, doctor, report, compare, sweep):
    main.add_command(each)

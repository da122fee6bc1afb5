"""The commands that write what is left of a network: `qprune shrink | export`."""

from collections.abc import Sequence
from pathlib import Path

import click
import torch
from attrs import evolve
from torch import nn

from qprune import trained
from qprune.costs import forward_times, report_shrunk, time_table
from qprune.errors import ExportError
from qprune.exporting import DIALECTS, RUNTIMES, Certificate, OnnxModel, file_model, monitored, write_network
from qprune.layers import sites
from qprune.shell import DATA, PATH, RUNS, Command, explaining_errors, new_file, say
from qprune.shrinking import shrink_with_facts
from qprune.tables import short
from qprune.training import Opened, load_model, model_file, open_model, runs_root, save_small
from qprune.zoo import deployed


@click.command(cls=Command)
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
    file = new_file(out.parent, out.name)
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


@click.command(cls=Command)
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
    file = new_file(out.parent, out.name)
    record = new_file(out.parent, f"{out.stem}.certificate.json")
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

"""`report`: a run as one HTML page."""

import logging
from pathlib import Path
from typing import Any

from torch import nn

from qprune.errors import QpruneError
from qprune.pages import run_page, write_page
from qprune.run_record import RunRecord
from qprune.tasks import Task
from qprune.trained import with_data
from qprune.training import Opened, Provided, choose_device, open_model, runs_root

log = logging.getLogger(__name__)


def report(
    run: Path | str,
    out: Path | str | None = None,
    *,
    model: nn.Module | None = None,
    data: Any = None,
    task: Task | None = None,
    runs: Path | str | None = None,
    device: str | None = None,
) -> Path:
    """Write a page about a finished run: what was trained, scores, costs, the training, the network, the certificate.

    The page is one file without scripts that needs no network. On it are the chain of runs that this one comes from;
    parameters, MACs, bit operations, packed bytes and, if a certificate beside the model tells it, latency; losses and
    metrics with the time line of masks and quantizers; channels and bits of every layer; what shrinking could not
    remove, and why; and what the network makes of test images. What is not at hand is said in its place. Needs the
    extra: ``pip install "qprune[report]"``.

    Args:
        run: a run folder, or its name below the runs' root.
        out: the file; by default ``report.html`` in the run's folder. One that is there is replaced.
        model: as for `load`.
        data: as for `fit`; of a run on data of your own, or whose folder is elsewhere now, it is needed to show images.
        task: as for `fit`.
        runs: where run folders lie.
        device: as for `fit`.

    Returns:
        the file.

    Raises:
        CheckpointError: if there is no such run, it is not finished, or its report or spec cannot be read.
        QpruneError: if the packages are missing, or the file cannot be written.

    Example:
        >>> qprune.report("runs/digits/a75_w4a4").name
        'report.html'
    """
    record = RunRecord.open(run, runs)

    def opened() -> Opened:
        return with_data(open_model(record.run.path, runs_root(runs), model), data)

    page = run_page(record, opened, task, choose_device(device))
    return write_page(record.run.inside(record.run.path / "report.html") if out is None else Path(out), page)


def report_if_possible(run: Path, provided: Provided, runs: Path, device: str | None) -> None:
    """The page that trackers are given at the end of a training, which needs none."""
    try:
        data = provided.folder if provided.data is None else provided.data
        report(run, model=provided.model, data=data, task=provided.task, runs=runs, device=device)
    except QpruneError as error:
        log.warning("There is no page about %s for trackers: %s", run, error)

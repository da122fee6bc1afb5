"""The runs of a chain side by side: what each cost and what it bought."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qprune.costs.density import merit, performance_density
from qprune.costs.report_file import UnreadableReportError, read_report
from qprune.readable import score_text
from qprune.tables import bits_list, short, table

log = logging.getLogger(__name__)

HEADER = ("parameters kept", "share", "weight bits", "act bits", "packed")
LEFT_OUT = (7, 3, 4, 3)  # columns, each of those that are left: density, share, bits of activations, of weights


def chain_table(rows: Sequence[Mapping[str, Any]], width: int | None = None) -> str:
    """Compare runs in a printed table, one line each, in the order given.

    The score is the metric by which the last run's task chooses. Performance density is that score, as a share of 1, or
    one over it where less is better, per MB; see `performance_density`. The share of the parameters is that of the
    run's own network. What a run does not have is shown as ``-``.

    Args:
        rows: for each run what its ``report.json`` holds: ``"name"``, ``"monitor"`` and ``"mode"`` of its task,
            ``"scores"`` (``{"test": {"accuracy": 0.97}}``) and ``"costs"`` (the total of `Summary.to_dict`).
        width: columns that there are. Where they are too few, the header takes two lines, and then the last columns but
            the packed size are left out; None is as many as it takes.

    Example:
        >>> costs = {"parameters": 80, "parameters_kept": 20, "weight_bits": [4], "activation_bits": [4, 32],
        ...          "packed_bytes": 10, "megabytes": 0.5}
        >>> task = {"monitor": "accuracy", "mode": "max"}
        >>> print(chain_table([{"name": "a75", "scores": {"test": {"accuracy": 0.75}}, "costs": costs} | task]))
        run  test accuracy  parameters kept   share  weight bits  act bits  packed  accuracy per MB
        -------------------------------------------------------------------------------------------
        a75        75.00 %               20  25.0 %            4     4, 32    10 B              1.5
    """
    names, cells = chain_cells(rows)
    header = list(names)
    text = table(header, cells, right="lrrrrrrr")
    for left_out in (None, *LEFT_OUT):
        if width is None or max(map(len, text.splitlines())) <= width:
            break
        if left_out is not None:
            for line in (header, *cells):
                del line[left_out]
        text = table(header, cells, right="l".ljust(len(header), "r"), broken=True)
    return text


def chain_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[list[str]]]:
    """The header and the lines of `chain_table`, which take the same rows.

    Example:
        >>> chain_cells([])[0][:2]
        ('run', 'test accuracy')
    """
    monitor, mode = (rows[-1][key] for key in ("monitor", "mode")) if rows else ("accuracy", "max")
    header = ("run", f"test {monitor}", *HEADER, f"{'1 / ' if mode == 'min' else ''}{monitor} per MB")
    return header, [_cells(row, monitor, mode) for row in rows]


def chain_of(name: str, root: Path) -> list[dict[str, Any]]:
    """The reports of a run below ``root`` and of the runs before it, first to last, as far back as there are reports.

    So does a damaged one, of which a warning tells: the run itself has long been trained, and nothing is lost.

    Example:
        >>> [report["name"] for report in chain_of("digits/a75_w4a4", Path("runs"))]
        ['digits/baseline', 'digits/a75_layerwise', 'digits/a75_w4a4']
    """
    reports: dict[str, dict[str, Any]] = {}
    # a run that was trained anew from one of its successors closes a circle
    while name and name not in reports:
        file = root / name / "report.json"
        try:
            reports[name] = read_report(file)
        except UnreadableReportError as error:
            if not error.missing:
                log.warning("%s is left out of the table: %s. Score the run again with --resume.", file, error.reason)
            break
        name = reports[name]["init"]
    return list(reversed(reports.values()))


def _cells(row: Mapping[str, Any], monitor: str, mode: str) -> list[str]:
    score, costs = row.get("scores", {}).get("test", {}).get(monitor), row["costs"]
    shown = "-" if score is None else score_text(monitor, score)
    share, worth = costs["parameters_kept"] / max(1, costs["parameters"]), merit(score, mode)
    density = None if worth is None or not costs["megabytes"] else performance_density(worth, costs["megabytes"])
    return [
        str(row["name"]),
        shown,
        f"{costs['parameters_kept']:,}",
        f"{share:.1%}".replace("%", " %"),
        *(bits_list(costs[key]) for key in ("weight_bits", "activation_bits")),
        short(costs["packed_bytes"], "B"),
        "-" if density is None else f"{density:.4g}",
    ]

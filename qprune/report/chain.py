"""The runs of a chain side by side: what each cost and what it bought."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qprune.readable import score_text
from qprune.regular_files import read_regular
from qprune.report.density import merit, performance_density
from qprune.report.tables import bits_list, short, table

log = logging.getLogger(__name__)

LARGEST = 2**20  # bytes of a report; 255 scores take 10,000
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
    monitor, mode = (rows[-1][key] for key in ("monitor", "mode")) if rows else ("accuracy", "max")
    header = ["run", f"test {monitor}", *HEADER, f"{'1 / ' if mode == 'min' else ''}{monitor} per MB"]
    cells = [_cells(row, monitor, mode) for row in rows]
    text = table(header, cells, right="lrrrrrrr")
    for left_out in (None, *LEFT_OUT):
        if width is None or max(map(len, text.splitlines())) <= width:
            break
        if left_out is not None:
            for line in (header, *cells):
                del line[left_out]
        text = table(header, cells, right="l".ljust(len(header), "r"), broken=True)
    return text


def chain_of(name: str, root: Path) -> list[dict[str, Any]]:
    """The reports of a run and of the runs before it, the first one first, as far back as there are reports.

    So does a damaged one, of which a warning tells: the run itself has long been trained, and nothing is lost.

    Args:
        name: the run's name below ``root``.
        root: where run folders lie.

    Example:
        >>> [report["name"] for report in chain_of("digits/a75_w4a4", Path("runs"))]
        ['digits/baseline', 'digits/a75_layerwise', 'digits/a75_w4a4']
    """
    reports: dict[str, dict[str, Any]] = {}
    # a run that was trained anew from one of its successors closes a circle
    while name and name not in reports:
        file = root / name / "report.json"
        try:
            reports[name] = _report(read_regular(file, LARGEST))
        except (FileNotFoundError, NotADirectoryError):
            break
        except (OSError, _DamagedError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            log.warning("%s is left out of the table: %s. Score the run again with --resume.", file, reason)
            break
        name = reports[name]["init"]
    return list(reversed(reports.values()))


class _DamagedError(Exception):
    """A report that cannot be shown, with the reason."""


def _report(content: bytes) -> dict[str, Any]:
    """Parse a report, and check what `chain_table` needs of it."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, nested too deep, or a number of thousands of digits
        raise _DamagedError("it is not JSON") from None
    if not isinstance(found, dict):
        raise _DamagedError("it is no table")
    costs = found.get("costs")
    right = {
        "name": isinstance(found.get("name"), str),
        "init": found.get("init", 0) is None or (isinstance(found.get("init"), str) and "\0" not in found["init"]),
        "monitor": isinstance(found.get("monitor"), str),
        "mode": found.get("mode") in ("max", "min"),
        "scores": _are_scores(found.get("scores")),
        "costs": isinstance(costs, dict)
        and all(_is_number(costs.get(key)) for key in ("parameters", "parameters_kept", "packed_bytes", "megabytes"))
        and all(_are_bits(costs.get(key)) for key in ("weight_bits", "activation_bits")),
    }
    wrong = next((key for key, holds in right.items() if not holds), None)
    if wrong is not None:
        raise _DamagedError(f"it has no {wrong} as a report has")
    return found


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e15


def _are_bits(value: Any) -> bool:
    return isinstance(value, list) and all(type(bits) is int and 0 < bits <= 64 for bits in value)


def _are_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(scores, dict) and all(type(score) is float or _is_number(score) for score in scores.values())
        for scores in value.values()
    )


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

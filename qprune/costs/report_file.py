"""`report.json` of a run: its scores and costs, checked as far as tables and pages need them."""

import json
from pathlib import Path
from typing import Any

from qprune.errors import CheckpointError
from qprune.regular_files import read_regular

LARGEST = 2**20  # bytes of a report; 255 scores take 10,000
NUMBERS = ("parameters", "parameters_kept", "packed_bytes", "megabytes")
LATER = ("macs", "macs_kept", "bit_operations")  # what a report may lack, but not have wrong


class UnreadableReportError(CheckpointError):
    """A report that is missing or damaged.

    Attributes:
        reason: what is wrong with it.
        missing: whether there is none.
    """

    def __init__(self, file: Path, reason: str, missing: bool = False) -> None:
        super().__init__(f"{file} cannot be used: {reason}. Score the run again with --resume.")
        self.reason, self.missing = reason, missing


def read_report(file: Path) -> dict[str, Any]:
    """What a ``report.json`` holds: ``"name"``, ``"init"``, ``"monitor"``, ``"mode"``, ``"scores"``, ``"costs"``.

    Args:
        file: the report; somebody else may have written it.

    Raises:
        UnreadableReportError: if it is missing, damaged, or lacks what every report has.

    Example:
        >>> read_report(Path("runs/digits/baseline/report.json"))["monitor"]
        'accuracy'
    """
    try:
        found = json.loads(read_regular(file, LARGEST))
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableReportError(file, "it is missing", missing=True) from None
    except OSError as error:
        raise UnreadableReportError(file, str(error.strerror)) from None
    except (ValueError, RecursionError):  # no JSON, no UTF-8, nested too deep, or a number of thousands of digits
        raise UnreadableReportError(file, "it is not JSON") from None
    if not isinstance(found, dict):
        raise UnreadableReportError(file, "it is no table")
    wrong = next((key for key, holds in _checks(found).items() if not holds), None)
    if wrong is not None:
        raise UnreadableReportError(file, f"it has no {wrong} as a report has")
    return found


def _checks(found: dict[str, Any]) -> dict[str, bool]:
    costs = found.get("costs")
    return {
        "name": isinstance(found.get("name"), str),
        "init": found.get("init", 0) is None or (isinstance(found.get("init"), str) and "\0" not in found["init"]),
        "monitor": isinstance(found.get("monitor"), str),
        "mode": found.get("mode") in ("max", "min"),
        "scores": _are_scores(found.get("scores")),
        "costs": isinstance(costs, dict)
        and all(_is_number(costs.get(key)) for key in NUMBERS)
        and all(_is_number(costs.get(key, 0)) for key in LATER)
        and all(_are_bits(costs.get(key)) for key in ("weight_bits", "activation_bits")),
    }


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e18


def _are_bits(value: Any) -> bool:
    return isinstance(value, list) and all(type(bits) is int and 0 < bits <= 64 for bits in value)


def _are_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(scores, dict) and all(type(score) is float or _is_number(score) for score in scores.values())
        for scores in value.values()
    )

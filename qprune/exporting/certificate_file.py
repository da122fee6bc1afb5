"""Reading a certificate back from its JSON file."""

import json
from pathlib import Path
from typing import Any

from qprune.errors import ExportError
from qprune.exporting.certificate import Agreement, Certificate, Elsewhere, Environment
from qprune.exporting.running import Operators
from qprune.regular_files import read_regular

LARGEST = 2**24  # bytes


def read_certificate(file: Path) -> Certificate:
    """The certificate that `Certificate.to_json` wrote, or somebody else did.

    Raises:
        ExportError: if it cannot be read, or holds something else.

    Example:
        >>> read_certificate(Path("model.certificate.json")).outputs[0].name
        'output'
    """
    try:
        certificate = _certificate(json.loads(read_regular(file, LARGEST)))
        str(certificate)  # what has a value of another kind somewhere cannot be shown
    except OSError as error:
        raise ExportError(f"{file} cannot be used: {error.strerror}. Export the run again.") from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise ExportError(f"{file} holds no certificate as qprune writes it. Export the run again.") from None
    return certificate


def _certificate(found: dict[str, Any]) -> Certificate:
    outputs, quantizers = (_agreements(found[name]) for name in ("outputs", "quantizers"))
    parts: dict[str, Any] = {"outputs": outputs, "quantizers": quantizers}
    parts |= {"environment": Environment(**found["environment"]), "operators": Operators(**found["operators"])}
    elsewhere = {
        name: Elsewhere(**{**each, "outputs": _agreements(each["outputs"])})
        for name, each in found["elsewhere"].items()
    }
    scores = {name: (float(trained), float(exported)) for name, (trained, exported) in found["scores"].items()}
    times = {name: float(value) for name, value in found["milliseconds"].items()}
    return Certificate(**{**found, **parts, "elsewhere": elsewhere, "scores": scores, "milliseconds": times})


def _agreements(found: list[dict[str, Any]]) -> tuple[Agreement, ...]:
    return tuple(Agreement(**each) for each in found)

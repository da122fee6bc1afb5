"""Facts about a network in an exported file, checked when they are read, since anybody may have written the file."""

import json
import os
from typing import Any

from qprune.errors import CheckpointError, ExportError
from qprune.spec import Spec
from qprune.training import check_images, is_about_images, spec_of

ABOUT = "qprune"  # the key of it in a file's metadata
STRIDE = 4096  # the largest; networks of the zoo have up to 32


def parse_about(text: str, source: Any) -> dict[str, Any]:
    """The metadata of a file as a table; empty where there is none."""
    try:
        about = json.loads(text or "{}")
    except RecursionError:
        raise _damaged(source, "it is nested too deep") from None
    except ValueError:  # also for numbers of thousands of digits
        raise _damaged(source, "it is not JSON, or holds a number of thousands of digits") from None
    if not isinstance(about, dict):
        raise _damaged(source, "it is no table")
    return about


def check_about(about: dict[str, Any], source: str | os.PathLike[str]) -> Spec:
    """Refuse metadata that `qprune.exporting.run` does not write; give the spec in it."""
    if not about:
        raise ExportError(
            f"{source} does not say what it was trained for: only files that qprune made of a run do. Run it with "
            "onnxruntime, or with qprune.exporting.OnnxModel."
        )
    missing = [name for name in ("spec", "classes", "shape", "palette", "stride") if name not in about]
    if missing:
        raise _damaged(source, f"it has no {', '.join(missing)}")
    if not is_about_images(about) or not about["shape"]:
        raise _damaged(source, "its classes, shape or palette are not as they should be")
    if type(about["stride"]) is not int or not 1 <= about["stride"] <= STRIDE:
        raise _damaged(source, f"its stride is no whole number from 1 to {STRIDE}")
    try:
        spec = spec_of(about["spec"], source)
        check_images(about["shape"], spec, source)
    except CheckpointError as error:
        raise ExportError(str(error)) from error
    return spec


def _damaged(source: Any, reason: str) -> ExportError:
    return ExportError(
        f"What {source} says about its network cannot be read: {reason}. Export the run again, or run the file with "
        "onnxruntime or torch."
    )

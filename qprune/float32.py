"""Float32 as it is written: in which precision torch multiplies float32 numbers, for as long as a block lasts.

torch lets processors round the factors of float32 products to fewer bits: cuDNN's convolutions to those of TF32 unless
somebody forbids it, others where ``torch.set_float32_matmul_precision`` or ``torch.backends`` allow it. These settings
hold for the whole process.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

GPU = (("cuda", "matmul"), ("cudnn", "conv"), ("cudnn", "rnn"))
CPU = (("mkldnn", "matmul"), ("mkldnn", "conv"), ("mkldnn", "rnn"))


@contextmanager
def float32_math(*, tf32: bool = False) -> Iterator[None]:
    """Compute float32 products in float32 meanwhile, whatever the process allowed; then put its settings back.

    Args:
        tf32: let GPUs round the factors to TF32, which has the range of float32 and 10 bits after the point. On a CPU
            it changes nothing.

    Example:
        >>> with float32_math():
        ...     print(torch.backends.cudnn.allow_tf32)
        False
    """
    before = _settings()
    try:
        _choose(tf32, before)
        yield
    finally:
        _restore(before)


def _choose(tf32: bool, before: dict[str, Any]) -> None:
    # both spellings, because torch refuses to read the older one where they disagree; it stays where they did before
    if "products" in before:
        torch.backends.cuda.matmul.allow_tf32 = tf32
    if "cudnn" in before:
        torch.backends.cudnn.allow_tf32 = tf32
    for place in (*GPU, *CPU):
        _write(place, "tf32" if tf32 and place in GPU else "ieee")


def _settings() -> dict[str, Any]:
    """What the process has now; an older spelling that torch cannot read is left out."""
    found: dict[str, Any] = {"places": {place: _read(place) for place in (*GPU, *CPU)}}
    older = {"products": torch.get_float32_matmul_precision, "cudnn": lambda: torch.backends.cudnn.allow_tf32}
    for name, read in older.items():
        with suppress(RuntimeError):  # somebody used the newer spelling, and the older one says something else
            found[name] = read()
    return found


def _restore(before: dict[str, Any]) -> None:
    if "products" in before:
        torch.set_float32_matmul_precision(before["products"])
    if "cudnn" in before:
        torch.backends.cudnn.allow_tf32 = before["cudnn"]
    for place, precision in before["places"].items():  # afterwards, because the older spelling writes to them
        for attempt in ("none", precision):  # with none of its own, a place reads what is set for all
            if _read(place) != precision:
                _write(place, attempt)


def _place(place: tuple[str, str]) -> Any:
    """The setting of one library and operation; None before torch 2.9, which has the older spelling alone."""
    found = getattr(getattr(torch.backends, place[0]), place[1], None)
    return found if hasattr(found, "fp32_precision") else None


def _read(place: tuple[str, str]) -> str | None:
    found = _place(place)
    return None if found is None else str(found.fp32_precision)


def _write(place: tuple[str, str], precision: str | None) -> None:
    found = _place(place)
    if found is not None and precision is not None:
        found.fp32_precision = precision

"""Checkpoint files: tensors and plain types only, written whole or not at all, verified when they are read."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from qprune.errors import CheckpointError
from qprune.escaping import visible
from qprune.training.archive import UnsafeError, check_archive
from qprune.training.content import check_content, checksum, plain
from qprune.training.writing import replaced
from qprune.version import __version__

FORMAT = 2


class DamagedError(CheckpointError):
    """A checkpoint that is missing or damaged, with the ``reason``, so that an earlier one may serve."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = visible(reason)


def save(path: str | os.PathLike[str], content: Mapping[str, Any], *, keep_as: str | None = None) -> None:
    """Write ``content`` to ``path`` so that a crash leaves either the old file or the new one.

    Added to it are ``format``, the version of this layout, ``written_by``, the versions of qprune and torch, and
    ``checksum``, by which `load` notices damage.

    Args:
        path: where to; its folder must exist.
        content: tensors, None, bool, int, float and str, in dicts, lists and tuples.
        keep_as: the name, in the same folder, under which the file that was there is kept; by default it is deleted.

    Raises:
        CheckpointError: for any other type, whose place is named; or if the file cannot be written, say on a full disk.
    """
    head = {"format": FORMAT, "written_by": {"qprune": __version__, "torch": str(torch.__version__)}}
    whole = head | {name: plain(value, name) for name, value in content.items() if name not in (*head, "checksum")}
    whole["checksum"] = checksum(whole)
    with replaced(Path(path), keep_as) as file:
        _write(whole, file)


def _write(whole: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(whole, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error  # torch tells of a position in the file instead of the full disk
        raise


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save` wrote, onto the CPU, without running any code that the file might hold.

    Raises:
        DamagedError: if the file is missing, or not to the bit what was written.
        CheckpointError: if it is not from qprune, or of another format.

    Example:
        >>> load("last.pt")["step"]
        5
    """
    if not Path(path).is_file():
        raise DamagedError(f"There is no checkpoint {path}. Train first, or check the path.", "it is missing")
    try:
        return _verified(Path(path))
    except CheckpointError:
        raise
    except UnsafeError as error:
        raise _damaged(path, str(error)) from error
    except Exception as error:  # torch raises many kinds: RuntimeError, EOFError, UnpicklingError, KeyError ...
        reason = str(error).split("\n")[0].split(". ")[0]
        text = f"it is cut off, or not a file of tensors and plain types ({reason or type(error).__name__})"
        raise _damaged(path, text) from error


def _verified(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        stored = check_archive(file)
        size = file.seek(0, 2)
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
    _check_format(content, path)
    check_content(content, size, stored)
    if content.pop("checksum", None) != checksum(content):
        raise UnsafeError("its checksum is not that of its content, so it was changed after it was written")
    return content


def _damaged(path: str | os.PathLike[str], reason: str) -> DamagedError:
    return DamagedError(
        f"{path} cannot be read: {reason}. Use another checkpoint of the run, or train it again.", reason
    )


def _check_format(content: Any, path: str | os.PathLike[str]) -> None:
    found = content.get("format") if isinstance(content, dict) else None
    if type(found) is not int or not 0 < found < 1_000_000:
        raise CheckpointError(
            f"{path} was not written by qprune. A plain state_dict is loaded with net.load_state_dict."
        )
    if found > FORMAT:
        raise CheckpointError(
            f"{path} has format {found}, written by {_writer(content)}; this is qprune {__version__}, which reads "
            f"format {FORMAT}. Upgrade qprune."
        )
    if found < FORMAT:
        raise CheckpointError(
            f"{path} has format {found}, which has no checksum, written by {_writer(content)}; this is qprune "
            f"{__version__}, which reads format {FORMAT}. Train it again."
        )


def _writer(content: dict[str, Any]) -> str:
    writer = content.get("written_by")
    known = writer.get("qprune") if isinstance(writer, dict) else None
    return f"qprune {known[:20]}" if isinstance(known, str) else "another version"


def load_state(net: nn.Module, state: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
    """Load a network's state strictly, to the bit; compressors that the state knows nothing of start fresh."""
    if not all(type(key) is str and isinstance(value, Tensor) for key, value in state.items()):
        raise CheckpointError(f"{source} is of no network: its state is not one of tensors with names.")
    own = net.state_dict()
    check_dtypes(state, own, source)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        differences = [
            few("missing", own.keys() - state.keys(), own),
            few("unknown", state.keys() - own.keys(), state),
            few("of another shape", (k for k in own if k in state and own[k].shape != state[k].shape), own),
        ]
        if "is incomplete" in str(error):
            differences = [str(error).split("\n\t")[-1].strip().rstrip(".")]
        raise CheckpointError(
            f"{source} is of another network: {'; '.join(filter(None, differences))}. "
            "Build the network from the spec it was trained with."
        ) from error


def check_dtypes(state: Mapping[str, Any], own: Mapping[str, Any], source: str | os.PathLike[str]) -> None:
    """Refuse tensors that torch would round, or turn into other numbers, on their way into a network."""
    pairs = {key: (state[key], own[key]) for key in own if key in state}
    other = [key for key, both in pairs.items() if all(isinstance(each, Tensor) for each in both)
             and both[0].dtype != both[1].dtype]  # fmt: skip
    if other:
        found, wanted = (str(each.dtype).removeprefix("torch.") for each in pairs[other[0]])
        raise CheckpointError(
            f"{source} is {few('of another dtype', other, other)} ({found}, and {wanted} is wanted). Nothing is "
            "rounded in passing: bring the network to the dtype of the file before, or build it from the spec it was "
            "trained with."
        )


def few(what: str, keys: Iterable[str], order: Iterable[str]) -> str:
    """The first three of some keys and how many more there are, for a sentence; empty if there are none."""
    wanted = set(keys)
    found = [key for key in order if key in wanted]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{what}: {', '.join(found[:3])}{more}" if found else ""

"""Checkpoint files: tensors and plain types only, written whole or not at all."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from qprune.errors import CheckpointError

FORMAT = 1
_PLAIN = (type(None), bool, int, float, str)


def save(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write ``content`` to ``path`` so that a crash leaves either the old file or the new one.

    Added to it are ``format``, the version of this layout, and ``written_by``, the versions of qprune and torch.

    Args:
        path: where to; its folder must exist.
        content: tensors, None, bool, int, float and str, in dicts, lists and tuples.

    Raises:
        CheckpointError: for any other type; the place is named.

    Example:
        >>> save("last.pt", {"step": 5, "net": net.state_dict()})
    """
    whole = {"format": FORMAT, "written_by": {"qprune": _version(), "torch": str(torch.__version__)}}
    whole |= {name: _plain(value, name) for name, value in content.items()}
    with replaced(Path(path)) as file:
        torch.save(whole, file)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save` wrote, onto the CPU, without running any code that the file might hold.

    Raises:
        CheckpointError: if the file is missing, unreadable, not from qprune, or from a newer qprune.

    Example:
        >>> load("last.pt")["step"]
        5
    """
    if not Path(path).is_file():
        raise CheckpointError(f"There is no checkpoint {path}. Train first, or check the path.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds: RuntimeError, EOFError, UnpicklingError, KeyError ...
        reason = str(error).split("\n")[0].split(". ")[0]
        raise CheckpointError(
            f"{path} cannot be read: it is cut off, or not a file of tensors and plain types ({reason}). "
            "Use another checkpoint of the run, or train it again."
        ) from error
    _check_format(content, path)
    return content


def _check_format(content: Any, path: str | os.PathLike[str]) -> None:
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise CheckpointError(
            f"{path} was not written by qprune. A plain state_dict is loaded with net.load_state_dict."
        )
    if content["format"] > FORMAT:
        writer = content.get("written_by", {}).get("qprune", "a newer version")
        raise CheckpointError(
            f"{path} has format {content['format']}, written by qprune {writer}; this is qprune {_version()}, "
            f"which reads up to format {FORMAT}. Upgrade qprune."
        )


def load_state(net: nn.Module, state: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
    """Load a network's state strictly; compressors that the state knows nothing of start fresh.

    Args:
        net: the network.
        state: a ``state_dict``.
        source: what it came from, for the error.

    Raises:
        CheckpointError: if the state is of another network; the first few differences are named.
    """
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        own = net.state_dict()
        differences = [
            _few("missing", own.keys() - state.keys(), own),
            _few("unknown", state.keys() - own.keys(), state),
            _few("of another shape", (k for k in own if k in state and own[k].shape != state[k].shape), own),
        ]
        if "is incomplete" in str(error):
            differences = [str(error).split("\n\t")[-1].strip().rstrip(".")]
        raise CheckpointError(
            f"{source} is of another network: {'; '.join(filter(None, differences))}. "
            "Build the network from the spec it was trained with."
        ) from error


def _few(what: str, keys: Iterable[str], order: Iterable[str]) -> str:
    wanted = set(keys)
    found = [key for key in order if key in wanted]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{what}: {', '.join(found[:3])}{more}" if found else ""


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """Write a file next to ``path`` and, if all goes well, put it in its place in one move.

    Example:
        >>> with replaced(Path("history.csv")) as file:
        ...     _ = file.write(b"loss\\n0.5\\n")
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _plain(value: Any, place: str) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {_key(key, place): _plain(entry, f"{place}.{key}") for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(entry, f"{place}[{index}]") for index, entry in enumerate(value))
    raise CheckpointError(
        f"A checkpoint holds tensors, numbers, text, lists, tuples and dicts only; received a {type(value).__name__} "
        f"at {place}. Convert it in the state_dict that it comes from."
    )


def _key(key: Any, place: str) -> Any:
    if type(key) in _PLAIN:
        return key
    raise CheckpointError(f"A checkpoint's keys are text or numbers; received a {type(key).__name__} in {place}.")


def _version() -> str:
    try:
        return version("qprune")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"

"""Files of weights: what they hold, read without running anything in them."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from qprune.errors import CheckpointError

State = dict[str, Tensor]
_INNER = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put a network's state
_WRAPPED = ("module.", "_orig_mod.")  # before the names of a network in DistributedDataParallel, or compiled


def read_state(file: Path) -> State:
    """The tensors of a file of weights, under their names; nothing in it is run.

    What is a table with the state under ``"state_dict"`` or ``"model"`` is opened, and ``module.`` before all names,
    which DistributedDataParallel puts there, is taken off.

    Raises:
        CheckpointError: if it cannot be read, or is no table of names and tensors.

    Example:
        >>> torch.save(nn.Linear(3, 5).state_dict(), "linear.pth")
        >>> list(read_state(Path("linear.pth")))
        ['weight', 'bias']
    """
    content = _content(file)
    inner = next((key for key in _INNER if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)), "")
    state = content[inner] if inner else content
    if isinstance(content, Mapping) and {"format", "written_by", "spec"} <= content.keys():
        raise CheckpointError(f"{file} is a model of qprune: name its run with init, in place of weights.")
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{file} must hold a state_dict; it holds {_told(state)}. {_WAY_OUT}")
    for key, value in state.items():
        if not isinstance(key, str) or not _is_plain(value):
            raise CheckpointError(
                f"{file} must hold a state_dict, tensors under their names; under {key!r} it holds {_told(value)}. "
                f"{_WAY_OUT}"
            )
    return _unwrapped(dict(state))


_WAY_OUT = "Write one with torch.save(net.state_dict(), file)."


def _content(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return _safetensors(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds more than tensors and plain types, or was not written by torch, and is not opened. "
            f"{_WAY_OUT}"
        ) from error
    except Exception as error:  # torch raises many kinds: RuntimeError, EOFError, KeyError ...
        raise _damaged(file, error) from error


def _safetensors(file: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(f"{file} needs the package safetensors: pip install safetensors.") from error
    try:
        return load_file(file)
    except Exception as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> CheckpointError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0].rstrip(".")
    return CheckpointError(f"{file} cannot be read: it is damaged or no file of weights ({reason}). {_WAY_OUT}")


def _unwrapped(state: State) -> State:
    for prefix in _WRAPPED:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _is_plain(value: object) -> bool:
    if not isinstance(value, Tensor) or value.is_meta:
        return False
    return value.layout is torch.strided and not value.is_quantized


def _told(value: object) -> str:
    if isinstance(value, Tensor) and not _is_plain(value):
        kind = "quantized" if value.is_quantized else "sparse"
        return "a tensor without values" if value.is_meta else f"a {kind} tensor"
    return "nothing" if isinstance(value, Mapping) and not value else f"a value of type {type(value).__name__}"

"""Checks that a checkpoint holds tensors and plain types only, not too many of them, and computes its checksum."""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from qprune.errors import CheckpointError
from qprune.training.archive import UnsafeError

DEPTH = 50  # levels of dicts, lists and tuples in each other; a training takes 6
_PLAIN = (type(None), bool, int, float, str)
_NESTING = (dict, list, tuple)


def plain(value: Any, place: str, depth: int = 1) -> Any:
    """The value as tensors and plain types in plain containers."""
    if depth > DEPTH:
        raise CheckpointError(f"A checkpoint is nested at most {DEPTH} deep; {place[:60]} ... goes deeper. Flatten it.")
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        # brought to the host here: the checksum and the file would each bring it there
        value = value.detach() if value.is_meta else value.detach().cpu()
    if isinstance(value, Tensor) and _is_dense(value):
        return value.contiguous() if _repeats(value) else value
    if isinstance(value, Mapping):
        odd = next((key for key in value if type(key) not in _PLAIN), None)
        if odd is not None:
            raise CheckpointError(
                f"A checkpoint's keys are text or numbers; received a {type(odd).__name__} in {place}."
            )
        return {key: plain(entry, f"{place}.{key}", depth + 1) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(entry, f"{place}[{index}]", depth + 1) for index, entry in enumerate(value))
    raise CheckpointError(
        f"A checkpoint holds dense tensors, numbers, text, lists, tuples and dicts only; received a {_kind(value)} "
        f"at {place}. Convert it in the state_dict that it comes from."
    )


def _kind(value: Any) -> str:
    return f"{type(value).__name__} ({value.layout})" if isinstance(value, Tensor) else type(value).__name__


def _is_dense(tensor: Tensor) -> bool:
    odd = tensor.is_quantized or tensor.is_nested or tensor.is_meta or tensor.is_conj() or tensor.is_neg()
    return type(tensor) is Tensor and tensor.layout is torch.strided and not odd


def _repeats(tensor: Tensor) -> bool:
    """Whether the tensor takes more bytes than it has, as after ``expand``."""
    return tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes()


def check_content(content: Any, limit: int, stored: Iterable[int]) -> None:
    """Refuse what `plain` does not write, without spending more time or memory than the file's size warrants.

    There may be ``limit`` entries, and ``stored`` are the sizes in bytes of the tensor storages in the file.
    """
    sizes = {}
    for count, entry in enumerate(walk(content)):
        if count > limit:
            raise UnsafeError(f"it is {limit:,} bytes long and holds more entries than that")
        if isinstance(entry, Tensor):
            _check_tensor(entry)
            sizes[entry.untyped_storage().data_ptr()] = entry.untyped_storage().nbytes()
        elif type(entry) not in _PLAIN + _NESTING:
            raise UnsafeError(f"it holds a {type(entry).__name__}, and a checkpoint never does")
    if sorted(filter(None, sizes.values())) != sorted(filter(None, stored)):
        raise UnsafeError("its tensors have other sizes than what is stored of them")


def _check_tensor(tensor: Tensor) -> None:
    if not _is_dense(tensor) or tensor.device.type != "cpu":
        raise UnsafeError(f"it holds a {_kind(tensor)} on {tensor.device}, and a checkpoint never does")
    if _repeats(tensor):
        size = tensor.numel() * tensor.itemsize
        raise UnsafeError(f"a tensor in it declares {size:,} bytes, of which few are stored")


def walk(value: Any, depth: int = 0) -> Iterator[Any]:
    """Every entry of a content in its order: containers, then their keys and entries."""
    if depth > DEPTH:
        raise UnsafeError(f"it is nested deeper than {DEPTH} levels")
    yield value
    if isinstance(value, dict):
        for key, entry in value.items():
            if type(key) not in _PLAIN:
                raise UnsafeError(f"it has a {type(key).__name__} for a key, and a checkpoint never does")
            yield key
            yield from walk(entry, depth + 1)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from walk(entry, depth + 1)


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 over every entry, with its type, and the bytes, types and shapes of the tensors.

    It does not depend on how the entries are stored in a file, and takes each storage once, however many tensors share
    it.

    Example:
        >>> checksum({"step": 5}) == checksum({"step": 5.0})
        False
    """
    digest = sha256()
    storages: dict[tuple[Any, ...], str] = {}
    for entry in walk(content):
        text = _tensor(entry, storages) if isinstance(entry, Tensor) else _text(entry)
        named = f"{type(entry).__name__} {len(text)} {text}"
        digest.update(named.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _text(entry: Any) -> str:
    if isinstance(entry, _NESTING):
        return str(len(entry))
    if isinstance(entry, float):
        return entry.hex()
    return f"{entry:x}" if type(entry) is int else str(entry)  # Python refuses to print long integers as decimals


def _tensor(tensor: Tensor, storages: dict[tuple[Any, ...], str]) -> str:
    storage = tensor.untyped_storage()
    place = (storage.device, storage.data_ptr(), storage.nbytes())
    if place not in storages:
        values = torch.empty(0, dtype=torch.uint8).set_(storage.cpu()).numpy()
        storages[place] = sha256(values.data).hexdigest()
    return f"{tensor.dtype} {tensor.storage_offset()} {list(tensor.shape)} {tensor.stride()} {storages[place]}"

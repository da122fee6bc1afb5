"""A network as a program of `torch.export`: a ``.pt2`` file, which torch runs without the network's code."""

import io
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from qprune.errors import ExportError, ShrinkError
from qprune.exporting.about import ABOUT, parse_about
from qprune.exporting.certificate import Environment
from qprune.exporting.comparing import Inputs
from qprune.exporting.file_format import Format, Made
from qprune.exporting.replacing import replace_file
from qprune.exporting.running import Operators
from qprune.processor import processor_name
from qprune.regular_files import open_regular
from qprune.shrinking import shrink_with_facts

LARGEST = 2**40  # bytes of a file; torch reads it as it goes
LARGEST_ABOUT = 2**24  # bytes of what qprune wrote about the network
_MARKS = ("archive_format", "serialized_exported_program.json")  # of every program, of today's layout and before


class Program(Format):
    """A program of `torch.export`; see `write_program`."""

    suffix, title = ".pt2", "a program of torch.export"

    def write(
        self, net: nn.Module, inputs: Inputs, *, storage: str, dynamic_size: bool | None, about: Mapping[str, Any]
    ) -> Made:
        """Write the network with its quantizers as they are, and check every bit on the inputs."""
        small, content, program = _program(net, inputs, dynamic_size, about)
        return Made(small, content, program, program.environment, program.operators)

    def open(self, path: str | os.PathLike[str], *, trusted: bool = False) -> "TorchProgram":
        """Open it in torch, if it is trusted."""
        return TorchProgram(path, trusted=trusted)

    def without_quantizers(self, net: nn.Module, inputs: Inputs, dynamic_size: bool | None) -> None:
        """None: every bit was compared with quantizers."""

    def recognizes(self, path: str | os.PathLike[str]) -> bool:
        """Whether a file is laid out as `torch.export` lays out its programs; nothing in it is read but the names."""
        try:
            with open_regular(path, LARGEST) as file, ZipFile(file) as archive:
                return any(name.replace("\\", "/").rpartition("/")[2] in _MARKS for name in archive.namelist())
        except Exception:  # zipfile has many kinds for what is no zip file, or a damaged one
            return False


class TorchProgram(nn.Module):
    """Runs a ``.pt2`` file in torch, on the CPU; any number of images at a time.

    Input and output are those of the network that was exported: tensors, several outputs as a tuple.

    `torch.export.load` runs what it finds in such a file: pickles among its weights, constants and example inputs,
    expressions in its shapes, compiled libraries. So a file must be one that you trust as you would a script.

    Args:
        file: a path, or an open file.
        trusted: whether you trust it; else it is refused, unread.

    Raises:
        ExportError: if it is not trusted, torch cannot read it, or what it says about its network is damaged.

    Example:
        >>> TorchProgram("model.pt2", trusted=True)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, file: str | os.PathLike[str] | IO[bytes], *, trusted: bool = False) -> None:
        super().__init__()
        if not trusted:  # the only way to torch.export.load
            raise ExportError(
                f"{file} is a program of torch.export, and opening one runs whatever code is in the file. If you made "
                "it, or trust who did, say so with trusted=True (--trusted in the shell); else ask for the ONNX file."
            )
        source: Any = file if isinstance(file, io.IOBase) else os.fspath(file)  # type: ignore[arg-type]
        self._about = _read_about(source, file)
        try:
            self._program = torch.export.load(source)
            # in a list: it refuses eval(), which this network's own call passes on
            self._call = [self._program.module()]
        except Exception as error:  # torch has many kinds, and says in each what it refuses
            words = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ExportError(f"{file} cannot be run: torch refuses it ({words}). Export the network again.") from error
        self.stride = 1  # sides of images must be multiples of it
        count = len(self._program.graph_signature.user_outputs)
        self.outputs = tuple("output" if place == 0 else f"output_{place}" for place in range(count))

    def forward(self, *inputs: Tensor) -> Any:
        """Run it once."""
        results = tree_leaves(self._call[0](*(x.cpu() for x in inputs)))
        tensors = tuple(result.to(inputs[0].device) for result in results)
        return tensors[0] if len(tensors) == 1 else tensors

    @property
    def about(self) -> dict[str, Any]:
        """Spec, classes, shape and palette of the network as qprune wrote them; empty in other files."""
        return self._about

    @property
    def environment(self) -> Environment:
        """The environment in which it runs."""
        return Environment(
            runtime="a program of torch.export",
            processor=processor_name(),
            optimization="its operators as they are",
            saturates=False,
            torch=torch.__version__,
        )

    def operators(self) -> Operators:
        """The calls of the program by kind; all of them compute with real numbers."""
        nodes = [node for node in self._program.graph.nodes if node.op == "call_function"]
        names = Counter(_name(node.target) for node in nodes)
        return Operators(integer={}, real={name: count for name, count in names.items() if name[0] != "_"}, between={})


def _read_about(source: Any, name: Any) -> dict[str, Any]:
    try:
        with ZipFile(source) as archive:
            records = [record for record in archive.infolist() if record.filename.endswith(f"/extra/{ABOUT}")]
            text = b"".join(archive.open(record).read(LARGEST_ABOUT) for record in records[:1])
    except Exception as error:  # zipfile has many kinds
        raise ExportError(f"{name} cannot be run: it is cut off, or no program of torch.export.") from error
    finally:
        if isinstance(source, io.IOBase):
            source.seek(0)
    return parse_about(text.decode("utf-8", "replace"), name)


def _name(target: Any) -> str:
    return str(getattr(target, "_opname", getattr(target, "__name__", target)))


def write_program(
    net: nn.Module,
    path: str | os.PathLike[str],
    example: Any,
    *,
    dynamic_size: bool | None = None,
    about: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Write a network as a program of `torch.export`, and check that the file computes the same bits.

    Dropped channels are taken out and normalizations folded first, see `qprune.shrink`. Quantizers stay as they are in
    the network: they round real numbers. Any number of images may come at a time.

    Args:
        net: any network that `torch.export.export` can follow. It is not touched.
        path: where to, ``"model.pt2"`` say; a file that is there is replaced.
        example: an input of it: a tensor or a tuple of them, of real values where there are any.
        dynamic_size: whether height and width may differ from the example's; by default not.
        about: what else the file is to hold, as plain data.

    Returns:
        the network that was written, shrunk and folded, in eval mode; the file computes its bits on ``example``.

    Raises:
        ExportError: if the network cannot be followed, the file cannot be written, or computes something else.

    Source: https://docs.pytorch.org/docs/stable/export.html

    Example:
        >>> small = write_program(net, "model.pt2", torch.zeros(1, 3, 32, 32))
        >>> outputs = torch.export.load("model.pt2").module()(images)
    """
    inputs = tuple(x.detach().cpu() for x in (example if isinstance(example, tuple) else (example,)))
    small, content, _ = _program(net, inputs, dynamic_size, about or {})
    replace_file(Path(path), content)
    return small


def _program(
    net: nn.Module, inputs: Inputs, dynamic_size: bool | None, about: Mapping[str, Any]
) -> tuple[nn.Module, bytes, TorchProgram]:
    """The network that is written, the content of its file, and what runs that."""
    try:
        small = shrink_with_facts(net, inputs, fold=True).net.cpu()
    except ShrinkError as error:
        raise ExportError(f"{type(net).__name__} cannot be written as a program: {error}") from error
    content = io.BytesIO()
    followed = _followed(small, inputs, bool(dynamic_size))
    torch.export.save(followed, content, extra_files={ABOUT: json.dumps(about)})
    program = TorchProgram(content, trusted=True)  # it has just been written
    _check(small, program, inputs)
    return small, content.getvalue(), program


@torch.no_grad()
def _followed(net: nn.Module, inputs: Inputs, dynamic_size: bool) -> Any:
    free = torch.export.Dim.DYNAMIC
    # one image would be taken for a fixed number of them: torch.export specializes sides of length 1
    several = tuple(torch.cat([x, x]) if len(x) == 1 else x for x in inputs)
    sides = [{0: free} | ({2: free, 3: free} if dynamic_size and x.dim() == 4 else {}) for x in several]
    try:
        return torch.export.export(net, several, dynamic_shapes=tuple(sides))
    except Exception as error:  # the network's own code ran, with what is no tensor
        words = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(
            f"{type(net).__name__} cannot be written as a program: torch.export could not follow it ({words}). Its "
            "forward must not decide by values, or by the number of images."
        ) from error


@torch.no_grad()
def _check(net: nn.Module, program: nn.Module, inputs: Inputs) -> None:
    one, other = tree_leaves(net(*inputs)), tree_leaves(program(*inputs))
    if len(one) != len(other) or not all(torch.equal(*pair) for pair in zip(one, other, strict=True)):
        raise ExportError(
            f"The program computes something else than {type(net).__name__}: its forward depends on values, on the "
            "number of images, or on something outside of the network. No file was written."
        )

"""An ONNX file as a network that the rest of qprune can run, score and time."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor, nn

from qprune.errors import ExportError
from qprune.exporting.about import ABOUT, parse_about
from qprune.exporting.onnx_file import read_onnx
from qprune.exporting.packages import import_runtime
from qprune.exporting.quant_node import runnable


class OnnxModel(nn.Module):
    """Runs an ONNX file in ONNX Runtime on the CPU, with its graph optimizations on; a QONNX file, too.

    Input and output are those of the network that was exported: float tensors, several outputs as a tuple.

    Args:
        file: a path, or the bytes of a model.
        threads: how many threads compute; 0 leaves that to the runtime.
        outputs: names of the outputs to compute, by default all.
        profile: whether to note every operator that runs; `operators` reads it.

    Raises:
        ExportError: if the packages are not installed, the file is none that `read_onnx` reads, or the runtime refuses
            it.

    Example:
        >>> OnnxModel("model.onnx")(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | bytes,
        *,
        threads: int = 0,
        outputs: Sequence[str] | None = None,
        profile: bool = False,
    ) -> None:
        super().__init__()
        runtime = import_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors are raised, too; the runtime would print what is in the file
        # threads that wait in a loop after a run would take the cores from whoever runs next
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._folder = tempfile.TemporaryDirectory() if profile else None
        if self._folder is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._folder.name) / "profile")
        self.name = "The model" if isinstance(file, bytes) else os.fspath(file)
        source = runnable(read_onnx(file)).SerializeToString()
        try:
            # with its fallback it prints what it met in the file, and tries the same again
            self.session = runtime.InferenceSession(
                source, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            self._read_names(outputs)
        except ExportError:
            raise
        except Exception as error:  # the runtime has many kinds, and says in each what it refuses
            raise ExportError(f"{self.name} cannot be run: {error}") from error

    def _read_names(self, outputs: Sequence[str] | None) -> None:
        inputs = self.session.get_inputs()
        if not inputs:
            raise ExportError(f"{self.name} cannot be run on images: it has no input.")
        self.stride = 1  # sides of images must be multiples of it
        first = inputs[0].shape[:1]
        self.batch = first[0] if first and isinstance(first[0], int) else None  # images at a time, if that is fixed
        self.inputs = tuple(each.name for each in inputs)
        self.outputs = tuple(outputs or (each.name for each in self.session.get_outputs()))

    def forward(self, *inputs: Tensor) -> Any:
        """Run it, once or as often as it takes where the number of images is fixed.

        Raises:
            ExportError: if the file does not take such inputs, or gives something else than tensors.
        """
        try:
            return self._outputs(*inputs)
        except Exception as error:  # the runtime has many kinds
            raise ExportError(f"{self.name} cannot be run on what it was given: {error}") from error

    def _outputs(self, *inputs: Tensor) -> Any:
        arrays = [np.ascontiguousarray(x.detach().cpu().float().numpy()) for x in inputs]
        count, size = len(arrays[0]), self.batch or len(arrays[0])
        parts = [self._run(arrays, start, size) for start in range(0, count, size)]
        joined = [parts[0][place] if len(parts) == 1 else np.concatenate([each[place] for each in parts])
                  for place in range(len(self.outputs))]  # fmt: skip
        if len(parts) * size > count:  # the last part was filled up; tensors inside may have several rows an image
            joined = [result[: len(result) * count // (len(parts) * size)] for result in joined]
        tensors = tuple(torch.from_numpy(result).to(inputs[0].device) for result in joined)
        return tensors[0] if len(tensors) == 1 else tensors

    def _run(self, arrays: Sequence[Any], start: int, size: int) -> list[Any]:
        parts = [array[start : start + size] for array in arrays]
        parts = [np.resize(part, (size, *part.shape[1:])) if len(part) < size else part for part in parts]
        return list(self.session.run(list(self.outputs), dict(zip(self.inputs, parts, strict=True))))

    @property
    def about(self) -> dict[str, Any]:
        """Spec, classes, shape and palette of the network as qprune wrote them; empty in other files.

        Raises:
            ExportError: if it cannot be read.
        """
        return parse_about(self.session.get_modelmeta().custom_metadata_map.get(ABOUT, ""), self.name)

    def operators(self) -> "Operators":
        """The operators that ran, by the runtime's own profile; ends the session.

        Raises:
            ExportError: if it was not made with ``profile``.
        """
        return _count(self._events())

    def nodes(self) -> "tuple[Node, ...]":
        """The operators that ran, and how long each took in each run; ends the session.

        Raises:
            ExportError: if it was not made with ``profile``.
        """
        seconds: dict[tuple[str, str], list[float]] = {}
        for event in self._events():
            if event["name"].endswith(KERNEL):
                node = event["name"].removesuffix(KERNEL), event["args"]["op_name"]
                seconds.setdefault(node, []).append(event["dur"] / 1e6)
        return tuple(Node(*node, tuple(each)) for node, each in seconds.items())

    def _events(self) -> list[dict[str, Any]]:
        """What the runtime noted of its operators."""
        if self._folder is None:
            raise ExportError("Only a model made with profile=True knows what ran.")
        with self._folder:
            events = json.loads(Path(self.session.end_profiling()).read_text(encoding="utf-8"))
        return [event for event in events if event.get("cat") == "Node" and "op_name" in event["args"]]

    def extra_repr(self) -> str:
        """Names of inputs and outputs."""
        return f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}"


KERNEL = "_kernel_time"  # behind the name of a node, in a profile


@frozen
class Node:
    """One node of the graph that the runtime made of a file."""

    name: str  # as in the file, with an ending where the runtime made another one of it
    kind: str  # of its operator, ``"QLinearConv"``
    seconds: tuple[float, ...]  # of each run, in whole microseconds, with what noting it took


@frozen
class Operators:
    """Operators that the runtime executed, by kind, each node of the optimized graph once."""

    integer: Mapping[str, int]  # those that read integers and compute with them
    real: Mapping[str, int]  # those that read real numbers
    between: Mapping[str, int]  # those that turn one into the other

    def __str__(self) -> str:
        parts = ((sum(each.values()), name, each) for name, each in
                 (("integer", self.integer), ("float", self.real), ("between the two", self.between)))  # fmt: skip
        return "; ".join(f"{count} {name}{_listed(each)}" for count, name, each in parts)


def _listed(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{count} {kind}' for kind, count in sorted(counts.items()))})" if counts else ""


BETWEEN = ("QuantizeLinear", "DequantizeLinear", "Cast")
INTEGERS = ("int8", "uint8", "int32", "int64")


def _count(events: Any) -> Operators:
    nodes = {(event["name"], event["args"]["op_name"]): event["args"] for event in events}
    counts: tuple[dict[str, int], ...] = ({}, {}, {})
    for (_, kind), facts in nodes.items():
        types = [name for each in facts.get("input_type_shape", ()) for name in each]
        read = next((name for name in types if name != "bool"), "float")
        place = 2 if kind in BETWEEN else 0 if read in INTEGERS else 1
        counts[place][kind] = counts[place].get(kind, 0) + 1
    return Operators(*counts)

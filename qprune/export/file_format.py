"""What is particular about one kind of exported file; each kind is one object in `qprune.export.formats.FORMATS`."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import frozen
from torch import nn

from qprune.errors import ExportError
from qprune.export.certificate import Environment
from qprune.export.comparing import Comparison, Inputs
from qprune.export.running import Operators
from qprune.export.writing import Written


@frozen(eq=False)
class Made:
    """The content of a file that is not written yet, and what is known of it.

    Attributes:
        net: the network that is in it, shrunk and folded.
        content: all bytes of the file.
        model: runs the content, as `Format.open` would.
        environment: where it runs.
        operators: what runs.
        written: where the file's integers and integer layers can be looked at; None if it has none.
    """

    net: nn.Module
    content: bytes
    model: Any
    environment: Environment
    operators: Operators
    written: Written | None = None

    @property
    def real_layers(self) -> dict[str, str]:
        """Path -> reason, for each layer that could compute with integers and does not."""
        layers = () if self.written is None else self.written.layers
        return {layer.path: layer.reason for layer in layers if not layer.integer}


class Format(ABC):
    """One kind of exported file.

    Attributes:
        suffix: the ending of its names. Formats that share one are told apart by the dialect, their key in `FORMATS`.
        title: what a file with that ending is, as an error says it.
        runs_code: whether opening a file runs code that is in it; then it is opened only if it is trusted.
    """

    suffix: ClassVar[str]
    title: ClassVar[str]
    runs_code: ClassVar[bool] = False

    @abstractmethod
    def write(
        self, net: nn.Module, inputs: Inputs, *, storage: str, dynamic_size: bool | None, about: Mapping[str, Any]
    ) -> Made:
        """Make the content of a file.

        Args:
            net: the network. It is not touched.
            inputs: an example of its inputs.
            storage: as for `qprune.export.write_network`.
            dynamic_size: likewise.
            about: what else the file is to hold, as plain data.

        Raises:
            ExportError: if the network cannot be written, or such files have no use for an option that was given.
        """

    def open(self, path: str | os.PathLike[str], *, trusted: bool = False) -> Any:
        """Open a file as a network: a module that has ``about``, ``outputs`` and ``stride``, as `OnnxModel` has them.

        Args:
            path: the file.
            trusted: whether code in it may run.

        Raises:
            ExportError: if it cannot be run, or runs code and is not trusted.
        """
        if self.runs_code:
            check_trusted(path, trusted, self.title)
        return self._open(path)

    @abstractmethod
    def _open(self, path: str | os.PathLike[str]) -> Any:
        """Open a file; if it runs code, it is trusted."""

    def recognizes(self, path: str | os.PathLike[str]) -> bool:
        """Whether the content of a file shows that it has this format; files without such a mark go by their names.

        It must be safe to call for any path, of a file or of none.
        """
        return False

    def without_quantizers(self, net: nn.Module, inputs: Inputs, dynamic_size: bool | None) -> Comparison | None:
        """The network with its quantizers off beside a file made of that: nothing but rounding may differ there.

        None, if `write` has compared every bit already.
        """
        return None


def check_trusted(file: Any, trusted: bool, title: str) -> None:
    """Refuse a file that runs code, unless somebody said that it is trusted.

    Raises:
        ExportError: if it is not.

    Example:
        >>> check_trusted("model.pt2", trusted=True, title="a program of torch.export")
    """
    if not trusted:
        raise ExportError(
            f"{file} is {title}, and opening one runs whatever code is in the file. If you made it, or trust who did, "
            "say so with trusted=True (--trusted in the shell); else ask for the ONNX file."
        )

"""Base class of the formats of exported files; each is one object in `qprune.exporting.formats.FORMATS`."""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from attrs import frozen
from torch import nn

from qprune.exporting.certificate import Environment
from qprune.exporting.comparing import Comparison, Inputs
from qprune.exporting.running import Operators
from qprune.exporting.writing import STORAGES, Written
from qprune.layers import BiasQuant, FakeQuant


@frozen(eq=False)
class Made:
    """The content of a file that is not written yet, and what is known of it."""

    net: nn.Module  # the network that is in it, shrunk and folded
    content: bytes  # all bytes of the file
    model: Any  # runs the content, as `Format.open` would
    environment: Environment  # where it runs
    operators: Callable[[], Operators]  # tells what runs
    written: Written | None = None  # of an ONNX file, where its integers and layers can be looked at


class Format(ABC):
    """One kind of exported file."""

    suffix: ClassVar[str]  # the ending of its names; formats that share one are told apart by the dialect, their key
    title: ClassVar[str]  # what a file with that ending is, as an error says it
    stores_integers: ClassVar[bool] = False  # whether a file holds integers, so that ``storage`` says how

    @abstractmethod
    def write(
        self, net: nn.Module, inputs: Inputs, *, storage: str, dynamic_size: bool | None, about: Mapping[str, Any]
    ) -> Made:
        """Make the content of a file; ``storage`` and ``dynamic_size`` are as for `qprune.exporting.write_network`.

        An ExportError says that the network cannot be written, or that such files have no use for an option.
        """

    @abstractmethod
    def open(self, path: str | os.PathLike[str], *, trusted: bool = False) -> Any:
        """Open a file as a network: a module that has ``about``, ``outputs`` and ``stride``, as `OnnxModel` has them.

        What runs code that is in the file must be ``trusted``.
        """

    def recognizes(self, path: str | os.PathLike[str]) -> bool:
        """Whether the content of a file shows that it has this format; files without such a mark go by their names.

        It must be safe to call for any path, of a file or of none.
        """
        return False

    def without_quantizers(self, net: nn.Module, inputs: Inputs, dynamic_size: bool | None) -> Comparison | None:
        """The network with its quantizers off, and a file of that: between these nothing but rounding may differ.

        With quantizers a difference may be that of a sum which fell to the other side of a step, or anything. None, if
        `write` has compared every bit already.
        """
        plain = copy.deepcopy(net)
        for part in plain.modules():
            if isinstance(part, (FakeQuant, BiasQuant)):
                part.active.fill_(False)
        made = self.write(plain, inputs, storage=STORAGES[0], dynamic_size=dynamic_size, about={})
        return Comparison(plain, made.model, made.written)

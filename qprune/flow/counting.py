"""`Counts`: which numbers of channels a network's own code reads while it is traced, and what it does with them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from qprune.flow.sizes import Origin, forget, read, size

# What a layer knows of its own channels; groups, too, since a depthwise convolution that is cut has fewer.
ATTRIBUTES = {
    "in_channels", "out_channels", "in_features", "out_features", "num_features", "num_channels", "groups",
    "num_groups",
}  # fmt: skip


class Counts:
    """Hands out numbers of channels that remember what they were counted of, and notes where these are used.

    What the layers ``leaves`` know of their channels remembers from now on. ``where`` tells in which module's forward
    the network is, None in that of a layer. ``used`` and ``read`` hold the first use, and the first reading, of the
    number of channels of each call or layer.
    """

    def __init__(self, leaves: Mapping[str, nn.Module], where: Callable[[], str | None]) -> None:
        self.used: dict[Origin, str] = {}
        self.read: dict[Origin, str] = {}
        self.where = where
        for path, leaf in leaves.items():
            for name in vars(leaf).keys() & ATTRIBUTES:
                vars(leaf)[name] = self._remembering(path)(vars(leaf)[name])

    def _remembering(self, origin: Origin) -> Callable[[Any], Any]:
        origins = frozenset({origin})
        return lambda number: size(number, origins, self._use) if type(number) is int else number

    def _use(self, origins: Iterable[Origin], use: str) -> None:
        place = self.where()
        if place is not None:
            for origin in origins:
                self.used.setdefault(origin, f"{use} in {place}")

    def of(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        options: Mapping[str, Any],
        owner: str | None,
        maker: int | None,
    ) -> Any:
        """The result of a function of `qprune.flow.sizes.READERS` for a tensor, the first of its arguments.

        The tensor is a parameter or buffer of the layer ``owner``, or was made by the call ``maker``, if by any.
        """
        tensor: Tensor = arguments[0]
        if owner is not None:
            origin: Origin = owner
            dims = range(min(tensor.dim(), 2))
        elif maker is not None and maker >= 0 and tensor.dim() > 1:
            origin, dims = maker, range(1, 2)
        else:
            return function(*arguments, **options)
        self.read.setdefault(origin, f"something in {self.where()}")
        if function is Tensor.__len__ and 0 in dims:  # Python's len() makes a plain number of whatever it is given
            self._use([origin], "len()")
        return read(function, arguments, options, dims, self._remembering(origin))

    def used_up(self, arguments: Any, use: str) -> Any:
        """Arguments or outputs with ordinary numbers in place of remembering ones, whose use is noted."""
        found: set[Origin] = set()
        known = forget(arguments, found)
        self._use(found, use)
        return known if found else arguments

"""The network of a spec: one of the zoo by name, or one declared layer by layer."""

from pathlib import Path
from typing import Any

from attrs import field, frozen, validators

from qprune.errors import SpecError
from qprune.spec.values import TABLE, WORD, Table, as_float, as_tuple, items, listed, must, number, shown, whole

# a layer's options of these names are schedules, written as tables with a kind
SCHEDULE_OPTIONS = ("schedule", "prune_schedule", "quant_schedule")
FILES = (".pth", ".pt", ".safetensors")  # weights whose names end so are files, others names of a library
MOST_LAYERS = 5000  # a ResNet of 1,001 layers has 3,700 modules


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


def _are_names(value: Any) -> bool:
    names = _one_or_more(value)
    return isinstance(names, tuple) and all(isinstance(name, str) and name for name in names)


_SOURCES = must(_are_names, "the name of a layer, or a list of them")


@frozen
class LayerSpec:
    """A ``[[model.layers]]`` table: one layer, or a block of layers.

    Every key not named below is an argument of the layer's own constructor and lands in ``options``; the number of
    input channels is inferred.

    Attributes:
        type: the layer's class, such as ``"Conv2d"``, ``"ReLU"``, ``"PrunedConv2d"``, ``"Add"``; none for a block.
        name: the module's name, which other layers name in ``from``; numbered by default.
        sources: TOML key ``from``: names of the layers whose outputs this one receives (a string or a list); by default
            the layer before it.
        repeat: how many times the layer or block is made, one after the other.
        layers: the layers of a block.
        options: arguments of the layer, such as ``out_channels = 32``. A table under ``schedule``, ``prune_schedule``
            or ``quant_schedule`` is a schedule.

    Raises:
        SpecError: for a wrong type, a layer with both or neither of ``type`` and ``layers``, options on a block, or a
            name used twice in one block.

    Example:
        >>> LayerSpec("Conv2d", name="stem", options={"out_channels": 32, "kernel_size": 3}).repeat
        1
    """

    type: str | None = field(default=None, validator=validators.optional(WORD))
    name: str | None = field(default=None, validator=validators.optional(WORD))
    sources: tuple[str, ...] | None = field(
        default=None, converter=_one_or_more, validator=validators.optional(_SOURCES), metadata={"key": "from"}
    )
    repeat: int = field(default=1, validator=whole(1))
    layers: "tuple[LayerSpec, ...]" = field(
        default=(), converter=as_tuple, validator=items(lambda v: isinstance(v, LayerSpec), "a list of tables")
    )
    options: Table = field(factory=dict, validator=TABLE, hash=False, metadata={"free": True})

    def __attrs_post_init__(self) -> None:
        if (self.type is None) == (not self.layers):
            received = f"; received {listed(self.options, 'and')}" if self.options else ""
            raise SpecError(f'A layer needs either "type" or, as a block, "layers"{received}')
        if self.layers and self.options:
            raise SpecError(f"A block of layers has no options of its own; received {listed(self.options, 'and')}")
        check_names(self.layers)

    def count(self) -> int:
        """The number of layers this makes, with all copies.

        Example:
            >>> LayerSpec("ReLU", repeat=3).count()
            3
        """
        return self.repeat * (sum(layer.count() for layer in self.layers) or 1)


def check_names(layers: tuple[LayerSpec, ...]) -> None:
    """Refuse two layers of one name side by side."""
    names = [layer.name for layer in layers if layer.name is not None]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(f'Names of layers must differ; "{name}" appears {names.count(name)} times')


@frozen
class ModelSpec:
    """The ``[model]`` table: ``arch`` names a network of the zoo, or ``[[model.layers]]`` declare one.

    With neither the network is the user's own, handed over as ``model=`` to `qprune.fit`.

    Every key not named below is an option of the zoo's entry and lands in ``options``.

    Attributes:
        arch: name of a network of the zoo, or of torchvision or timm.
        width: share of the channels of the full-size network, in (0, 1].
        layers: the layers of a declared network, which has no ``arch``, ``width`` or options.
        options: further options of the zoo's entry.
        weights: of networks of torchvision and timm, what a run without ``init`` starts from: ``"DEFAULT"``, another
            name that the library has for weights, or a file. The head stays fresh where classes differ.
        weights_backbone: of torchvision's networks for segmentation, in place of ``weights``: the same for the backbone
            alone.

    Raises:
        SpecError: for a wrong type, a width outside (0, 1], both ``arch`` and ``layers``, width or options beside
            ``layers`` or without ``arch``, weights of the whole and of the backbone, more than 5,000 layers, or a name
            used twice.

    Example:
        >>> ModelSpec("mobilenetv2", width=0.5).width
        0.5
    """

    arch: str | None = field(default=None, validator=validators.optional(WORD))
    width: float = field(default=1.0, converter=as_float, validator=number("a number in (0, 1]", lambda v: 0 < v <= 1))
    layers: tuple[LayerSpec, ...] = field(
        default=(), converter=as_tuple, validator=items(lambda v: isinstance(v, LayerSpec), "a list of tables")
    )
    options: Table = field(factory=dict, validator=TABLE, hash=False, metadata={"free": True})
    weights: str | None = field(default=None, validator=validators.optional(WORD))
    weights_backbone: str | None = field(default=None, validator=validators.optional(WORD))

    def __attrs_post_init__(self) -> None:
        given = {"width": self.width != 1, "weights": self.weights, "weights_backbone": self.weights_backbone}
        unused = [*(name for name, value in given.items() if value), *self.options]
        if self.weights and self.weights_backbone:
            raise SpecError(
                "weights are of the whole network, so weights_backbone has no effect beside them: leave one out; "
                f"received {shown(self.weights)} and {shown(self.weights_backbone)}"
            )
        if self.arch and self.layers:
            raise SpecError('A model has either "arch", a name of the zoo, or "layers"; received both')
        if self.is_own and unused:
            raise SpecError(f'A model with {listed(unused, "and")} needs "arch", a name of the zoo')
        if self.layers and unused:
            raise SpecError(f"A net declared by layers states its own channels; it has no {listed(unused)}")
        count = sum(layer.count() for layer in self.layers)
        if count > MOST_LAYERS:
            raise SpecError(f'A net has at most {MOST_LAYERS:,} layers; received {count:,}; lower "repeat"')
        check_names(self.layers)

    @property
    def start(self) -> str | Path | None:
        """What its weights are taken from: a name of the library, a file, or None for fresh ones.

        Example:
            >>> ModelSpec("torchvision/resnet18", weights="mine.pth").start
            PosixPath('mine.pth')
        """
        wanted = self.weights or self.weights_backbone
        return Path(wanted).expanduser() if wanted and wanted.endswith(FILES) else wanted

    @property
    def is_own(self) -> bool:
        """Whether the network is none that the spec knows, but the user's own.

        Example:
            >>> ModelSpec().is_own, ModelSpec("mobilenetv2").is_own
            (True, False)
        """
        return self.arch is None and not self.layers

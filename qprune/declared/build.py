"""From declared layers to a network: names, wiring, blocks and repeats, with every mistake collected."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qprune.declared.layer import Built, Mistakes, Reads, make_layer
from qprune.declared.net import DeclaredNet
from qprune.errors import SpecError, as_lines
from qprune.spec import LayerSpec
from qprune.spec.values import listed
from qprune.spelling import nearest


def build_declared(layers: Sequence[LayerSpec], example: Tensor) -> nn.Module:
    """Make the network that ``layers`` declare, with fresh weights, as torch initializes each layer.

    Each layer has the arguments of its class as options. What the input tells is filled in: ``in_channels``,
    ``num_features`` and ``num_channels`` (its dimension 1) and ``in_features`` (its last). Without ``from`` a layer
    reads the one before it, and the first reads ``"input"``. A block (``layers`` in place of a type) is a network of
    its own, in which ``"input"`` is the block's input. What has ``repeat = n`` above 1 becomes n copies in a row,
    ``<name>.0`` and so on, each with its own channel counts. A layer without a name is called by its type and number:
    ``conv2d_2`` is the second Conv2d of its block.

    Args:
        layers: the declared layers, in order; the output of the last is the network's.
        example: a batch of inputs; only its shape and dtype are used, nothing is computed.

    Raises:
        SpecError: with every mistake found, one a line, each with its key path: an unknown type, option or source, a
            duplicate name, an argument that the class refuses, shapes that do not fit, an output that nobody reads.

    Example:
        >>> layers = [LayerSpec("Conv2d", options={"out_channels": 5, "kernel_size": 3}), LayerSpec("ReLU")]
        >>> build_declared(layers, torch.zeros(2, 3, 8, 8)).conv2d_1
        Conv2d(3, 5, kernel_size=(3, 3), stride=(1, 1))
    """
    try:
        net, _ = _Scope(layers, in_block=False).build(torch.empty_like(example, device="meta"))
    except Mistakes as mistakes:
        raise SpecError(as_lines(f"model{line}" for line in mistakes.lines)) from None
    assert net is not None  # without mistakes every shape is known
    return net


class _Scope:
    """One list of layers, of the network or of a block: the only names its layers can read."""

    def __init__(self, layers: Sequence[LayerSpec], in_block: bool) -> None:
        self.layers, self.in_block = layers, in_block
        self.names = _names(layers)
        self.sources = [self._sources(index) for index in range(len(layers))]
        self.outputs: dict[str, Tensor | None] = {}
        self.modules: dict[str, nn.Module | None] = {}

    def build(self, x: Tensor | None) -> Built:
        lines = self._mistakes_of_names()
        self.outputs["input"] = x
        for index in range(len(self.layers)):
            lines += [f".layers[{index}]{line}" for line in [*self._mistakes_of_sources(index), *self._make(index)]]
        if lines or (lines := self._unread()):
            raise Mistakes(lines)
        made = {name: module for name, module in self.modules.items() if module is not None}
        wiring = dict(zip(self.names, self.sources, strict=True))
        return (DeclaredNet(made, wiring) if x is not None else None), self.outputs[self.names[-1]]

    def _make(self, index: int) -> Sequence[str]:
        name = self.names[index]
        reads = [(source, self.outputs.get(source)) for source in self.sources[index]]
        self.modules[name] = self.outputs[name] = None
        try:
            self.modules[name], self.outputs[name] = _make_entry(self.layers[index], reads)
        except Mistakes as mistakes:
            return mistakes.lines
        return ()

    def _sources(self, index: int) -> tuple[str, ...]:
        declared = self.layers[index].sources
        return ("input" if index == 0 else self.names[index - 1],) if declared is None else tuple(declared)

    def _mistakes_of_names(self) -> list[str]:
        if not self.layers:
            return [".layers: must hold at least one layer; received none"]
        empty, lines = DeclaredNet({}, {}), []
        for index, name in enumerate(self.names):
            first = self.names.index(name)
            if first < index:
                lines.append(f'.layers[{index}].name: "{name}" is taken by layers[{first}]; names must differ')
            elif name == "input" or "." in name or hasattr(empty, name):
                lines.append(f'.layers[{index}].name: "{name}" is reserved or has a dot; choose another name')
        return lines

    def _mistakes_of_sources(self, index: int) -> list[str]:
        sources = self.sources[index]
        wrong = [source for source in sources if source not in ("input", *self.names[:index])]
        lines = [f".from: {self._why_not(source, index)}" for source in wrong]
        return lines if sources else [".from: must name at least one layer; received none"]

    def _why_not(self, source: str, index: int) -> str:
        rule = "a block's layers read earlier ones of the block" if self.in_block else "layers read earlier ones"
        if source == self.names[index]:
            return f'"{source}" is this layer itself; {rule}, or "input"'
        if source in self.names:
            return f'"{source}" comes later, at layers[{self.names.index(source)}]; {rule}, or "input"'
        return f'no layer is called "{source}"; {rule}, or "input"{nearest(source, self.names[:index])}'

    def _unread(self) -> list[str]:
        read = {source for sources in self.sources for source in sources}
        unread = [(index, name) for index, name in enumerate(self.names[:-1]) if name not in read]
        way_out = 'name it in a "from", or remove it'
        return [f'.layers[{index}]: no later layer reads "{name}"; {way_out}' for index, name in unread]


def _names(layers: Sequence[LayerSpec]) -> list[str]:
    given, counts, names = {layer.name for layer in layers}, Counter[str](), []
    for layer in layers:
        kind = (layer.type or "block").lower()
        counts[kind] += 1
        while not layer.name and f"{kind}_{counts[kind]}" in given:
            counts[kind] += 1
        names.append(layer.name or f"{kind}_{counts[kind]}")
    return names


def _make_entry(layer: LayerSpec, reads: Reads) -> Built:
    if layer.repeat == 1:
        return _make_one(layer, reads)
    if len(reads) > 1:
        raise Mistakes([f".from: what is repeated reads one tensor; received {_names_of(reads)}"])
    return _make_copies(layer, reads)


def _make_copies(layer: LayerSpec, reads: Reads) -> Built:
    copies: list[nn.Module] = []
    for number in range(1, layer.repeat + 1):
        try:
            module, output = _make_one(layer, reads)
        except Mistakes as mistakes:
            suffix = f" (copy {number} of {layer.repeat})" if number > 1 else ""
            raise Mistakes([f"{line}{suffix}" for line in mistakes.lines]) from None
        if module is None:
            return None, None
        copies.append(module)
        reads = [(f"copy {number}", output)]
    return nn.Sequential(*copies), output


def _make_one(layer: LayerSpec, reads: Reads) -> Built:
    if layer.type is not None:
        return make_layer(layer.type, layer.options, reads)
    if len(reads) > 1:
        raise Mistakes([f".from: a block reads one tensor; received {_names_of(reads)}; join them with Add or Concat"])
    return _Scope(layer.layers, in_block=True).build(reads[0][1] if reads else None)


def _names_of(reads: Reads) -> str:
    return listed([name for name, _ in reads], "and")

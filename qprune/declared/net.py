"""The module of a declared network: named layers, and which of them each one reads."""

from collections.abc import Mapping

from torch import Tensor, nn


class DeclaredNet(nn.Module):
    """Runs its layers in the order given, each on the outputs that its ``sources`` name; returns the last output.

    Input: one tensor. Output: whatever the last layer makes of it.
    """

    def __init__(self, layers: Mapping[str, nn.Module], sources: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.wiring = tuple((name, sources[name], spent) for name, spent in _last_reads(sources).items())

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the last layer."""
        outputs = {"input": x}
        for name, sources, spent in self.wiring:
            x = outputs[name] = getattr(self, name)(*(outputs[source] for source in sources))
            for source in spent:
                del outputs[source]
        return x


def _last_reads(sources: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    # which outputs nobody needs after a layer: without gradients their memory is free again
    last = {source: name for name, read in sources.items() for source in read}
    return {name: tuple(source for source, at in last.items() if at == name) for name in sources}

"""Sites that do on the CPU what they do on a GPU, and what they launch there."""

from collections import Counter
from unittest import mock

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def as_on_gpu():
    """Within it, every tensor is taken for one on a GPU; the operation computes by plain functions then."""
    return mock.patch("qprune.layers.fused.on_gpu", lambda x: isinstance(x, Tensor))


class Calls(TorchDispatchMode):
    """Counts calls of operations by name."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func._schema.name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def own(self):
        """Those of the operations that a site is on a GPU."""
        return {name.split("::")[1]: n for name, n in self.counts.items() if name.startswith("qprune::")}

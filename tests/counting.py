"""How many operations something comes to, as a dispatch mode sees them; views, which launch nothing, left out."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = {"view", "detach", "split", "split_with_sizes", "unbind", "select", "slice", "expand", "alias", "unsqueeze",
         "_unsafe_view", "t", "transpose", "permute"}  # fmt: skip


class Operations(TorchDispatchMode):
    """Counts the operations within it by name."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.names[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self):
        return self.names.total()

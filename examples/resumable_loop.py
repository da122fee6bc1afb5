"""A training loop of your own that can be stopped anywhere and goes on to the same bits; seconds on the CPU.

python examples/resumable_loop.py
"""

import tempfile
from pathlib import Path

import torch
from torch import nn

import qprune
from qprune.data import load_data, train_loader
from qprune.layers import PrunedConv2d, PrunedQuantConv2d
from qprune.schedules import Layerwise, QuantizeFrom
from qprune.spec import DataSpec
from qprune.training import get_rng, load_checkpoint, save_checkpoint, set_rng


class Training:
    """All that changes while training: made anew in the same way each time, then loaded."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        data = DataSpec(name="digits", augment=[{"name": "RandomCrop", "size": 8, "padding": 1}])
        self.loader = train_loader(load_data(data).train, batch=64)  # its batches depend on epoch and position alone
        prune = Layerwise(sparsity=0.5, start=4, interval=8, refresh=4)  # measures at 4 to 11, then at 13 to 20
        self.net = nn.Sequential(
            PrunedConv2d(1, 16, 3, padding=1, at="output", schedule=prune), nn.BatchNorm2d(16), nn.ReLU(),
            PrunedQuantConv2d(16, 32, 3, padding=1, at="output", weight_bits=4, act_bits=4,
                              prune_schedule=prune, quant_schedule=QuantizeFrom(28)),
            nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(32 * 64, 10),
        )  # fmt: skip
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=3e-3)
        self.steps_per_epoch = len(self.loader)  # now, because a loader that begins later in an epoch is shorter
        example = torch.zeros(1, 1, 8, 8)
        self.driver = qprune.ScheduleDriver(self.net, example, self.steps_per_epoch, optimizer=self.optimizer)

    def run(self, until: int) -> None:
        """Train from where it is up to a step."""
        while self.driver.steps_done < until:
            sampler = self.loader.sampler
            sampler.epoch, sampler.start = divmod(self.driver.steps_done, self.steps_per_epoch)
            for images, labels in self.loader:
                self.optimizer.zero_grad()
                nn.functional.cross_entropy(self.net(images), labels).backward()
                self.optimizer.step()
                self.driver.step()
                if self.driver.steps_done == until:  # here, after the driver, a step is whole and may be saved
                    return

    def save(self, path: Path) -> None:
        """Write a file that is whole or not there, and is verified when it is read."""
        parts = {"net": self.net, "optimizer": self.optimizer, "driver": self.driver}
        states = {name: part.state_dict() for name, part in parts.items()}
        save_checkpoint(path, states | {"rng": get_rng()}, keep_as="previous.pt")

    def load(self, path: Path) -> None:
        """Go on from a file: first the network, then its optimizer, then the driver, which refuses another plan."""
        content = load_checkpoint(path)
        self.net.load_state_dict(content["net"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.driver.load_state_dict(content["driver"])
        set_rng(content["rng"])  # last: what was made above drew random numbers


def main(steps: int = 60, stop: int = 18) -> bool:
    """Train unbroken, and once more with a stop while the second mask measures; whether both end with the same bits."""
    unbroken = Training()
    unbroken.run(steps)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.pt"
        stopped = Training()
        stopped.run(stop)
        stopped.save(path)

        resumed = Training()  # in another process, as a rule
        resumed.load(path)
        resumed.run(steps)

    expected = unbroken.net.state_dict()
    equal = all(torch.equal(value, expected[name]) for name, value in resumed.net.state_dict().items())
    print(f"stopped at step {stop} of {steps} and resumed: {'the same' if equal else 'other'} bits")
    return equal


if __name__ == "__main__":
    main()

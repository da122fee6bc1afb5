"""A training loop of your own: drop-in layers, and a driver that is told when a step is over; seconds on the CPU.

python examples/custom_loop.py
"""

import torch
from torch import nn

import qprune
from qprune.data import eval_loader, load_data, train_loader
from qprune.layers import PrunedConv2d, QuantConv2d
from qprune.schedules import Layerwise, QuantizeFrom
from qprune.spec import DataSpec
from qprune.training import Shrinker


def main(epochs: int = 10) -> float:
    """Train a small net on the embedded digits, half of its channels pruned, one layer in 4 bits; its test accuracy."""
    torch.manual_seed(0)
    splits = load_data(DataSpec(name="digits"))
    loader = train_loader(splits.train, batch=64)
    prune = Layerwise(sparsity=0.5, start="1ep", interval="1ep", refresh="0.25ep")
    quantize = QuantizeFrom("6ep")
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        PrunedConv2d(32, 64, 3, padding=1, stride=2, schedule=prune), nn.BatchNorm2d(64), nn.ReLU(),
        PrunedConv2d(64, 64, 3, padding=1, schedule=prune), nn.BatchNorm2d(64), nn.ReLU(),
        QuantConv2d(64, 64, 1, weight_bits=4, act_bits=4, schedule=quantize), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    example = torch.zeros(1, 1, 8, 8)  # its shape lets the driver find the order in which data reaches the layers
    steps = epochs * len(loader)
    driver = qprune.ScheduleDriver(net, example, steps_per_epoch=len(loader), optimizer=optimizer, steps=steps)
    shrinker = Shrinker(net, driver, optimizer, example=example, steps=steps)  # what is dropped leaves the network

    for epoch in range(epochs):
        loader.sampler.epoch = epoch
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
            events = driver.step()
            shrinker.step(any(event.get("frozen") for event in events), images)
            for event in events:
                print(event)

    net.eval()
    with torch.no_grad():
        right = sum(
            (net(images).argmax(1) == labels).sum().item() for images, labels in eval_loader(splits.test, batch=256)
        )
    print(f"test accuracy {right / len(splits.test):.3f}")
    print(net)
    return right / len(splits.test)


if __name__ == "__main__":
    main()

"""Compress a network you already have: torchvision's resnet18, its dense checkpoint loaded unchanged.

Its blocks call one ReLU twice, so an activation has no place of its own there: prune and quantize convolution inputs.

python examples/swap_resnet.py
"""

import torch
import torchvision
from torch import nn

import qprune


def main(steps: int = 12) -> nn.Module:
    """Swap, load, train a few steps on random images; the compressed network."""
    torch.manual_seed(0)
    dense = torchvision.models.resnet18(weights=None, num_classes=10)
    example = torch.zeros(2, 3, 64, 64)
    inner = {"types": ["Conv2d"], "at": "input", "skip": [0]}  # the image itself is neither pruned nor quantized
    net = qprune.swap(
        dense,
        example,
        prune=[{"sites": [inner], "sparsity": 0.5, "schedule": {"kind": "one-shot", "at": 4, "measure": 4}}],
        quantize=[
            {"sites": [inner], "bits": 8, "start": 6},
            {"sites": [{"types": ["Conv2d", "Linear"], "at": "weight"}], "bits": 4, "per": "channel", "start": 8},
        ],
    )
    print(net.load_state_dict(dense.state_dict(), strict=True))

    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    driver = qprune.ScheduleDriver(net, example, optimizer=optimizer)
    for _ in range(steps):
        images, labels = torch.randn(8, 3, 64, 64), torch.randint(0, 10, (8,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        driver.step()
    print(f"loss {loss.item():.3f}; {net.layer1[0].conv1}")
    integers, scale = net.layer1[0].conv1.int_weight()
    print(f"integer weights {integers.min().item()} .. {integers.max().item()}, scale {tuple(scale.shape)}")
    return net.eval()


if __name__ == "__main__":
    main()

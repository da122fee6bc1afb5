"""Says as JSON whether integer sums saturate here, and whether files of int8 and uint8 weights equal their network."""

import json
import sys
from typing import Any

import torch
from torch import nn

import qprune
from qprune.exporting import OnnxModel, writing
from qprune.exporting.probe import saturates


def main() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 9, 7)
    dense = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 35, 10)
    )
    for layer in (dense[0], dense[2], dense[5]):
        nn.init.uniform_(layer.weight, 0.5, 1)  # type: ignore[arg-type]  # large, so that two products have no room
    sites = [{"types": ["Conv2d", "Linear"], "at": "weight"}]
    weights = {"sites": sites, "bits": 8, "per": "channel", "start": 0}
    net: Any = qprune.swap(dense.eval(), images[:1], quantize=[weights], numerics="exact")
    qprune.calibrate(net, [images])
    found = {"saturates": saturates()}
    for signed in (True, False):
        writing.saturates = lambda signed=signed: not signed  # type: ignore[assignment, misc]
        model = OnnxModel(writing.write_network(net, images[:1]).model.SerializeToString())
        with torch.no_grad():
            found["int8" if signed else "uint8"] = torch.equal(model(images), net(images))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()

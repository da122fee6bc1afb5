"""How equal networks of exact numerics are in ONNX Runtime and in OpenVINO: the zoo, small, with fresh weights.

python benchmarks/openvino_equality.py [NAME ...]: 8 bits everywhere, calibrated on random images.
"""

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

import qprune
from qprune.exporting import Certificate
from qprune.zoo import create

NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "mobilenetv2": ({"width": 0.25, "classes": 10}, (3, 32, 32)),
    "densenet121": ({"width": 0.25, "classes": 10}, (3, 32, 32)),
    "resnet20": ({"classes": 10}, (3, 32, 32)),
    "vgg7": ({"width": 0.25, "classes": 10}, (3, 32, 32)),
    "unet": ({"width": 0.125, "classes": 5}, (3, 32, 48)),
    "frrn_b": ({"width": 0.25, "classes": 5}, (3, 32, 64)),
    "resnet_generator": ({"width": 0.125}, (3, 32, 32)),
    "unet_256": ({"width": 0.125}, (3, 256, 256)),
}
WEIGHTED = ("Conv2d", "ConvTranspose2d", "Linear")


def main() -> None:
    """Print a line for each network."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks; all of them by default")
    for name in parser.parse_args().names or NETWORKS:
        options, shape = NETWORKS[name]
        torch.manual_seed(0)
        net, images = create(name, **options).eval(), torch.randn(8, *shape)
        certificate = exported(net, images)
        equal = "equal to the bit" if certificate.exact else "not equal"
        print(f"{name}: {equal} in ONNX Runtime; {certificate.elsewhere['openvino']}", flush=True)


def exported(net: nn.Module, images: torch.Tensor) -> Certificate:
    """Quantize, calibrate, write and compare a network."""
    present = {type(module).__name__ for module in net.modules()}
    types = [kind for kind in WEIGHTED if kind in present]
    rule = {"sites": [{"types": types, "at": "weight"}], "bits": 8, "per": "channel", "start": 0}
    small = qprune.swap(net, images, quantize=[rule], complete=True, numerics="exact")
    qprune.calibrate(small, [images])
    with tempfile.TemporaryDirectory() as folder:
        return qprune.export(small, Path(folder) / "net.onnx", images, also=["openvino"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

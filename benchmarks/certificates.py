"""How equal exported files are to networks that were pruned and quantized in training, over the zoo.

Each network is trained for a few steps on real photos, pruned at once to 75 %, trained a few more with quantizers, with
and without exact numerics, exported and compared. The table shows the share of equal outputs and of equal integers, the
share of equal classes on test images, random images and extremes, and how many operators ran on integers and floats.

    python benchmarks/certificates.py --data FOLDER [--networks mobilenetv2 unet] [--steps 30]

The folder holds CIFAR-10 and CamVid, as `qprune fit --data` takes them.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import qprune
from qprune.data import load_data
from qprune.exporting import Certificate
from qprune.spec import read_spec
from qprune.tables import table

PHOTOS = {"name": "cifar10", "train_images": 2000}
NETWORKS = {  # folder of the specs, width, data in place of theirs
    "mobilenetv2": ("cifar100/mobilenetv2", 0.5, PHOTOS),
    "densenet121": ("cifar100/densenet121", 0.5, PHOTOS),
    "preactresnet18": ("cifar100/preactresnet18", 0.5, PHOTOS),
    "unet": ("camvid/unet", 0.25, None),
}
PHOTOS_COMPARED = 64
BITS = {"W8A8": (8, 8), "W4A4": (4, 4)}
HEADER = ("network", "bits", "numerics", "outputs", "integers", "classes", "integer", "float")


def main() -> None:
    """Run what is asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as runs:
        for network in options.networks:
            rows += rows_of(network, options.data, options.steps, Path(runs))
            print(table(HEADER, rows, right="lll" + "r" * 5), flush=True)


def rows_of(network: str, data: str, steps: int, runs: Path) -> list[tuple[str, ...]]:
    """Prune one network, then quantize it in each way."""
    pruned = spec_of(network, "a75_oneshot", f"{network}/pruned", data, steps)
    pruned.pop("init")
    pruned["prune"][0]["schedule"] = {"kind": "one-shot", "at": f"{steps // 2}it", "measure": "5it"}
    qprune.fit(pruned, runs=runs, verbose=0)
    rows = []
    for bits, widths in BITS.items():
        for numerics in ("default", "exact"):
            joint = spec_of(network, "a75_w4a4", f"{network}/{bits}_{numerics}", data, steps)
            joint |= {"init": pruned["name"], "numerics": numerics}
            for rule in joint["quantize"]:
                is_weight = rule["sites"][0]["at"] == "weight"
                rule["bits"] = widths[0] if is_weight else widths[1]
                rule["start"] = "10it"
            qprune.fit(joint, runs=runs, verbose=0)
            net = qprune.load(joint["name"], runs=runs)
            certificate = qprune.export(net, runs / "model.onnx", photos_of(joint["name"], runs))
            rows.append((network, bits, numerics, *cells(certificate)))
    return rows


def spec_of(network: str, name: str, run: str, data: str, steps: int) -> dict[str, Any]:
    """A spec of the network as a table, on the photos that are there, for so many steps."""
    folder, width, photos = NETWORKS[network]
    spec = read_spec(f"{folder}/{name}").to_dict()
    for key in ("aka", "published"):
        spec.pop(key, None)
    spec["name"], spec["model"]["width"] = run, width
    spec["data"] = (photos or spec["data"]) | {"root": data}
    spec["train"] |= {"length": f"{steps}it", "validate_every": f"{steps}it", "batch": 16, "shrink": "never"}
    spec["train"]["lr_schedule"] = {"name": "constant"}
    return spec


def photos_of(run: str, runs: Path) -> Tensor:
    """Images of a run's test split."""
    spec = read_spec(runs / run / "spec.toml")
    split = load_data(spec.data, spec.seed).test
    return torch.stack([split[place][0] for place in range(PHOTOS_COMPARED)])


def cells(certificate: Certificate) -> tuple[str, ...]:
    """What the table shows of one certificate."""
    values = sum(each.values for each in certificate.quantizers)
    integers = sum(each.equal * each.values for each in certificate.quantizers) / values
    shares = (certificate.outputs[0].equal, integers, certificate.predictions or 0.0)
    counts = (certificate.operators.integer, certificate.operators.real)
    return (
        *(f"{100 * share:.2f} %" for share in shares),
        *(str(sum(each.values())) for each in counts),
    )


if __name__ == "__main__":
    main()

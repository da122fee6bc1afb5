"""Networks that nobody wrote for this, masked, shrunk and counted as `benchmarks/networks_outside.py` does."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

import qprune

pytest.importorskip("torchvision")
pytest.importorskip("timm")

FILE = Path(__file__).parents[2] / "benchmarks" / "networks_outside.py"
SPEC = importlib.util.spec_from_file_location("networks_outside", FILE)
outside = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(outside)

LARGE = ("torchvision/vgg11_bn", "torchvision/alexnet", "torchvision/wide_resnet50_2")


def check(name, place):
    try:
        found = outside.measured(name, place, outside.SIZES.get(name, 96))
    except outside.RefusedError:
        pytest.skip("there is no such layer")
    assert found.masks > 0
    assert found.error <= 1e-6
    assert found.left <= 1.1 * found.alive


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("timm/mobilenetv4_conv_small", "norms"),
        ("torchvision/shufflenet_v2_x1_0", "inputs"),
        ("timm/edgenext_xx_small", "activations"),
    ],
)
def test_a_network_from_outside_takes_its_dense_state_and_what_is_alive_is_left(name, place):
    check(name, place)


@pytest.mark.slow
@pytest.mark.parametrize("place", outside.PLACES)
@pytest.mark.parametrize("name", [name for name in outside.NETWORKS if name not in LARGE])
def test_every_network_from_outside_takes_its_dense_state_and_what_is_alive_is_left(name, place):
    check(name, place)


def check_files(name, folder):
    """It is written with integers and saved, and both files compute what it does."""
    net, images = outside.quantized(name, outside.SIZES.get(name, 96))
    found = outside.exported(net, images)
    reasons = set(found.certificate.real_layers.values())
    assert len(found.certificate.real_layers) <= 1  # one of edgenext reads constants, and has no quantizer
    assert reasons <= {"its weights have no quantizer"}
    integers, outputs = found.equal()
    assert integers > 0.7  # of random weights; what differs are sums between two integers
    assert outputs > 0.8
    small = qprune.shrink(net, images)
    qprune.save(small, folder / "small.pt", images)
    opened = qprune.load(folder / "small.pt")
    with torch.no_grad():
        for one, other in zip(tree_leaves(small(images)), tree_leaves(opened(images)), strict=True):
            assert torch.equal(one, other)


def test_a_network_from_outside_is_written_with_integers_and_saved(tmp_path):
    check_files("timm/mobilenetv4_conv_small", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in outside.NETWORKS if name not in LARGE])
def test_every_network_from_outside_is_written_with_integers_and_saved(name, tmp_path):
    check_files(name, tmp_path)


def test_of_a_detector_the_backbone_is_swapped_and_shrunk():
    detection = pytest.importorskip("torchvision.models.detection")
    torch.manual_seed(0)
    net = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None).eval()
    image, before = torch.rand(1, 3, 320, 320), outside.count(net)
    half = {
        "sites": [{"types": ["Conv2d"], "at": "input", "skip": [0]}],
        "sparsity": 0.5,
        "schedule": {"kind": "one-shot", "at": 1},
    }
    with pytest.raises(qprune.PlanError, match=r"reads values of a tensor .* net\.backbone = swap\(net\.backbone, "):
        qprune.swap(net, image, prune=[half])
    masked = qprune.swap(net.backbone, image, prune=[half])
    for site in qprune.layers.sites(masked):
        site.mask.keep[::2] = False
    net.backbone = qprune.shrink(masked, image)
    assert outside.count(net) < before - 2_500_000  # of the backbone's 4.4 million
    assert net(list(image))[0].keys() == {"boxes", "labels", "scores"}

"""What shrinking leaves of networks of torchvision and timm, beside what an independent count says is alive.

python benchmarks/networks_outside.py [NAME ...] [--at norms activations inputs] [--size 96]: fresh weights in float64,
half of the channels dropped by chance at the outputs of normalizations, at those of activations, or at the inputs of
convolutions and linear layers. ``alive`` counts the parameters of the masked network whose gradient is not exactly 0
where smooth functions stand in for rectifiers; it knows nothing of tracing. A kernel with one such entry counts
whole. The dense network's state must load strictly into the masked one.

With ``--export`` the same networks in float32, half of the input channels of their layers dropped, 8 bits everywhere,
calibrated on random images and written as an ONNX file: how many layers compute with integers, and how equal the file
is to the network.
"""

import argparse
import gc
import re
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import qprune
from qprune.errors import PlanError
from qprune.layers import sites
from qprune.shrinking import shrink_with_facts

NETWORKS = (
    *(f"torchvision/{name}" for name in (
        "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "mobilenet_v2", "mobilenet_v3_small",
        "mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s", "densenet121", "googlenet", "inception_v3",
        "squeezenet1_1", "shufflenet_v2_x1_0", "mnasnet1_0", "regnet_y_400mf", "convnext_tiny", "vgg11_bn", "alexnet",
        "fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large",
    )),
    *(f"timm/{name}" for name in (
        "resnet26d", "mobilenetv4_conv_small", "efficientnet_lite0", "repvgg_a0", "ghostnet_100", "hardcorenas_a",
        "mixnet_s", "tf_efficientnetv2_b0", "convnextv2_atto", "edgenext_xx_small", "fastvit_t8", "resnest14d",
        "cspresnet50", "dla34", "hrnet_w18_small", "ese_vovnet19b_dw",
    )),
)  # fmt: skip
SIZES = {"torchvision/inception_v3": 128}  # where the usual one is too small
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.SiLU, nn.GELU, nn.ELU, nn.Mish, nn.Hardswish, nn.Tanh, nn.Softplus,
)  # fmt: skip
WEIGHTED = (nn.Conv2d, nn.Linear)
PLACES = {"norms": (NORMS, "output"), "activations": (ACTIVATIONS, "output"), "inputs": (WEIGHTED, "input")}


def main() -> None:
    """Print a line for each network."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks; all of them by default")
    parser.add_argument("--at", nargs="+", choices=PLACES, default=list(PLACES), help="where channels are dropped")
    parser.add_argument(
        "--size", type=int, default=96, help="sides of the images, unless the network wants larger ones"
    )
    parser.add_argument("--reasons", action="store_true", help="also print what keeps channels from going")
    parser.add_argument("--export", action="store_true", help="write ONNX files instead, and compare them")
    args = parser.parse_args()
    if args.export:
        print_exported(args.names or NETWORKS, args.size)
        return
    places = [cell for place in args.at for cell in (f"{place}: masks", "left", "alive", "left / alive")]
    header = ["network", "parameters", *places, "largest error", "seconds"]
    print(_row(header), _row(["---", *["--:"] * (len(header) - 1)]), sep="\n")
    for name in args.names or NETWORKS:
        started, cells, errors, told = time.perf_counter(), [], [], []
        for place in args.at:
            try:
                found = measured(name, place, SIZES.get(name, args.size))
                cells += [found.masks, f"{found.left:,}", f"{found.alive:,}", f"{found.left / found.alive:.3f}"]
                errors.append(found.error)
                told += [f"    {place}: {reason}" for reason in found.held]
            except (qprune.QpruneError, RefusedError) as error:
                cells += [0, "", "", ""]
                told.append(f"    {place}: {error}")
            gc.collect()
        seconds = f"{time.perf_counter() - started:.0f}"
        print(_row([name, f"{count(fresh(name)):,}", *cells, f"{max(errors, default=0):.0e}", seconds]), flush=True)
        if args.reasons:
            print(*told, sep="\n", flush=True)


def print_exported(names: Sequence[str], size: int) -> None:
    """Print a line for each network whose file was written."""
    header = ["network", "layers", "of integers", "integers equal", "outputs within 1/255", "seconds"]
    print(_row(header), _row(["---", *["--:"] * (len(header) - 1)]), sep="\n")
    for name in names:
        started = time.perf_counter()
        try:
            found = exported(*quantized(name, SIZES.get(name, size)))
            cells = [found.layers, found.layers - len(found.certificate.real_layers), *map(_share, found.equal())]
        except (qprune.QpruneError, RefusedError) as error:
            cells = [str(error), "", "", ""]
        print(_row([name, *cells, f"{time.perf_counter() - started:.0f}"]), flush=True)
        gc.collect()


def _share(value: float) -> str:
    return f"{100 * value:.2f} %"


class Exported(NamedTuple):
    """A network that was written as a file."""

    layers: int  # convolutions and linear layers
    certificate: Any

    def equal(self) -> tuple[float, float]:
        """Share of integers that are equal, and of output numbers within 1/255 of the largest."""
        pairs = ((self.certificate.quantizers, "equal"), (self.certificate.outputs, "within_one"))
        counted = [[(getattr(each, name), each.values) for each in found] for found, name in pairs]
        return tuple(sum(share * n for share, n in each) / sum(n for _, n in each) for each in counted)  # type: ignore[return-value]


def quantized(name: str, size: int) -> tuple[nn.Module, Tensor]:
    """A network with masks and 8-bit quantizers that are calibrated, and images."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(4, 3, size, size, generator=generator) for _ in range(2)]
    net = with_masks(fresh(name).float(), images[0], "inputs")
    found = [path for path, module in net.named_modules() if isinstance(module, WEIGHTED)]
    net = swapped(net, images[0], "quantize", found, {"at": "weight"}, bits=8, per="channel", start=0)
    qprune.calibrate(net, images)
    return net, images[0]


def exported(net: nn.Module, images: Tensor) -> Exported:
    """Write and compare a network."""
    with tempfile.TemporaryDirectory() as folder:
        certificate = qprune.export(net, Path(folder) / "net.onnx", images)
    layers = sum(isinstance(module, WEIGHTED) for module in qprune.shrink(net, images).modules())
    return Exported(layers, certificate)


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


class RefusedError(Exception):
    """There is nothing to measure."""


class Found(NamedTuple):
    """What was measured of one network with masks in one kind of place."""

    masks: int
    left: int  # parameters after shrinking
    alive: int  # parameters that matter, by the independent count
    error: float  # largest difference of outputs, relative to the largest value
    held: tuple[str, ...]  # what keeps channels from going


def measured(name: str, place: str, size: int) -> Found:
    """Mask, count, shrink and compare a network."""
    net, x = fresh(name), torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    masked = with_masks(net, x, place)
    del net
    live = alive(masked, x)
    shrunk = shrink_with_facts(masked, x)
    with torch.no_grad():
        error = largest_difference(masked(x), shrunk.net(x))
    masks = sum(site.mask is not None for site in sites(masked))
    return Found(masks, count(shrunk.net), live, error, shrunk.analysis.held)


def count(net: nn.Module) -> int:
    """Its parameters."""
    return sum(parameter.numel() for parameter in net.parameters())


def largest_difference(one: Any, other: Any) -> float:
    """Of two networks' outputs, relative to the largest value of the first."""
    pairs = [(a, b) for a, b in zip(tree_leaves(one), tree_leaves(other), strict=True) if isinstance(a, Tensor)]
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


@torch.no_grad()
def fresh(name: str) -> nn.Module:
    """A network with random weights in float64, none of which is the same for all channels."""
    torch.manual_seed(0)
    library, own = name.split("/")
    if library == "timm":
        import timm

        net = timm.create_model(own, pretrained=False)
    else:
        from torchvision import models

        scenes = own in models.list_models(module=models.segmentation)
        heads = {"init_weights": False} if own in ("googlenet", "inception_v3") else {}
        net = models.get_model(own, weights=None, **({"weights_backbone": None} if scenes else heads))
    net = net.double().eval()
    for parameter in net.parameters():
        if (parameter == parameter.flatten()[0]).all():  # scales of 1, shifts of 0, gates of 0 that hide what is behind
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net


def with_masks(net: nn.Module, x: Tensor, place: str) -> nn.Module:
    """A copy with masks wherever they can be, that drop half of the channels."""
    kinds, side = PLACES[place]
    found = [path for path, module in net.named_modules() if isinstance(module, kinds)]
    if side == "input":
        del found[0]  # the colours of the image
    masked = swapped(net, x, "prune", found, {"at": side}, sparsity=0.5, schedule={"kind": "one-shot", "at": 1})
    masked.load_state_dict(net.state_dict(), strict=True)  # which sets masks back
    for site in sites(masked):
        generator = torch.Generator().manual_seed(zlib.crc32(site.name.encode()))
        site.mask.refresh(0.5, torch.randperm(site.mask.channels, generator=generator).argsort().float())
    return masked.eval()


def swapped(net: nn.Module, x: Tensor, rule: str, found: list[str], where: dict[str, str], **options: Any) -> nn.Module:
    """A copy with a rule for all of these layers but those that are refused: they never run, say."""
    why = "no such layer"
    while found:
        try:
            rules: Any = {rule: [{"sites": [{"paths": found, **where}], **options}]}
            return qprune.swap(net, x, **rules, complete=rule == "quantize")
        except PlanError as error:
            why = str(error).splitlines()[0]
            refused = set(re.findall(r'"([^"]+?)(?:\.output|\.input)?"', str(error)))
            if not refused & set(found):
                raise
            found = [path for path in found if path not in refused]
    raise RefusedError(why)


def _silu(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return F.silu(x)


def _sigmoid(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.sigmoid(x)


class Smooth(TorchFunctionMode):
    """Functions with a slope everywhere stand in for those that have none somewhere; what is 0 stays 0."""

    STAND_INS: ClassVar[dict[Any, Callable[..., Tensor]]] = {
        **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6), _silu),
        **dict.fromkeys((F.hardtanh, F.hardtanh_, F.hardswish, F.leaky_relu), _silu),
        F.hardsigmoid: _sigmoid,
    }

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.STAND_INS.get(func, func)(*args, **(kwargs or {}))


def alive(net: nn.Module, x: Tensor) -> int:
    """The parameters with a gradient that is not 0, whole kernels counted; its masks must be in place."""
    handles = [site.mask.register_forward_hook(lambda *_: None) for site in sites(net) if site.mask is not None]
    with Smooth():  # a hooked mask is its own function, behind the rectifier
        outputs = [leaf for leaf in tree_leaves(net(x)) if isinstance(leaf, Tensor)]
        generator = torch.Generator().manual_seed(2)
        loss = sum((y * torch.randn(y.shape, dtype=y.dtype, generator=generator)).sum() for y in outputs)
    loss.backward()
    found = sum(_entries(parameter) for parameter in net.parameters())
    net.zero_grad(set_to_none=True)
    for handle in handles:
        handle.remove()
    return found


def _entries(parameter: nn.Parameter) -> int:
    if parameter.grad is None:
        return 0
    entries = parameter.grad != 0
    if entries.dim() > 2:
        return int(entries.flatten(2).any(2).sum()) * parameter[0, 0].numel()
    return int(entries.sum())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

"""The networks that benchmarks take: those of the zoo, pruned and quantized as after training, without training."""

import torch
from torch import nn

import qprune
from qprune.layers import ChannelMask, sites
from qprune.spec import Spec
from qprune.zoo import deployed

NETWORKS = {  # folder of the specs, size of the paper's images
    "densenet121": ("cifar100/densenet121", (3, 32, 32)),
    "mobilenetv2": ("cifar100/mobilenetv2", (3, 32, 32)),
    "preactresnet18": ("cifar100/preactresnet18", (3, 32, 32)),
    "unet": ("cityscapes/unet", (3, 256, 512)),
    "frrn_b": ("cityscapes/frrn_b", (3, 256, 512)),
    "resnet_generator": ("citysgan/resnet", (3, 256, 256)),
}
SPARSITY = 0.75


def dense_network(spec: str | Spec) -> nn.Module:
    """The network of a spec, with normalizations as different as after training."""
    return as_if_trained(deployed(qprune.build(spec)))


def masked_network(spec: str | Spec) -> nn.Module:
    """The same with random masks."""
    net = qprune.build(spec)
    drop(net, SPARSITY)
    return as_if_trained(deployed(net))


def drop(net: nn.Module, sparsity: float) -> None:
    """Drop a share of the channels at every mask, by chance."""
    masks = {site.name: site.mask for site in sites(net) if site.mask is not None}
    for mask in masks.values():
        if not mask.tied:
            mask.score.uniform_()
            mask.refresh(sparsity)
    for mask in masks.values():
        if mask.coupled:
            mask.keep.copy_(masks[mask.coupled[0]].keep)
    for mask in masks.values():
        follow(mask, masks)


def follow(mask: ChannelMask, masks: dict[str, ChannelMask]) -> None:
    """A tied mask drops what the masks that it follows drop."""
    for source, offset in mask.tied or ():
        keep = masks[source].keep
        mask.keep[offset : offset + len(keep)] = keep


@torch.no_grad()
def as_if_trained(net: nn.Module) -> nn.Module:
    """Give normalizations random statistics, scales and shifts."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
    return net.eval()

"""Networks of the zoo after a short training on real digits or drawn streets, which made their masks."""

from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import qprune
from qprune.data.digits import digits_source
from qprune.data.street import draw_street
from qprune.layers import sites
from qprune.spec import read_spec
from qprune.zoo import deployed

BATCH = 4
SETTLING = 2  # steps after the last mask is frozen
WIDTHS = {
    "cifar100/densenet121": 0.15,
    "cifar100/mobilenetv2": 0.25,
    "cifar100/preactresnet18": 0.2,
    "cityscapes/unet": 0.15,
    "cityscapes/frrn_b": 0.15,
    "citysgan/resnet": 0.2,
}
SCHEDULES = {
    "a75_oneshot": ["prune.0.schedule.at=5it", "prune.0.schedule.measure=3it"],
    "a75_layerwise": [f"prune.0.schedule.{key}=1it" for key in ("start", "interval", "refresh")],
}


@cache
def digits(count=64):
    """Scans of digits at the size of CIFAR's images, and what they show."""
    source, indices = digits_source(), np.arange(count)
    images = source.read("train", indices).float().div(255).sub(0.3)
    images = F.interpolate(images, size=32, mode="bilinear").repeat(1, 3, 1, 1)
    return images, torch.from_numpy(source.labels["train"][:count])


@cache
def streets(count=24):
    """Drawn street scenes, and the class of every pixel."""
    images, labels = zip(*(draw_street(0, "train", index, 32, 64) for index in range(count)), strict=True)
    images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return images, torch.from_numpy(np.stack(labels)).long()


def repainted(count=24):
    """Street scenes in the evening, and by day."""
    images, _ = streets(count)
    return images.mul(0.4).sub(0.5), images


TASKS = {
    "cifar100": (digits, F.cross_entropy),
    "cityscapes": (streets, F.cross_entropy),
    "citysgan": (repainted, F.l1_loss),
}


@cache
def trained(family, experiment, sparsity=0.75):
    """The network of a published experiment, narrow, trained by its own rules but for their steps; not to be changed.

    Every mask is measured and frozen by its schedule, one after the other or all at once.
    """
    torch.manual_seed(0)
    spec = read_spec(f"{family}/{experiment}", [
        f"model.width={WIDTHS[family]}", f"prune.0.sparsity={sparsity}", *SCHEDULES[experiment],
    ])  # fmt: skip
    net = deployed(qprune.build(spec)).train()
    load, loss = TASKS[family.split("/")[0]]
    inputs, targets = load()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    driver = qprune.ScheduleDriver(net, inputs[:1], optimizer=optimizer)
    while driver.steps_done < driver.plan.finished_by + SETTLING:
        batch = torch.arange(driver.steps_done * BATCH, (driver.steps_done + 1) * BATCH) % len(inputs)
        optimizer.zero_grad()
        loss(net(inputs[batch]), targets[batch]).backward()
        optimizer.step()
        driver.step()
    assert driver.all_frozen
    return net.eval()


def unseen(family):
    """Two images that it was not trained on."""
    if family.startswith("cifar100"):
        return digits(66)[0][64:]
    images = streets(26)[0][24:]
    return images if family.startswith("cityscapes") else images.mul(0.4).sub(0.5)


def masks(net):
    return {site.name: site.mask for site in sites(net) if site.mask is not None}


def statistics(net):
    return [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]

"""Training steps of the networks that benchmarks take: dense, pruned, quantized, joint, and in which way they run."""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

import qprune
from qprune import zoo
from qprune.float32 import float32_math
from qprune.layers import ReadyWeights, recompute_in_backward
from qprune.spec import Table
from qprune.training import make_average
from qprune.training.compiling import begin_step, compiled
from qprune.training.update import PRECISIONS

CONVOLUTIONS = ("Conv2d", "ConvTranspose2d")


@frozen
class Work:
    """A network with its input, and where masks and quantizers stand in it."""

    arch: str
    size: tuple[int, int, int]  # of an image
    batch: int
    masks: tuple[Table, ...]  # sites
    acts: tuple[Table, ...]
    small: tuple[int, int, int] = (3, 32, 32)  # of an image in a rehearsal
    classes: int = 100
    weights: tuple[str, ...] = ("Conv2d",)  # types of the layers whose weights are quantized

    def make(self, width: float) -> nn.Module:
        """The dense network, with fresh weights of seed 0; networks of torchvision have no width."""
        torch.manual_seed(0)
        options: dict[str, Any] = {} if "/" in self.arch else {"width": width}
        if self.arch != "resnet_generator":
            options["classes"] = self.classes
        return zoo.create(self.arch, **options)

    def target(self, output: Tensor) -> Tensor:
        """Something to compare an output with: classes of images, of pixels, or an image."""
        if self.arch == "resnet_generator":
            return torch.rand_like(output)
        shape = (output.shape[0], *output.shape[2:])
        return torch.randint(0, self.classes, shape, device=output.device)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean difference of images; else the cross entropy."""
        if target.is_floating_point():
            return nn.functional.l1_loss(output, target)
        return nn.functional.cross_entropy(output, target)


_RELUS = {"types": ["ReLU"], "at": "output"}
_INPUTS = {"types": list(CONVOLUTIONS), "at": "input", "skip": [0]}
_MOBILE = ({"types": ["ReLU6"], "at": "output"},
           {"types": ["BatchNorm2d"], "paths": ["*.post_residual.*"], "at": "output"})  # fmt: skip
_UNET = ({"types": ["ReLU", "ConvTranspose2d"], "at": "output"},)
_RESNET = ({"types": ["Conv2d"], "at": "input", "skip": [0]},)  # which shares its ReLU
WORKS = {
    "mobilenetv2": Work("mobilenetv2", (3, 32, 32), 128, _MOBILE, _MOBILE),
    "densenet121": Work(
        "densenet121", (3, 32, 32), 128,
        (_RELUS, {"types": ["BatchNorm2d"], "paths": ["*transition*"], "at": "output"}),
        (_RELUS, {"types": ["AvgPool2d"], "paths": ["*transition*"], "at": "output"}),
        weights=("Conv2d", "Linear"),
    ),
    "resnet50": Work("torchvision/resnet50", (3, 224, 224), 64, _RESNET, _RESNET, classes=1000),
    "unet": Work("unet", (3, 256, 512), 8, _UNET, _UNET, classes=19, weights=CONVOLUTIONS),
    "resnet_generator": Work("resnet_generator", (3, 256, 256), 1, (_INPUTS,), (_INPUTS,), weights=CONVOLUTIONS),
}  # fmt: skip


@frozen
class Way:
    """How a step is taken."""

    prune: bool = False
    quantize: bool = False
    channels_last: bool = True
    precision: str = "float32"
    tf32: bool = False
    compile: str | None = None  # backend of torch.compile
    mode: str | None = None  # its mode
    average: bool = False
    recompute: bool = False

    @property
    def dense(self) -> "Way":
        """The same for the dense network."""
        return evolve(self, prune=False, quantize=False, recompute=False)


class Step:
    """Training steps: forward, backward, SGD with momentum; the driver's and the average's, if there are any.

    Three quarters of the channels are dropped and weights and activations have 4 bits, from the second step on.

    Args:
        net: the dense network; what it is put into is a copy, where anything is.
        work: what it is.
        way: how steps are taken.
        images: a batch, on the device on which they are taken.
    """

    def __init__(self, net: nn.Module, work: Work, way: Way, images: Tensor) -> None:
        self.work, self.way, self.device = work, way, images.device
        layout = torch.channels_last if way.channels_last else torch.contiguous_format
        self.images, example = images.contiguous(memory_format=layout), torch.zeros(2, *images.shape[1:])
        if way.prune or way.quantize:
            net = qprune.swap(net, example, **_rules(work, way))
        self.net = recompute_in_backward(net.to(self.device).to(memory_format=layout).train(), way.recompute)
        self.target: Tensor | None = None
        self.optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
        self.average = make_average(net, 0.999) if way.average else None
        self.weights = ReadyWeights(nn.Identity() if way.compile else net)
        self.view = compiled(net, way.compile, way.mode) if way.compile else net
        self.driver = None
        if way.prune or way.quantize:
            average = self.average and self.average.module
            options: dict[str, Any] = {"optimizer": self.optimizer, "average": average}
            self.driver = qprune.ScheduleDriver(net, example, measure_all=way.compile is not None, **options)

    def take(self, count: int = 1) -> None:
        """Take so many steps, and wait for the device."""
        with float32_math(tf32=self.way.tf32):
            for _ in range(count):
                self.forward().backward()
                self.update()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forward(self) -> Tensor:
        """The loss of a batch."""
        if self.way.mode is not None and self.device.type == "cuda":
            begin_step()
        self.optimizer.zero_grad()
        dtype = PRECISIONS[self.way.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None), self.weights.ready():
            output = self.view(self.images)
            if self.target is None:
                self.target = self.work.target(output.detach())
            return self.work.loss(output, self.target)

    def update(self) -> None:
        """What follows a backward."""
        self.optimizer.step()
        if self.driver is not None:
            self.driver.step()
        if self.average is not None:
            self.average.update_parameters(self.net)


def _rules(work: Work, way: Way) -> dict[str, Any]:
    masks = {"sites": list(work.masks), "sparsity": 0.75, "schedule": {"kind": "one-shot", "at": 1}}
    weights = {"sites": [{"types": list(work.weights), "at": "weight"}], "bits": 4, "per": "channel", "start": 1}
    acts = {"sites": list(work.acts), "bits": 4, "start": 1}
    return {"prune": [masks] if way.prune else [], "quantize": [weights, acts] if way.quantize else []}


def interleaved(
    steps: Mapping[str, Step],
    rounds: int,
    *,
    count: int = 1,
    first: int = 0,
    warm: int = 3,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, list[float]]:
    """Seconds per step of every variant, in turns, so that a machine that slows down slows all of them alike.

    Args:
        steps: by name.
        rounds: turns that are counted.
        count: steps of one turn.
        first: untimed steps before these. A step right after another network's finds caches and allocator in that
            one's state, which costs networks differently; with one the steady state of a training by itself is timed.
        warm: turns before them; in the first two masks and quantizers begin.
        clock: what tells the time; `time.process_time` where others use the machine.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + warm):
        for name, step in steps.items():
            step.take(first)
            began = clock()
            step.take(count)
            if turn >= warm:
                times[name].append((clock() - began) / count)
    return times

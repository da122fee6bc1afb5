"""Networks out of a random recipe: every operation that shrinking understands, wired at random, masked at random."""

import random

import torch
from hypothesis import strategies as st
from masked_nets import hosted, lively
from torch import nn

from qprune.layers import HOSTS
from qprune.zoo import Add, Concat

EPS = 1e-2  # of normalizations by image: a small one makes rounding errors large
SHARES = (0.3, 0.6, 0.95)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.Identity)
PLACES = (
    lambda: nn.MaxPool2d(3, 1, 1),
    lambda: nn.AvgPool2d(3, 1, 1),
    lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.AvgPool2d(2)),
    lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.MaxPool2d(2)),
    lambda: nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(3, 1)),
    lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.MaxPool2d(3, 1)),
    lambda: nn.Sequential(nn.ReplicationPad2d(1), nn.AvgPool2d(3, 1)),
)
FUNCTIONS = {
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "half": lambda x: x * 0.5 + 0.1,
    "negative": lambda x: 1 - x,
    "clamp": lambda x: x.clamp(-0.5, 2.0),
    "pad": lambda x: nn.functional.pad(x[:, :, 1:, :], (0, 0, 0, 1)),
}
BARRIERS = {"cumsum": lambda x: x.cumsum(1) / x.shape[1], "flip": lambda x: x.flip(1)}
KINDS = (
    "conv",
    "conv",
    "grouped",
    "depthwise",
    "transposed",
    "norm",
    "group norm",
    "activation",
    "place",
    "function",
    "add",
    "plus",
    "concat",
    "cat",
    "gate",
    "chunk",
    "slice",
    "barrier",
    "again",
)


class RandomNet(nn.Module):
    """Carries out a recipe: each step makes a tensor of earlier ones; the last one goes through the head."""

    def __init__(self, recipe):
        super().__init__()
        self.layers = nn.ModuleDict()
        self.steps, self.counts = [], [3]
        for index, (kind, source, other, seed) in enumerate(recipe):
            self.choose = random.Random(seed)
            self._plan(kind, f"{index}_{kind.replace(' ', '_')}", source % len(self.counts), other % len(self.counts))
        self.head = nn.Conv2d(self.counts[-1], 4, 1)
        self.linear = nn.Linear(4 * 48, 3)
        del self.choose

    def _plan(self, kind, name, source, other):
        count, choose = self.counts[source], self.choose
        out = choose.randint(1, 12)
        groups = choose.choice([g for g in range(1, count + 1) if count % g == 0])
        layer = None
        if kind == "conv":
            kernel = choose.choice([1, 3])
            mode = choose.choice(["zeros", "reflect", "replicate"])
            layer = nn.Conv2d(count, out, kernel, padding=kernel // 2, padding_mode=mode, bias=choose.random() < 0.7)
        elif kind == "grouped":
            out = groups * choose.randint(1, 3)
            layer = nn.Conv2d(count, out, 3, padding=2, dilation=2, groups=groups)
        elif kind == "depthwise":
            out = count * choose.randint(1, 2)
            layer = nn.Conv2d(count, out, 3, padding=1, groups=count)
        elif kind == "transposed":
            out = groups * choose.randint(1, 3)
            layer = nn.ConvTranspose2d(count, out, 3, padding=1, groups=groups)
        elif kind == "norm":
            affine, out = choose.random() < 0.8, count
            layer = choose.choice([nn.BatchNorm2d(count, affine=affine), nn.InstanceNorm2d(count, EPS, affine=affine)])
        elif kind == "group norm":
            layer, out = nn.GroupNorm(groups, count, EPS), count
        elif kind == "activation":
            layer, out = choose.choice(ACTIVATIONS)(), count
        elif kind == "place":
            layer, out = choose.choice(PLACES)(), count
        elif kind in ("add", "plus", "gate"):
            same = [i for i, c in enumerate(self.counts) if c == count]
            other, out = same[other % len(same)], count
            layer = Add() if kind == "add" else None
        elif kind in ("concat", "cat"):
            out = count + self.counts[other]
            layer = Concat() if kind == "concat" else None
        elif kind == "function":
            name, out = choose.choice(sorted(FUNCTIONS)), count
        elif kind == "barrier":
            name, out = choose.choice(sorted(BARRIERS)), count
        elif kind == "again":
            layer, out = nn.ReLU(), count
            name = "relu"
        elif kind in ("chunk", "slice"):
            out = (count + 1) // 2
        if layer is not None and name not in self.layers:
            self.layers[name] = layer
        self.steps.append((kind, name, source, other))
        self.counts.append(out)

    def forward(self, x):
        tensors = [x]
        for kind, name, source, other in self.steps:
            a, b = tensors[source], tensors[other]
            if kind == "plus":
                y = a + b
            elif kind == "gate":
                y = a * torch.sigmoid(b.mean((2, 3), keepdim=True))
            elif kind == "cat":
                y = torch.cat([a, b], 1)
            elif kind == "chunk":
                y = a.chunk(2, 1)[0]
            elif kind == "slice":
                y = a[:, ::2]
            elif kind in ("function", "barrier"):
                y = (FUNCTIONS | BARRIERS)[name](a)
            else:
                y = self.layers[name](a, b) if kind in ("add", "concat") else self.layers[name](a)
            tensors.append(y)
        y = self.head(tensors[-1])
        return y, self.linear(torch.flatten(torch.relu(y), 1))


def mask_at_random(net, seed):
    """Masks at random sides of random layers, with random channels."""
    generator, choose = torch.Generator().manual_seed(seed), random.Random(seed)
    for layer in list(net.modules()):
        if type(layer) not in HOSTS or isinstance(layer, Add | Concat) or choose.random() < 0.4:
            continue
        side = choose.choice(hosted(layer).sides)
        channels = layer.channels_at(side)
        if channels is not None and layer is not net.linear:
            mask = layer.add_mask(side)
            mask.score.copy_(torch.rand(channels, generator=generator))
            mask.refresh(choose.choice(SHARES))
    return net


STEPS = st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**16))
RECIPES = st.lists(STEPS, min_size=1, max_size=12)


def random_net(recipe, seed):
    """The network of a recipe, in eval mode, with masks."""
    torch.manual_seed(seed)
    return mask_at_random(lively(RandomNet(recipe)), seed).eval()

"""What a forward overwrites is read again as it is in torch."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map_only

import qprune
from qprune.errors import ExportError
from qprune.exporting import OnnxModel, write_network
from qprune.graph.following import follow

Forward = Callable[[Any, Tensor], Any]


class Net(nn.Module):
    """Overwrites a tensor that a convolution made, in a way of its own, and reads it again."""

    def __init__(self, run: Forward) -> None:
        super().__init__()
        self.run = run
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.relu, self.hardswish, self.dropout = nn.ReLU(inplace=True), nn.Hardswish(True), nn.Dropout(0.5, True)
        self.same, self.flatten = nn.Identity(), nn.Flatten()
        self.part = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1))
        self.register_buffer("offset", torch.ones(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Any:
        return self.run(self, self.a(x))


def followed_by(write: Forward) -> Forward:
    """Overwrite the tensor, and read both what is handed back and the tensor."""
    return lambda net, y: net.b(write(net, y)) + y


def in_place_sum(net: Any, y: Tensor) -> Tensor:
    z = y
    y += 1.5
    return net.b(y) + z


def in_place_product(net: Any, y: Tensor) -> Tensor:
    z = y
    y *= net.offset * 1.5
    return net.b(y) + z


def in_place_power(net: Any, y: Tensor) -> Tensor:
    z = y
    y **= 2
    return net.b(y) + z


def into_itself(net: Any, y: Tensor) -> Tensor:
    torch.mul(y, 2, out=y)
    return net.b(y) + y


def into_an_empty_one(net: Any, y: Tensor) -> Tensor:
    z = torch.empty_like(y)
    torch.add(y, 1, out=z)
    return net.b(z) + y


def view_made_before(net: Any, y: Tensor) -> Tensor:
    first, second, third = y[:, 1:].chunk(3, 1)
    turned = y.transpose(2, 3)
    y.add_(1)
    return torch.cat([first, second, third, net.b(y)], 1) + turned.mean((1, 2, 3), keepdim=True)


def half_of_a_tensor(net: Any, y: Tensor) -> Tensor:
    first, second = y.chunk(2, 1)
    first.relu_()
    return net.b(torch.cat([first, second], 1))


def read_before_and_after(net: Any, y: Tensor) -> Tensor:
    before = net.b(y)
    y.mul_(3)
    return before + net.c(y)


def twice(net: Any, y: Tensor) -> Tensor:
    z = y.add_(1)
    z.mul_(2)
    net.hardswish(y)
    return net.b(z) + y


def through_data(net: Any, y: Tensor) -> Tensor:
    y.data.add_(1)
    return net.b(y)


def constant_of_the_forward(net: Any, y: Tensor) -> Tensor:
    total = torch.zeros(4, 1, 1)
    total.add_(2)
    total += 3
    return y + total


def by_index(net: Any, y: Tensor) -> Tensor:
    y[:, :3] = 2.0
    return net.b(y)


def part_by_part(net: Any, y: Tensor) -> Tensor:
    first, second = y.chunk(2, 1)
    first.add_(1)
    return torch.cat([second, net.c(y)], 1)


def through_a_view(net: Any, y: Tensor) -> Tensor:
    net.flatten(y).add_(1)
    return net.b(y)


def by_view_and_returned(net: Any, y: Tensor) -> Tensor:
    y[:, 1:].mul_(2)
    return y


def every_other_channel(net: Any, y: Tensor) -> Tensor:
    y[:, 1] = net.c(y)[:, 0]
    y[..., -2:] *= 0.5
    return net.b(y)


WRITES: dict[str, Forward] = {
    "F.relu": lambda net, y: net.b(y + F.relu(y, inplace=True)),
    "layer": followed_by(lambda net, y: net.relu(y)),
    "skip": lambda net, y: net.b(net.relu(y)) + net.c(y),
    "method": followed_by(lambda net, y: y.relu_()),
    "add_": followed_by(lambda net, y: y.add_(net.offset)),
    "sub_": followed_by(lambda net, y: y.sub_(1)),
    "clamp_": followed_by(lambda net, y: y.clamp_(0, 0.5)),
    "hardswish": followed_by(lambda net, y: net.hardswish(y)),
    "F.hardtanh": followed_by(lambda net, y: F.hardtanh(y, inplace=True)),
    "dropout": followed_by(lambda net, y: net.dropout(y).add_(1)),
    "sequential": lambda net, y: net.part(y) + y,
    "identity": followed_by(lambda net, y: net.same(y).add_(1)),
    "detached": followed_by(lambda net, y: y.detach().add_(1)),
    "output": lambda net, y: (y, net.relu(y)),
    **{write.__name__: write for write in (
        in_place_sum, in_place_product, in_place_power, into_itself, into_an_empty_one, view_made_before,
        half_of_a_tensor, read_before_and_after, twice, through_data, constant_of_the_forward, by_index, part_by_part,
        through_a_view, by_view_and_returned, every_other_channel,
    )},
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("write", WRITES)
def test_what_is_overwritten_is_read_as_in_torch(write: str) -> None:
    net, x = Net(WRITES[write]).eval(), torch.randn(2, 3, 5, 7)
    made = OnnxModel(write_network(net, x[:1]).model.SerializeToString(), threads=1)(x)
    torch.testing.assert_close(made, net(x.clone()), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_overwriting_a_buffer_is_refused_by_name() -> None:
    with pytest.raises(
        ExportError, match=r"its forward overwrites offset, which the network keeps from one forward to"
    ):
        write_network(Net(lambda net, y: net.offset.add_(1) + y), torch.zeros(1, 3, 5, 7))


@torch.no_grad()
def test_setting_the_data_of_a_tensor_is_followed_or_refused() -> None:
    def run(net: Any, y: Tensor) -> Tensor:
        y.data = y * 2
        return net.b(y)

    net, x = Net(run).eval(), torch.randn(2, 3, 5, 7)
    made = OnnxModel(write_network(net, x[:1]).model.SerializeToString(), threads=1)(x)
    torch.testing.assert_close(made, net(x.clone()), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_rectifier_that_overwrites_and_is_quantized_is_refused_if_its_input_is_read_again() -> None:
    acts = {"sites": [{"types": ["ReLU"], "at": "output"}], "bits": 8, "start": 0}
    x = torch.randn(2, 3, 5, 7)
    for run in (WRITES["sequential"], lambda net, y: net.part(y)):
        net = Net(run).eval()
        del net.relu
        net = qprune.calibrate(qprune.swap(net, x, quantize=[acts]), [x])
        if run is WRITES["sequential"]:
            with pytest.raises(ExportError, match=r"part\.0 overwrites what it is given, which is read again, and ha"):
                write_network(net, x)
        else:
            made = OnnxModel(write_network(net, x).model.SerializeToString(), threads=1)(x)
            torch.testing.assert_close(made, net(x))


def test_calls_whose_results_nobody_reads_are_not_in_the_file() -> None:
    def run(net: Any, y: Tensor) -> Tensor:
        torch.cos(net.b(y))  # no way into a file, and none needed
        return net.c(y)

    written = write_network(Net(run), torch.zeros(1, 3, 5, 7))
    assert [layer.path for layer in written.layers] == ["a", "c"]


class Windows(nn.Module):
    """Attention within windows, as in Swin transformers: padded by their size, cut, and one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(6), nn.Linear(6, 18), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.permute(0, 2, 3, 1))
        count, height, width, channels = y.shape
        y = F.pad(y, (0, 0, 0, -width % 4, 0, -height % 4))
        rows, columns = y.shape[1] // 4, y.shape[2] // 4
        y = y.view(count, rows, 4, columns, 4, channels).permute(0, 1, 3, 2, 4, 5)
        y = y.reshape(count * rows * columns, 16, channels)
        query, key, value = F.linear(y, self.qkv.weight, self.qkv.bias).chunk(3, -1)
        y = self.out(F.softmax(query @ key.transpose(1, 2), -1) @ value)
        y = (
            y.view(count, rows, columns, 4, 4, channels)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(count, 4 * rows, -1, channels)
        )
        return y[:, :height, :width].permute(0, 3, 1, 2)


@torch.no_grad()
def test_of_attention_in_windows_batch_and_sides_stay_free(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inside = {"sites": [{"paths": ["out"], "at": "input"}], "bits": 8, "start": 0}
    x = torch.randn(2, 6, 12, 20)
    net = qprune.swap(Windows().eval(), x, quantize=[inside]).eval()
    qprune.calibrate(net, [x])
    graph = follow(net, (x,), lambda module: isinstance(module, (nn.Linear, nn.LayerNorm)))
    other = torch.randn(5, 6, 9, 10)
    torch.testing.assert_close(graph(other), net(other))
    certificate = qprune.export(net, tmp_path / "windows.onnx", x)  # compares the quantizer inside the windows, too
    assert [each.name for each in certificate.quantizers] == ["out.input"]
    torch.testing.assert_close(OnnxModel(tmp_path / "windows.onnx")(other), net(other), atol=0.05, rtol=0)


class Program(nn.Module):
    """Calls drawn by chance: views, sums, and overwriting of whatever was made so far."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.relu, self.flatten = nn.ReLU(inplace=True), nn.Flatten()

    def forward(self, x: Tensor) -> Any:
        draw = random.Random(self.seed)
        made = [x * 1.5, x + 2]
        ways: list[Callable[[Tensor], Any]] = [
            lambda y: y[:, -2:], lambda y: y[:, :1], lambda y: y.transpose(1, 2), lambda y: y.detach(),
            lambda y: y.split(1, 2)[draw.randrange(-1, 1)], lambda y: y.unsqueeze(1).squeeze(1), lambda y: y.data,
            lambda y: y.contiguous(), lambda y: y - 1, lambda y: y.view(y.shape), lambda y: y.mean(1, keepdim=True),
            lambda y: y.add_(1), lambda y: y.mul_(-2), self.relu, lambda y: y.sub_(y.mean()), lambda y: y.neg_(),
            lambda y: torch.mul(y, 3, out=y), lambda y: y.__iadd__(2), lambda y: y[:, :1].add_(4),
        ]  # fmt: skip
        for _ in range(draw.randrange(3, 12)):
            made.append(draw.choice(ways)(draw.choice(made[-4:])))
        return [draw.choice(made) for _ in range(3)]


class WithoutMemory(fx.Interpreter):
    """Runs calls on copies, so that none sees what another overwrites."""

    def run_node(self, n: fx.Node) -> Any:
        self.env.update({each: tree_map_only(Tensor, torch.clone, self.env[each]) for each in n.all_input_nodes})
        return tree_map_only(Tensor, torch.clone, super().run_node(n))


@pytest.mark.parametrize("seeds", [range(50), pytest.param(range(50, 150), marks=pytest.mark.slow)])
@torch.no_grad()
def test_programs_drawn_by_chance_compute_the_same_without_memory(seeds: range) -> None:
    for seed in seeds:
        net, x = Program(seed), torch.randn(3, 3, 4)
        graph = follow(Program(seed), (torch.zeros(2, 3, 4),), lambda module: isinstance(module, nn.ReLU))
        made = WithoutMemory(graph).run(x.clone())
        for one, other in zip(made, net(x.clone()), strict=True):
            torch.testing.assert_close(one, other, msg=f"seed {seed}")


class Halves(nn.Module):
    """Keeps the upper half of an image, rounded up."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -(-x.shape[2] // 2)] * 2


def test_a_negative_side_is_divided_downwards_as_in_python() -> None:
    model = OnnxModel(write_network(Halves(), torch.zeros(2, 3, 8, 6)).model.SerializeToString())
    for height in (8, 9, 11):
        x = torch.randn(2, 3, height, 6)
        torch.testing.assert_close(model(x), Halves()(x))


class Padded(nn.Module):
    """Pads by a function, before a convolution."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.conv, self.mode = nn.Conv2d(3, 4, 3), mode

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (1, 1, 2, 1), mode=self.mode))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@torch.no_grad()
def test_padding_by_a_function_is_saved_and_exported_in_every_mode(mode: str, tmp_path: Path) -> None:
    net, x, other = Padded(mode).eval(), torch.randn(2, 3, 9, 8), torch.randn(3, 3, 7, 11)
    qprune.save(net, tmp_path / "net.pt", x)
    qprune.export(net, tmp_path / "net.onnx", x)
    opened, exported = qprune.load(tmp_path / "net.pt"), OnnxModel(tmp_path / "net.onnx")
    assert torch.equal(opened(other), net(other))
    torch.testing.assert_close(exported(other), net(other))

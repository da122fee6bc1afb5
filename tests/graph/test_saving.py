import copy
import pickle
from collections import OrderedDict
from typing import Any

import forked
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qprune
from qprune import zoo
from qprune.errors import CheckpointError, ShrinkError
from qprune.graph import graph_of, net_from
from qprune.graph.operations import TYPES, operation
from qprune.layers import Align, Aligned, Compressed, PrunedQuantConv2d, sites
from qprune.training.checkpoint import load, save


class Block(nn.Module):
    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)  # called twice
        self.short = nn.Conv2d(into, out, 1, stride) if stride > 1 or into != out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.relu(y + (x if self.short is None else self.short(x)))


class Own(nn.Module):
    """A residual network of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(Block(6, 6, 1), Block(6, 10, 2))
        self.head = nn.Linear(10, 7)

    def forward(self, x: Tensor, features: bool = False) -> Tensor:
        x = self.blocks(F.relu(self.stem(x)))
        if features:
            return x
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def _settled(net: nn.Module) -> nn.Module:
    """Statistics and weights that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5, generator=generator)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return net.eval()


PRUNE = [{"sites": [{"types": ["Conv2d"], "at": "input"}], "sparsity": 0.5,
          "schedule": {"kind": "one-shot", "at": 0}}]  # fmt: skip
QUANTIZE = [
    {"sites": [{"types": ["Conv2d"], "at": "weight"}], "bits": 4, "per": "channel", "start": 0},
    {"sites": [{"types": ["Conv2d"], "at": "input"}], "bits": 4, "start": 0},
]


def _swapped(net: nn.Module, x: Tensor, quantize: bool = False) -> nn.Module:
    first = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3]
    prune = [{**rule, "exclude": first} for rule in PRUNE]
    net = _settled(qprune.swap(net, x, prune=prune, quantize=QUANTIZE if quantize else []))
    generator = torch.Generator().manual_seed(2)
    for site in sites(net):
        if site.mask is not None:
            site.mask.keep.copy_(torch.rand(site.mask.channels, generator=generator) < 0.6)
            site.mask.keep[0] = True
        if site.quant is not None:
            site.quant.calibrate(site.host.weight if site.side == "weight" else torch.tensor([-1.5, 3.0]))
    return net


def _saved(net: nn.Module, x: Any, folder: Any) -> nn.Module:
    qprune.save(net, folder / "net.pt", x)
    return qprune.load(folder / "net.pt")


@torch.no_grad()
def _same(net: nn.Module, again: nn.Module, x: Tensor) -> bool:
    return torch.equal(net.eval()(x.clone()), again(x.clone()))


def _resnet18() -> nn.Module:
    torchvision = pytest.importorskip("torchvision")
    return torchvision.models.resnet18(weights=None, num_classes=11)


def _mobilenet_v2() -> nn.Module:
    torchvision = pytest.importorskip("torchvision")
    return torchvision.models.mobilenet_v2(weights=None, num_classes=11, width_mult=0.5)


@pytest.mark.parametrize("form", ["plain", "masked", "w4a4", "shrunk", "folded", "shrunk w4a4", "folded w4a4"])
@pytest.mark.parametrize("make", [Own, _resnet18, _mobilenet_v2])
def test_network_comes_back_bit_for_bit(make: Any, form: str, tmp_path: Any) -> None:
    x = torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(3))
    net = _settled(make())
    if form != "plain":
        net = _swapped(net, x, quantize="w4a4" in form)
    if "shrunk" in form or "folded" in form:
        net = qprune.shrink(net, x, fold="folded" in form)
    again = _saved(net, x, tmp_path)
    assert _same(net, again, x)
    assert not again.training
    assert again.state_dict().keys() == net.state_dict().keys()
    assert {path for path, _ in net.named_modules()} == {path for path, _ in again.named_modules()}
    again.load_state_dict(net.state_dict(), strict=True)
    assert qprune.predict(again, x).shape == (2, again(x).shape[1])


def test_shrunk_network_keeps_its_joints(tmp_path: Any) -> None:
    x = torch.randn(2, 3, 8, 12)
    small = qprune.shrink(_swapped(Own(), x), x)
    again = _saved(small, x, tmp_path)
    joined = [path for path, module in small.named_modules() if isinstance(module, Aligned)]
    assert joined
    assert [type(again.get_submodule(path)) for path in joined] == [type(small.get_submodule(path)) for path in joined]
    assert any(isinstance(module, Align) for module in again.modules())


CODE = """
import sys, torch, qprune
assert "test_graph" not in sys.modules
folder = sys.argv[1]
net = qprune.load(folder + "/net.pt")
with torch.no_grad():
    assert torch.equal(net(torch.load(folder + "/x.pt")), torch.load(folder + "/y.pt"))
print(type(net.blocks[0]).__module__)
"""


def test_a_process_without_the_class_opens_it(tmp_path: Any) -> None:
    x = torch.randn(2, 3, 8, 12)
    net = qprune.shrink(_swapped(Own(), x, quantize=True), x)
    qprune.save(net, tmp_path / "net.pt", x)
    torch.save(x, tmp_path / "x.pt")
    with torch.no_grad():
        torch.save(net(x), tmp_path / "y.pt")
    ran = forked.run("-c", CODE, tmp_path, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "torch.nn.modules.module"


@pytest.fixture
def pair(tmp_path: Any) -> tuple[nn.Module, nn.Module, Tensor]:
    """A network that was shrunk and quantized, what came back of it, and an input."""
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(4))
    net = qprune.shrink(_swapped(Own(), x, quantize=True), x)
    return net, _saved(net, x, tmp_path), x


def test_it_trains_as_the_network_does(pair: Any) -> None:
    losses = []
    for net in pair[:2]:
        net.train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            loss = net(pair[2]).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[:2] == losses[2:]
    assert losses[0] != losses[1]
    assert all(torch.equal(a, b) for a, b in zip(pair[0].parameters(), pair[1].parameters(), strict=True))


@torch.no_grad()
def test_it_compiles(pair: Any) -> None:
    net, again, x = pair
    torch._dynamo.reset()
    assert torch.equal(torch.compile(again, backend="aot_eager", fullgraph=True)(x), net(x))


def test_it_is_exported(pair: Any) -> None:
    net, again, x = pair
    assert torch.equal(torch.export.export(again, (x,)).module()(x), net(x))


@torch.no_grad()
def test_it_is_copied_pickled_converted_and_saved_again(pair: Any, tmp_path: Any) -> None:
    net, again, x = pair
    for other in (copy.deepcopy(again), pickle.loads(pickle.dumps(again)), _saved(again, x, tmp_path)):
        assert _same(net, other, x)
        assert other.state_dict().keys() == net.state_dict().keys()
    assert torch.equal(copy.deepcopy(net).double()(x.double()), again.to(torch.float64)(x.double()))


def test_it_can_be_swapped_and_shrunk_like_any_other(tmp_path: Any) -> None:
    x = torch.randn(2, 3, 8, 12)
    masked = _swapped(Own(), x)
    small = qprune.shrink(_saved(masked, x, tmp_path), x)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in masked.parameters())
    assert {k: v.shape for k, v in small.state_dict().items()} == {
        k: v.shape for k, v in qprune.shrink(masked, x).state_dict().items()
    }


def test_masks_and_quantizers_come_back_with_their_options(tmp_path: Any) -> None:
    layer = PrunedQuantConv2d(3, 4, 1, multiple_of=2, weight_bits=3, act_bits=5, act_at="output", gradient="clipped")
    again: Any = _saved(nn.Sequential(layer), torch.zeros(1, 3, 5, 7), tmp_path).get_submodule("0")
    assert isinstance(again, Compressed)
    assert isinstance(again, nn.Conv2d)
    assert again.input_mask.multiple_of == 2
    assert again.input_mask.pending_score.device.type == "cpu"
    assert (again.weight_quant.bits, again.weight_quant.channels, again.weight_quant.symmetric) == (3, 4, True)
    assert (again.output_quant.bits, again.output_quant.gradient) == (5, "clipped")
    again.train()
    again.input_mask.measuring = again.output_quant.measuring = True
    again(torch.ones(1, 3, 5, 7))
    assert again.input_mask.pending_score.tolist() == [1, 1, 1]
    assert again.output_quant.pending_high.isfinite()


class Odd(nn.Module):
    """Tensors that belong to no layer, things that are there twice, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(5))
        self.register_buffer("shift", torch.rand(5))
        self.register_buffer("hidden", torch.rand(5), persistent=False)
        self.plain = torch.rand(5)
        self.one = nn.Linear(5, 5)
        self.other = self.one
        self.tied = nn.Linear(5, 5, bias=False)
        self.tied.weight = self.one.weight
        self.unused = nn.ModuleDict({"head": nn.Linear(5, 3)})
        self.gain.requires_grad_(False)

    def forward(self, x: Tensor, *, scale: float = 2.0) -> dict[str, Tensor]:
        x = self.other(x * self.gain.exp() + self.shift.neg() - self.hidden) * scale
        return {
            "y": self.tied(x)[:, 1:, ...] + self.plain[1:].to(torch.float64).to(x.dtype),
            "size": x.view(x.size(0), -1),
        }


class Overwriting(nn.Module):
    """Overwrites what it reads again, in one way of many."""

    def __init__(self, write: Any) -> None:
        super().__init__()
        self.write = write
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.relu, self.flatten = nn.ReLU(inplace=True), nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = self.b(y)
        kept = y
        self.write(self, y)
        return z + self.c(kept) + y


def _add(net: Any, y: Tensor) -> None:
    y += 1.5


def _multiply(net: Any, y: Tensor) -> None:
    y *= 1.5


def _raise(net: Any, y: Tensor) -> None:
    y **= 2


def _set(net: Any, y: Tensor) -> None:
    y[:, 2:] = y[:, :2]
    y[:, 3] = 2.0


def _into(net: Any, y: Tensor) -> None:
    torch.mul(y, 2, out=y)


WRITES = {
    "+=": _add, "*=": _multiply, "**=": _raise, "[]=": _set, "out": _into, "layer": lambda net, y: net.relu(y),
    "function": lambda net, y: F.relu(y, inplace=True), "method": lambda net, y: y.sub_(0.5),
    "view": lambda net, y: y[:, :3].mul_(3), "flat": lambda net, y: net.flatten(y).add_(1),
    "chunk": lambda net, y: y.chunk(2, 1)[1].relu_(),
}  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
def test_what_a_forward_overwrites_it_overwrites_from_a_file_too(write: str, tmp_path: Any) -> None:
    net = Overwriting(WRITES[write]).eval().requires_grad_(False)
    again = _saved(net, torch.zeros(1, 3, 5, 7), tmp_path)
    for seed in range(2):  # nor does the first forward leave anything behind
        assert _same(net, again, torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (4, 1, 1)])
def test_tensor_that_a_forward_makes_anew_may_be_overwritten(shape: tuple[int, ...], tmp_path: Any) -> None:
    def write(net: Any, y: Tensor) -> None:
        total = torch.zeros(shape)  # in one of the cases there is room for one image only
        total += y.mean((0, 2, 3)).view(-1, 1, 1)
        y += total

    net, x = Overwriting(write).eval().requires_grad_(False), torch.randn(1, 3, 5, 7)
    again = _saved(net, x, tmp_path)
    assert _same(net, again, x)
    assert _same(net, again, x)


class Scaling(nn.Module):
    def forward(self, x: Any, by: Any = 2.0) -> Tensor:
        return (x[0] + x[1] if isinstance(x, list) else x) * by


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ((torch.ones(2, 3), 3.0), "it is given a float beside tensors"),
        (([torch.ones(2, 3), torch.ones(2, 3)], torch.ones(1)), "it is given a list beside tensors"),
    ],
)
def test_a_file_takes_tensors_alone(example: Any, words: str, tmp_path: Any) -> None:
    with pytest.raises(
        ShrinkError, match=rf"Scaling cannot be saved as a graph: {words}, which a file would hold as it"
    ):
        qprune.save(Scaling(), tmp_path / "net.pt", example)


def test_several_tensors_are_given_in_their_order(tmp_path: Any) -> None:
    given = (torch.randn(2, 3), torch.randn(2, 1))
    again = _saved(Scaling(), given, tmp_path)
    assert torch.equal(again(*given), Scaling()(*given))
    assert torch.equal(again(given[0], 3 * given[1]), Scaling()(given[0], 3 * given[1]))


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.seen.add_(1)


def test_what_a_network_keeps_may_not_be_overwritten(tmp_path: Any) -> None:
    with pytest.raises(ShrinkError, match="its forward overwrites seen, which the network keeps from one forward to"):
        _saved(Remembering(), torch.zeros(1, 5), tmp_path)


class Sized(nn.Module):
    """What no symbolic tracing follows: iteration, decisions by sizes, attributes, assertions, chance that is off."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(4, 4, 2, stride=2), nn.ConvTranspose2d(4, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.dim() == 4, "images")
        first, second = (part for part in x.chunk(2, 1))
        y = self.conv(torch.cat([second.mT.mT, first.data], 1))
        y = self.up(y, output_size=x.shape[2:]) if x.shape[2] > y.shape[2] else y
        y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        y = F.dropout(y, 0.5, self.training)
        grown = F.interpolate(y[..., ::2], size=y.shape[-2:], mode="bilinear")
        return sum(part.tril() for part in (x + y).split(2, 1)) + grown.unflatten(1, (2, -1)).amax(1)  # type: ignore[return-value]


def test_sizes_are_those_of_the_input_when_a_file_runs(tmp_path: Any) -> None:
    net, generator = Sized().eval(), torch.Generator().manual_seed(0)
    again = _saved(net, torch.zeros(1, 4, 9, 12), tmp_path)
    for shape in ((1, 4, 9, 12), (3, 4, 13, 8), (2, 4, 6, 6)):
        assert _same(net, again, torch.randn(shape, generator=generator))


class SizeDeciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.shape[2] > 8 else x.tanh()


def test_decision_by_the_size_of_images_is_told_of(tmp_path: Any, caplog: Any) -> None:
    x = torch.randn(2, 3, 5, 7)
    assert _same(SizeDeciding(), _saved(SizeDeciding(), x, tmp_path), x)
    assert "SizeDeciding decides by the size of its inputs; the file holds what it does for (2, 3, 5, 7)" in caplog.text


def test_forward_that_differs_where_the_example_does_not_show_it_is_refused(tmp_path: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU())
    net[1].register_forward_hook(lambda module, given, result: 2 * result)
    with pytest.raises(ShrinkError, match="its calls alone compute something else than its forward"):
        _saved(net, torch.zeros(1, 3, 5, 7), tmp_path)


def test_loose_tensors_come_back_as_what_they_were(tmp_path: Any) -> None:
    net, x = Odd(), torch.randn(2, 5)
    again = _saved(net, x, tmp_path)
    assert again(x).keys() == net(x).keys()
    assert all(torch.equal(again(x)[key], y) for key, y in net(x).items())
    assert again.state_dict().keys() == net.state_dict().keys()
    assert again.one is again.other
    assert again.tied.weight is again.one.weight
    assert not again.gain.requires_grad
    assert again.one.weight.requires_grad
    assert len(list(again.parameters())) == len(list(net.parameters()))
    for other in (copy.deepcopy(again), _saved(again, x, tmp_path)):
        assert torch.equal(other(x)["y"], net(x)["y"])


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(50, 60)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(F.dropout(self.layer(x), 0.5, training=self.training), 0.3, training=False)


def test_functional_dropout_drops_in_training_alone(tmp_path: Any, caplog: Any) -> None:
    net, x = Dropping(), torch.randn(2, 50)
    again = _saved(net, x, tmp_path)
    assert _same(net, again, x)
    torch.manual_seed(5)
    expected = net.train()(x)
    torch.manual_seed(5)
    assert torch.equal(again.train()(x), expected)
    assert (expected == 0).any()
    assert not [record for record in caplog.records if record.name.startswith("qprune")]


class Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main, self.aux = nn.Linear(2, 3), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Any:
        return (self.main(x), self.aux(x)) if self.training else self.main(x)


def test_another_forward_in_training_is_told_of(tmp_path: Any, caplog: Any) -> None:
    again = _saved(Auxiliary().train(), torch.zeros(1, 2), tmp_path)
    assert "Auxiliary computes otherwise in training" in caplog.text
    assert "aux.weight" in again.state_dict()


def test_dtype_and_memory_format_are_kept(tmp_path: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).to(torch.bfloat16).eval()
    net.to(memory_format=torch.channels_last)
    again = _saved(net, torch.randn(1, 3, 5, 7, dtype=torch.bfloat16), tmp_path)
    weight = again.get_parameter("0.weight")
    assert weight.dtype == torch.bfloat16
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_saving_touches_nothing(tmp_path: Any) -> None:
    net = _swapped(Own(), torch.zeros(1, 3, 8, 12)).train()
    before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    _saved(net, torch.randn(2, 3, 8, 12, generator=torch.Generator()), tmp_path)
    assert all(module.training for module in net.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


ARCHS = ["densenet121", "mobilenetv2", "preactresnet18", "unet", "frrn_b", "resnet_generator", "unet_256", "patchgan"]


@pytest.mark.parametrize("arch", ARCHS)
def test_networks_of_the_zoo_are_graphs_too(arch: str) -> None:
    net = zoo.create(arch, width=0.125).eval()
    side = 256 if arch == "unet_256" else 64
    x = torch.randn(1, 3, side, side)
    assert _same(net, net_from(graph_of(net, x), net.state_dict()), x)


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Transforming(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x).real


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(int(x.shape[0]), -1)


class Listing(nn.Module):
    def forward(self, x: Tensor) -> list[float]:
        return x.tolist()


class Crowded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[0] > 1 else -x


def _hooked() -> nn.Module:
    net = nn.Sequential(nn.ReLU())
    net[0].register_forward_hook(lambda *_: torch.ones(1))
    return net


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Deciding(), "Deciding cannot be saved as a graph: its forward decides by values of a tensor (in that of Dec"),
        (Deciding(), "(in that of Deciding, at `return x if x.sum() > 0 else -x`"),
        (
            Counting(),
            "its calls alone compute something else than its forward, which may depend on values, on the numb",
        ),
        (Crowded(), "its calls alone compute something else than its forward, which may depend on values, on the numb"),
        (Transforming(), "it calls aten._fft_r2c.default, which is none of the operations that a file may name"),
        (Listing(), "its forward cannot be followed without values (in that of Listing, at `return x.tolist()`"),
        (nn.ReLU(), "A single ReLU has no calls to save. Put it in nn.Sequential first."),
        (_hooked(), "its calls alone compute something else than its forward"),
    ],
)
def test_what_no_file_can_hold_is_an_error_with_a_way_out(net: nn.Module, words: str, tmp_path: Any) -> None:
    with pytest.raises(ShrinkError) as caught:
        qprune.save(net, tmp_path / "net.pt", torch.randn(2, 3))
    assert words in str(caught.value)
    assert "state_dict" in str(caught.value) or "nn.Sequential" in str(caught.value)
    assert not (tmp_path / "net.pt").exists()


def test_the_list_has_nothing_that_reaches_outside() -> None:
    for name in ("load", "save", "from_file", "set_", "record_stream", "resize_", "copy_", "rand", "native_dropout"):
        overloads = getattr(torch.ops.aten, name).overloads() if hasattr(torch.ops.aten, name) else ["default"]
        assert not any(operation(f"aten.{name}.{overload}") for overload in overloads)
    for name in ("aten.add.out", "aten.relu_.default", "aten.__class__.default", "operator.setitem", "torch.load", ""):
        assert operation(name) is None
    assert all(issubclass(kind, nn.Module) and kind is not nn.Module for kind in TYPES.values())


def _plain_graph() -> tuple[dict[str, Any], dict[str, Tensor]]:
    net = nn.Sequential(
        OrderedDict(one=nn.Conv2d(3, 4, 3), two=PrunedQuantConv2d(4, 5, 1), act=nn.ReLU(), flat=nn.Flatten())
    )
    return graph_of(net, torch.zeros(1, 3, 5, 7)), net.state_dict()


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)
CALL = {"node": 0}
HOSTILE: dict[str, tuple[list[Any], Any]] = {
    "function of another module": (["nodes", 1], ["call_function", "os.system", ["true"], {}]),
    "function by its qualified name": (["nodes", 1], ["call_function", "builtins.eval", [CALL], {}]),
    "function of numbers alone": (["nodes", 1], ["call_function", "operator.pow", [10**9, 10**9], {}]),
    "tensor of numbers alone": (["nodes", 1], ["call_function", "aten.full.default", [[10**9], 1], {}]),
    "operation that overwrites": (["nodes", 1], ["call_function", "aten.relu_.default", [CALL], {}]),
    "operation into a tensor": (["nodes", 1], ["call_function", "aten.add.out", [CALL, CALL], {"out": CALL}]),
    "operation of another library": (["nodes", 1], ["call_function", "prims.sin.default", [CALL], {}]),
    "operation without an overload": (["nodes", 1], ["call_function", "aten.relu", [CALL], {}]),
    "overload with a dunder": (["nodes", 1], ["call_function", "aten.relu.__class__", [CALL], {}]),
    "getattr": (["nodes", 1], ["call_function", "getattr", [CALL, "shape"], {}]),
    "method": (["nodes", 1], ["call_method", "relu", [CALL], {}]),
    "dunder method": (["nodes", 1], ["call_method", "__reduce__", [CALL], {}]),
    "method that calls back": (["nodes", 1], ["call_method", "apply_", [CALL], {}]),
    "method of text": (["nodes", 1], ["call_method", "split", ["a b"], {}]),
    "method with code in its name": (["nodes", 1], ["call_method", "relu(); import os; x", [CALL], {}]),
    "module above": (["nodes", 1], ["call_module", "..one", [CALL], {}]),
    "container as a layer": (["nodes", 1], ["call_module", "", [CALL], {}]),
    "module that is not there": (["nodes", 1], ["call_module", "three", [CALL], {}]),
    "compressor as a layer": (["nodes", 1], ["call_module", "two.input_mask", [CALL], {}]),
    "dunder tensor": (["nodes", 1], ["get_attr", "one.__class__", [], {}]),
    "attribute that is no tensor": (["nodes", 1], ["get_attr", "one.forward", [], {}]),
    "tensor with code in its path": (["nodes", 1], ["get_attr", 'one"), print("x', [], {}]),
    "other operation": (["nodes", 1], ["root", "one", [], {}]),
    "argument with code in its name": (["nodes", 1], ["call_module", "one", [], {"a=1, b": CALL}]),
    "keyword as a name": (["nodes", 1], ["call_module", "one", [], {"lambda": CALL}]),
    "input with code in its name": (["nodes", 0], ["placeholder", "x=print(1)", [], {}]),
    "input called torch": (["nodes", 0], ["placeholder", "torch", [], {}]),
    "input twice": (["nodes", 1], ["placeholder", "input", [], {}]),
    "call of itself": (["nodes", 1, 2], [{"node": 1}]),
    "call of a later one": (["nodes", 1, 2], [{"node": 3}]),
    "call of a negative one": (["nodes", 1, 2], [{"node": -1}]),
    "call of no number": (["nodes", 1, 2], [{"node": True}]),
    "endless argument": (["nodes", 1, 2], ENDLESS),
    "unknown marker": (["nodes", 1, 2], [{"device": "meta"}]),
    "unknown dtype": (["nodes", 1, 2], [{"dtype": "load"}]),
    "huge number": (["nodes", 1, 2], [CALL, 10**5000]),
    "tensor as an argument": (["nodes", 1, 2], [torch.zeros(1)]),
    "bytes": (["nodes", 1, 2], [b"x"]),
    "call of three parts": (["nodes", 1], ["call_module", "one", [CALL]]),
    "call that is text": (["nodes", 1], "call"),
    "no calls": (["nodes"], []),
    "no nodes": (["nodes"], None),
    "output in the middle": (["nodes", 1], ["output", "output", [CALL], {}]),
    "unknown layer": (["modules", "one", "type"], "Module.load"),
    "layer of a list": (["modules", "one", "type"], ["Conv2d"]),
    "unknown option": (["modules", "one", "options", "device"], "cuda"),
    "option of a wrong type": (["modules", "one", "options", "kernel_size"], {"a": 1}),
    "option that does not fit": (["modules", "one", "options", "groups"], 2),
    "huge layer": (["modules", "one", "options", "out_channels"], 2**30),
    "huge kernel": (["modules", "one", "options", "kernel_size"], (2**20, 2**20)),
    "huge mask": (["modules", "two", "slots", "input_mask", "channels"], 2**30),
    "huge quantizer": (["modules", "two", "slots", "weight_quant", "channels"], 2**30),
    "mask of text": (["modules", "two", "slots", "input_mask"], "keep"),
    "slot of another name": (["modules", "two", "slots", "forward"], {"bits": 4}),
    "slot of no side": (["modules", "two", "slots", "self_mask"], {"channels": 4}),
    "bits out of range": (["modules", "two", "slots", "weight_quant", "bits"], 64),
    "layer in the place of forward": (["modules", "forward"], {"type": "ReLU", "options": {}}),
    "layer in the place of its code": (["modules", "_graph"], {"type": "ReLU", "options": {}}),
    "layer with a dunder path": (["modules", "__class__"], {"type": "ReLU", "options": {}}),
    "layer with an empty path": (["modules", ""], {"type": "ReLU", "options": {}}),
    "layer with a path upwards": (["modules", "../one"], {"type": "ReLU", "options": {}}),
    "layer without a parent": (["modules", "no.where"], {"type": "ReLU", "options": {}}),
    "layer within a layer": (["modules", "one.more"], {"type": "ReLU", "options": {}}),
    "layer within a mask": (["modules", "two.input_mask.more"], {"type": "ReLU", "options": {}}),
    "layer that is itself": (["modules", "more"], {"type": "same", "as": "more"}),
    "layer described by text": (["modules", "more"], "ReLU"),
    "joint of lists": (["modules", "act"], {"type": "AlignedReLU", "options": {}, "arguments": [[[0], [0.0]]],
                                                   "result": None}),
    "joint without constants": (["modules", "act"], {"type": "AlignedReLU", "options": {}, "arguments": [],
                                                     "result": [torch.zeros(2, dtype=torch.int32)]}),
    "joint below -1": (["modules", "act"], {"type": "Align", "options": {
        "index": torch.full((2,), -2, dtype=torch.int32), "fill": torch.zeros(2)}}),
    "parameter that is not there": (["tensors", "parameters"], ["three"]),
    "parameter in the place of forward": (["tensors", "parameters"], ["forward"]),
    "buffer of a number": (["tensors", "buffers"], [3]),
    "constant that is no tensor": (["tensors", "constants"], {"constant_0": 3}),
    "constant with a dunder name": (["tensors", "constants"], {"__class__": torch.zeros(1)}),
    "same as nothing": (["tensors", "same"], {"one.weight": "three.weight"}),
    "same of another shape": (["tensors", "same"], {"one.weight": "two.weight"}),
    "frozen nothing": (["tensors", "frozen"], ["three"]),
    "frozen by a table": (["tensors", "frozen"], [{}]),
    "tensors as a list": (["tensors"], []),
}  # fmt: skip


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_graph_is_refused(fault: str) -> None:
    graph, state = _plain_graph()
    assert isinstance(net_from(graph, state), nn.Module)
    place, value = HOSTILE[fault]
    entry: Any = graph
    for key in place[:-1]:
        entry = entry[key]
    entry[place[-1]] = value
    with pytest.raises(CheckpointError, match=r"^net\.pt holds a graph that cannot be opened: "):
        net_from(graph, state, "net.pt")


@pytest.mark.parametrize("graph", [None, [], "graph", {}, {"modules": {}}, {"modules": {}, "nodes": [], "tensors": {}}])
def test_what_is_no_graph_is_refused(graph: Any) -> None:
    with pytest.raises(CheckpointError, match="The graph holds a graph that cannot be opened"):
        net_from(graph, {})


@pytest.mark.parametrize(
    "call", [["call_function", "torch.flatten", [CALL, 1], {}], ["call_method", "relu", [CALL], {}]]
)
def test_file_of_an_earlier_version_says_so(call: list[Any]) -> None:
    graph, state = _plain_graph()
    graph["nodes"][1] = call
    with pytest.raises(CheckpointError, match="earlier versions of qprune made it: save the network again with this"):
        net_from(graph, state)


def test_layers_and_state_must_agree() -> None:
    graph, state = _plain_graph()
    for wrong in (
        {key: value for key, value in state.items() if key != "one.bias"},
        state | {"three": torch.zeros(1)},
        state | {"one.bias": torch.zeros(9)},
        state | {"two.input_mask.keep": torch.ones(4)},
    ):
        with pytest.raises(CheckpointError, match="state"):
            net_from(graph, wrong)


def test_a_file_with_a_hostile_graph_is_refused_by_load(tmp_path: Any) -> None:
    qprune.save(nn.Sequential(nn.ReLU()), tmp_path / "net.pt", torch.zeros(1, 2))
    content = load(tmp_path / "net.pt")
    content["graph"]["nodes"][1] = ["call_function", "os.system", ["true"], {}]
    save(tmp_path / "bad.pt", content)
    with pytest.raises(CheckpointError, match=r'bad\.pt holds a graph .* "?.*os\.system'):
        qprune.load(tmp_path / "bad.pt")
    del content["graph"]
    save(tmp_path / "bad.pt", content)
    with pytest.raises(CheckpointError, match="neither a spec nor a graph"):
        qprune.load(tmp_path / "bad.pt")


def test_a_saved_network_has_no_data_to_be_scored_on(tmp_path: Any) -> None:
    qprune.save(nn.Sequential(nn.ReLU()), tmp_path / "net.pt", torch.zeros(1, 2))
    with pytest.raises(CheckpointError, match="network alone"):
        qprune.evaluate(tmp_path / "net.pt")

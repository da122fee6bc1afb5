"""Gathering and scattering of channels by fixed indices, and the layers around it."""

import copy
import pickle

import pytest
import torch
from torch import nn

from qprune.layers import ALIGNED, Align, Aligned, CompressedReLU
from qprune.zoo import Add, Concat

X = torch.randn(2, 3, 5, 7)


def aligned(layer, arguments=(), result=None):
    layer.__class__ = ALIGNED[type(layer)]
    layer.align(arguments, result)
    return layer


# Align


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("index", [(2, 0), (1,), (0, 0, 2, 1)])
def test_without_constants_it_gathers(index, memory_format):
    x = X.to(memory_format=memory_format)
    y = Align(index)(x)
    assert torch.equal(y, X[:, list(index)])
    assert y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (2, 3, 5, 7)])
def test_missing_channels_are_constants(shape, memory_format):
    x = torch.randn(shape)
    if len(shape) == 4:
        x = x.to(memory_format=memory_format)
    y = Align((-1, 1, -1, 0), (0.5, 9.0, 0.0, 9.0))(x)
    assert torch.equal(y[:, [1, 3]], x[:, [1, 0]])
    assert (y[:, 0] == 0.5).all()
    assert (y[:, 2] == 0).all()


def test_it_may_read_nothing_at_all():
    assert torch.equal(Align((-1, -1), (1.0, 0.0))(X), torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(2, 2, 5, 7))
    assert torch.equal(Align((-1, -1))(X), torch.zeros(2, 2, 5, 7))


def test_infinities_of_a_channel_that_is_not_picked_stay_out():
    x = X.clone()
    x[:, 0] = torch.inf
    assert Align((-1, 1))(x).isfinite().all()


def test_gradient_reaches_the_channels_that_are_picked():
    x = X.clone().requires_grad_()
    Align((2, -1, 2), (0.0, 1.0, 0.0))(x).sum().backward()
    assert x.grad[:, 2].eq(2).all()
    assert x.grad[:, :2].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_type_of_the_input_stays(dtype):
    assert Align((-1, 1), (0.5, 0.0))(X.to(dtype)).dtype == dtype
    assert Align((1,))(X.to(dtype)).dtype == dtype


def test_fill_of_a_channel_that_exists_does_not_count():
    assert Align((0, -1), (3.0, 4.0)).fill == (0.0, 4.0)


@pytest.mark.parametrize("arguments", [((0, -2),), ((0, 1), (1.0,))])
def test_wrong_indices_are_refused(arguments):
    with pytest.raises(ValueError, match="index must be -1 or more, and as long as fill; received"):
        Align(*arguments)


def test_it_has_no_state():
    align = Align((-1, 1))
    assert not align.state_dict()
    assert not list(align.parameters())
    assert repr(align) == "Align(2, constants=1)"


# Aligned layers


def test_arguments_are_aligned_before_and_the_result_after():
    layer = nn.Conv2d(2, 4, 3)
    plain = copy.deepcopy(layer)
    aligned(layer, [Align((2, 0))], Align((3, -1, 0), (0.0, 1.5, 0.0)))
    y = plain(X[:, [2, 0]])
    expected = torch.stack([y[:, 3], torch.full_like(y[:, 0], 1.5), y[:, 0]], 1)
    torch.testing.assert_close(layer(X), expected, rtol=0, atol=0)


@pytest.mark.parametrize("join", [Add(), Concat()])
def test_each_argument_of_a_sum_or_concatenation_has_its_own(join):
    a, b = X, torch.randn(2, 2, 5, 7)
    expected = join(a, b[:, [1, 0, 1]])
    assert torch.equal(aligned(join, [None, Align((1, 0, 1))])(a, b), expected)


def test_further_arguments_pass_through():
    layer, x = nn.ConvTranspose2d(2, 4, 3, stride=2), X[:, [2, 0]]
    expected = layer(x, [12, 16])
    aligned(layer, [Align((2, 0))])
    assert torch.equal(layer(X, [12, 16]), expected)
    assert torch.equal(layer(X, output_size=[12, 16]), expected)


def test_layer_that_works_in_place_leaves_a_gathered_input_alone():
    x = X.clone()
    aligned(nn.ReLU(inplace=True), [Align((0, 2))])(x)
    assert torch.equal(x, X)


def test_names_of_parameters_are_those_of_the_plain_layer():
    layer = nn.BatchNorm2d(2)
    names = list(layer.state_dict())
    assert list(aligned(layer, [Align((0, 2))], Align((-1, 0, 1))).state_dict()) == names


@pytest.mark.parametrize("through", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("make", [lambda: nn.Conv2d(2, 4, 3), lambda: CompressedReLU(), lambda: nn.GroupNorm(1, 2)])
def test_copy_and_pickle(make, through):
    layer = aligned(make(), [Align((0, 2))], Align((1, -1)))
    twin = through(layer)
    assert type(twin) is type(layer)
    assert torch.equal(twin(X), layer(X))


def test_every_class_is_found_by_its_name():
    from qprune.layers import aligned as module

    for plain, kind in ALIGNED.items():
        assert getattr(module, kind.__name__) is kind
        assert issubclass(kind, (Aligned, plain))


def test_repr_is_one_line():
    assert repr(aligned(nn.ReLU(), [Align((0, 2))])) == "AlignedReLU(aligned=[2, constants=0 | -])"
    layer = aligned(nn.Conv2d(2, 4, 3), [None], Align((1, -1)))
    assert repr(layer) == "AlignedConv2d(2, 4, kernel_size=(3, 3), stride=(1, 1), aligned=[- | 2, constants=1])"


def test_compiled_and_exported():
    layer = aligned(nn.Conv2d(2, 4, 3), [Align((2, 0))], Align((3, -1, 0), (0.0, 1.5, 0.0))).eval()
    expected = layer(X)
    assert torch.equal(torch.compile(layer, backend="aot_eager", fullgraph=True)(X), expected)
    assert torch.equal(torch.export.export(layer, (X,)).module()(X), expected)


def test_autocast():
    layer = aligned(nn.Conv2d(2, 4, 3), [Align((2, 0))], Align((3, -1, 0), (0.0, 1.5, 0.0)))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(X)
    assert y.dtype == torch.bfloat16
    assert (y[:, 1] == 1.5).all()


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(3), nn.Upsample(scale_factor=2), CompressedReLU()]
)
def test_argument_that_is_given_by_name_is_aligned(layer):
    gathered = aligned(layer.eval(), [Align((2, 0, 1))])
    assert torch.equal(gathered(input=X), gathered(X))


def test_indices_follow_a_state_that_is_assigned():
    def made():
        return aligned(nn.Conv2d(3, 4, 1), [Align((2, -1, 0), (0.0, 5.0, 0.0))], Align((1, 0, -1), (0.0, 0.0, 7.0)))

    ready = made()
    with torch.device("meta"):
        assigned, filled = made(), made()
    assigned.load_state_dict(ready.state_dict(), assign=True)
    filled.to_empty(device="cpu").load_state_dict(ready.state_dict())
    assert torch.equal(assigned(X), ready(X))
    assert torch.equal(filled(X), ready(X))

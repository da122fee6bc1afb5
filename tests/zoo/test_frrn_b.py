import pytest
import torch
from torch import nn

from qprune import zoo


def on_meta(name, **options):
    with torch.device("meta"):
        return zoo.create(name, **options).eval()


def test_chained_units_of_frrn_b_have_the_channels_of_the_unit_before():
    net = on_meta("frrn_b")
    entering = [unit.conv1.in_channels - 32 for unit in net.encoder2.units]
    assert entering == [96, 192, 192, 192]
    entering = [unit.conv1.in_channels - 32 for unit in on_meta("frrn_b", chained=False).encoder2.units]
    assert entering == [96, 96, 96, 96]


@pytest.mark.parametrize("chained", [True, False])
def test_units_of_frrn_b_read_the_unit_before_if_chained_and_else_what_enters_the_group(chained):
    group, read, made = zoo.create("frrn_b", width=0.1, chained=chained).encoder2, [], []
    group.resize.register_forward_hook(lambda _, __, out: made.append(out))
    for unit in group.units:
        unit.register_forward_hook(lambda _, streams, __: read.append(streams[0]))
        unit.register_forward_hook(lambda _, __, streams: made.append(streams[0]))
    group(torch.randn(2, 9, 8, 12), torch.randn(2, 32, 16, 24))
    expected = made[:-1] if chained else made[:1] * 4
    assert all(y is x for y, x in zip(read, expected, strict=True))


def test_the_residual_stream_of_frrn_b_is_the_sum_of_what_all_units_add():
    torch.manual_seed(0)
    net, added, merged = zoo.create("frrn_b", classes=3, width=0.1).eval(), [], []
    net.split.register_forward_hook(lambda _, __, out: added.append(out))
    net.concat.register_forward_hook(lambda _, streams, __: merged.append(streams))
    for path, module in net.named_modules():
        if path.endswith(".unpool"):
            module.register_forward_hook(lambda _, __, out: added.append(out))
    net(torch.randn(2, 3, 32, 64))
    ((y, z),) = merged
    assert len(added) == 1 + 21
    torch.testing.assert_close(z, torch.stack(added).sum(0))
    assert y.shape[1] == 4


def test_the_residual_stream_of_frrn_b_has_32_channels_at_every_width():
    for width in (1, 0.5, 0.01):
        net = on_meta("frrn_b", width=width)
        assert {m.out_channels for path, m in net.named_modules() if path.endswith("residual")} == {32}
        assert net.split.out_channels == 32


def test_every_size_of_frrn_b_is_scaled_by_pooling_and_interpolation_of_torch():
    net = on_meta("frrn_b")
    scales = [net.get_submodule(f"encoder{level}").units[0].pool.kernel_size for level in (1, 2, 3, 4, 5)]
    assert scales == [2, 4, 8, 16, 32]
    assert isinstance(net.encoder1.resize, nn.MaxPool2d)
    assert (net.decoder1.resize.mode, net.decoder1.resize.align_corners) == ("bilinear", True)
    assert net.decoder1.units[0].unpool.mode == "nearest"

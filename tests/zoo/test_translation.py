import pytest
import torch
from torch import nn

from qprune import zoo


def on_meta(name, **options):
    with torch.device("meta"):
        return zoo.create(name, **options).eval()


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def small(name, **options):
    discriminators = {
        "cyclegan": {"width_ba": 0.07, "width_discriminators": 0.07},
        "pix2pix": {"width_discriminator": 0.07},
    }
    return zoo.create(name, width=0.07, **discriminators[name] | options)


# generators


@pytest.mark.parametrize(
    ("name", "stride"), [("resnet_generator", 4), ("cyclegan", 4), ("unet_256", 256), ("pix2pix", 256)]
)
def test_images_keep_their_size_where_it_is_a_multiple_of_the_stride(name, stride):
    net = on_meta(name, in_channels=2, out_channels=5, width=0.25)
    assert net.stride == stride
    assert net(torch.zeros(3, 2, 2 * stride, 3 * stride, device="meta")).shape == (3, 5, 2 * stride, 3 * stride)


def test_a_smaller_multiple_than_the_stride_does_not_fit():
    assert on_meta("resnet_generator")(torch.zeros(2, 3, 34, 32, device="meta")).shape == (2, 3, 36, 32)
    with pytest.raises(RuntimeError):
        on_meta("unet_256", width=0.25)(torch.zeros(2, 3, 384, 256, device="meta"))


@pytest.mark.parametrize(("name", "size"), [("resnet_generator", (8, 12)), ("unet_256", (256, 256))])
def test_images_made_lie_between_minus_1_and_1(name, size):
    images = zoo.create(name, width=0.07)(10 * torch.randn(2, 3, *size))
    assert images.shape == (2, 3, *size)
    assert -1 <= images.min() < 0 < images.max() <= 1


def test_unet_256_puts_the_skip_before_what_comes_from_below():
    up = zoo.create("unet_256", width=0.07).eval().up1
    x, skip = torch.randn(2, 16, 3, 5), torch.randn(2, 4, 6, 10)
    assert torch.equal(up(x, skip), torch.cat([skip, torch.relu(up.norm(up.conv(x)))], 1))


def test_unet_256_trains_on_a_single_image():
    zoo.create("unet_256", width=0.07)(torch.randn(1, 3, 256, 256)).sum().backward()


# discriminator


def test_patchgan_judges_patches_of_70_pixels():
    net, image = zoo.create("patchgan", width=0.07), torch.randn(1, 3, 128, 160, requires_grad=True)
    # a normalization would tie every pixel to every patch
    net.layer2.norm = net.layer3.norm = net.layer4.norm = nn.Identity()
    logits = net(image)
    assert logits.shape == (1, 1, 14, 18)
    logits[0, 0, 6, 8].backward()
    rows, columns = (image.grad.abs().sum((0, 1, axis)) > 0 for axis in (3, 2))
    assert (int(rows.sum()), int(columns.sum())) == (70, 70)


def test_patchgan_needs_24_pixels():
    net = on_meta("patchgan")
    assert net(torch.zeros(2, 3, 24, 31, device="meta")).shape == (2, 1, 1, 1)
    with pytest.raises(RuntimeError):
        net(torch.zeros(2, 3, 23, 31, device="meta"))


# weights at the start


@pytest.mark.parametrize("name", ["resnet_generator", "unet_256", "patchgan", "cyclegan", "pix2pix"])
def test_weights_of_gans_start_small(name):
    options = {"norm": "batch"} if name == "patchgan" else {}
    for path, module in zoo.create(name, width=0.25, **options).named_modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if weight is not None:
            mean, deviations = float(isinstance(module, nn.BatchNorm2d)), 5 / weight.numel() ** 0.5
            assert abs(weight.mean().item() - mean) < 0.02 * deviations, path
            assert abs(weight.std().item() / 0.02 - 1) < deviations, path
        assert bias is None or not bias.any(), path


# what trains together


def test_cyclegan_is_two_generators_and_two_discriminators_of_images():
    net = on_meta("cyclegan")
    assert {name: parameters(part) for name, part in net.named_children()} == {
        "generator_ab": 7_837_699,
        "generator_ba": 7_837_699,
        "discriminator_a": 2_764_737,
        "discriminator_b": 2_764_737,
    }


def test_pix2pix_is_a_generator_and_a_discriminator_of_pairs():
    net = on_meta("pix2pix")
    assert {name: parameters(part) for name, part in net.named_children()} == {
        "generator": 54_414_083,
        "discriminator": 2_768_705,
    }


def test_width_is_that_of_the_generator_that_is_deployed():
    net = on_meta("cyclegan", width=0.5, blocks=9)
    assert [len(net.generator_ab.blocks), len(net.generator_ba.blocks)] == [9, 9]
    assert parameters(net.generator_ba) == 11_378_179
    assert parameters(on_meta("cyclegan", width=0.5).generator_ab) == 1_965_059
    assert parameters(net.discriminator_a) == 2_764_737
    net = on_meta("pix2pix", width=0.25)
    assert (parameters(net.generator), parameters(net.discriminator)) == (3_404_483, 2_768_705)


def test_the_other_parts_have_widths_of_their_own():
    net = on_meta("cyclegan", width_ba=0.25, width_discriminators=0.5)
    assert parameters(net.generator_ab) == 7_837_699
    assert parameters(net.generator_ba) == 494_083
    assert net.discriminator_a.layer1.conv.out_channels == net.discriminator_b.layer1.conv.out_channels == 32
    assert on_meta("pix2pix", width_discriminator=0.5).discriminator.layer1.conv.out_channels == 32


def test_channels_of_both_kinds_of_images_reach_every_part():
    net = on_meta("cyclegan", in_channels=2, out_channels=5, width=0.25)
    assert (net.generator_ba.stem.conv.in_channels, net.generator_ba.to_image.out_channels) == (5, 2)
    assert (net.discriminator_a.layer1.conv.in_channels, net.discriminator_b.layer1.conv.in_channels) == (2, 5)
    net = on_meta("pix2pix", in_channels=2, out_channels=5, width=0.25)
    assert net.discriminator.layer1.conv.in_channels == 7


def test_cyclegan_in_training_mode_goes_round_the_cycle_and_in_eval_mode_half_of_it():
    net, a = small("cyclegan", out_channels=4), torch.randn(2, 3, 8, 12)
    fake_b, rec_a = net.train()(a)
    assert torch.equal(fake_b, net.generator_ab(a))
    assert torch.equal(rec_a, net.generator_ba(fake_b))
    assert (fake_b.shape, rec_a.shape) == ((2, 4, 8, 12), a.shape)
    assert torch.equal(net.eval()(a), fake_b)


def test_one_forward_in_training_mode_reaches_both_generators_in_the_order_in_which_they_are_registered():
    net, reached = small("cyclegan"), []
    for path, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda *_, path=path: reached.append(path))
    net(torch.randn(2, 3, 8, 12))
    assert reached == [
        path for path, m in net.named_modules()
        if path.startswith("generator") and isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]  # fmt: skip


def test_pix2pix_is_its_generator_and_the_discriminator_reads_the_input_with_the_image():
    net, a = small("pix2pix", out_channels=4).eval(), torch.randn(2, 3, 256, 256)
    image = net(a)
    assert torch.equal(image, net.generator(a))
    assert net.discriminator(torch.cat((a, image), 1)).shape == (2, 1, 30, 30)

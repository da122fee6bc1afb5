import copy
import pickle
from collections import Counter
from fnmatch import fnmatchcase

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qprune import zoo
from qprune.flow import trace

CLASSIFIERS = ("densenet121", "mobilenetv2", "preactresnet18", "resnet20", "vgg7")
SEGMENTERS = ("unet", "frrn_b")
GENERATORS = ("resnet_generator", "unet_256")
NAMES = (*CLASSIFIERS, *SEGMENTERS, *GENERATORS, "patchgan")
CONVS = (nn.Conv2d, nn.ConvTranspose2d)

# where the published counts depend on it: the image, and the options of the published network
SIZES = {"unet": (256, 512), "frrn_b": (256, 512), "resnet_generator": (128, 128), "unet_256": (256, 256)}
PUBLISHED = {"frrn_b": {"chained": False}}


def on_meta(name, **options):
    with torch.device("meta"):
        return zoo.create(name, **options).eval()


def published(name, **options):
    return on_meta(name, **PUBLISHED.get(name, {}) | options)


def run_on_meta(net, size=(1, 3, 32, 32)):
    return net(torch.zeros(size, device="meta"))


def image_size(name):
    return (1, 3, *SIZES.get(name, (32, 32)))


def small_image(name, batch=2, channels=3):
    return torch.randn(batch, channels, *{"frrn_b": (32, 64), "unet_256": (256, 256)}.get(name, (32, 48)))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def paths(net, types, pattern="*"):
    return [path for path, module in net.named_modules() if isinstance(module, types) and fnmatchcase(path, pattern)]


@pytest.mark.parametrize(
    ("name", "width", "count"),
    [
        ("densenet121", 1, 7_048_548),
        ("densenet121", 0.5, 1_809_124),
        ("densenet121", 0.25, 475_812),
        ("mobilenetv2", 1, 2_369_380),
        ("mobilenetv2", 0.5, 653_316),
        ("mobilenetv2", 0.25, 193_852),
        ("preactresnet18", 1, 11_222_244),
        ("preactresnet18", 0.5, 2_821_796),
        ("preactresnet18", 0.25, 713_604),
        ("resnet20", 1, 269_722),
        ("resnet56", 1, 853_018),
        ("resnet110", 1, 1_727_962),
        ("vgg7", 1, 12_979_082),
        ("unet", 1, 31_038_803),
        ("unet", 0.5, 7_763_635),
        ("unet", 0.25, 1_942_883),
        ("frrn_b", 1, 23_567_971),
        ("frrn_b", 0.5, 6_267_979),
        ("frrn_b", 0.25, 1_755_247),
        ("resnet_generator", 1, 7_837_699),
        ("resnet_generator", 0.5, 1_965_059),
        ("resnet_generator", 0.25, 494_083),
        ("unet_256", 1, 54_414_083),
        ("unet_256", 0.5, 13_608_323),
        ("unet_256", 0.25, 3_404_483),
        ("patchgan", 1, 2_764_737),
    ],
)
def test_parameters_are_those_of_the_published_network(name, width, count):
    assert parameters(published(name, width=width)) == count


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet_generator", {"blocks": 9}, 11_378_179),
        ("patchgan", {"in_channels": 6, "norm": "batch"}, 2_768_705),
        ("resnet20", {"shortcut": "B"}, 272_474),
        ("resnet56", {"shortcut": "B"}, 855_770),
        ("resnet110", {"shortcut": "B"}, 1_730_714),
    ],
)
def test_parameters_of_the_published_variants(name, options, count):
    assert parameters(on_meta(name, **options)) == count


@pytest.mark.parametrize(
    ("name", "children"),
    [
        (
            "densenet121",
            {
                "stem": 1_728,
                "block1": 335_040,
                "transition1": 33_280,
                "block2": 919_680,
                "transition2": 132_096,
                "block3": 2_837_760,
                "transition3": 526_336,
                "block4": 2_158_080,
                "norm": 2_048,
                "linear": 102_500,
            },
        ),
        (
            "mobilenetv2",
            {
                "stem": 192,
                "stage1": 2_064,
                "stage2": 14_496,
                "stage3": 40_848,
                "stage4": 186_816,
                "stage5": 306_528,
                "stage6": 800_736,
                "stage7": 476_160,
                "head": 413_440,
                "classifier": 128_100,
            },
        ),
        (
            "preactresnet18",
            {
                "stem": 1_920 - 128,
                "norm": 128,
                "stage1": 148_224,
                "stage2": 525_824,
                "stage3": 2_100_224,
                "stage4": 8_394_752,
                "linear": 51_300,
            },
        ),
        (
            "unet",
            {
                "stem": 38_848,
                "down1": 221_696,
                "down2": 885_760,
                "down3": 3_540_992,
                "down4": 14_159_872,
                "up4": 9_177_600,
                "up3": 2_295_040,
                "up2": 574_080,
                "up1": 143_680,
                "classifier": 1_235,
            },
        ),
        (
            "frrn_b",
            {
                "stem": 3_744,
                "before": 124_992,
                "after": 124_992,
                "split": 1_536,
                "encoder1": 3 * 155_552,
                "encoder2": 4 * 559_904,
                "encoder3": 2 * 2_115_104,
                "encoder4": 2 * 2_778_656,
                "encoder5": 2 * 2_778_656,
                "decoder4": 2 * 1_057_568,
                "decoder3": 2 * 725_792,
                "decoder2": 2 * 725_792,
                "decoder1": 2 * 119_264,
                "merge": 3_840,
                "classifier": 931,
            },
        ),
        (
            "resnet_generator",
            {
                "stem": 9_472,
                "down1": 73_856,
                "down2": 295_168,
                "blocks": 6 * 1_180_160,
                "up2": 295_040,
                "up1": 73_792,
                "to_image": 9_411,
            },
        ),
        (
            "patchgan",
            {"layer1": 3_136, "layer2": 131_200, "layer3": 524_544, "layer4": 2_097_664, "to_logit": 8_193},
        ),
    ],
)
def test_every_child_has_its_share_of_the_parameters_in_the_published_order(name, children):
    found = {child: parameters(module) for child, module in published(name).named_children()}
    assert list({child: count for child, count in found.items() if count}.items()) == list(children.items())


@pytest.mark.parametrize(
    ("name", "buffers", "weights"),
    [
        ("densenet121", 83_640, 6_964_928),
        ("mobilenetv2", 34_229, 2_318_016),
        ("preactresnet18", 6_929, 11_210_432),
        ("unet", 11_794, 31_026_048),
        ("frrn_b", 19_735, 23_547_552),
        ("resnet_generator", 0, 7_833_984),
        ("unet_256", 9_998, 54_404_096),
    ],
)
def test_buffers_and_weights_of_convolutions_and_linear_layers(name, buffers, weights):
    net = published(name)
    assert sum(b.numel() for b in net.buffers()) == buffers
    assert sum(m.weight.numel() for m in net.modules() if isinstance(m, (*CONVS, nn.Linear))) == weights


def test_buffers_of_patchgan():
    assert not list(on_meta("patchgan").buffers())
    assert sum(b.numel() for b in on_meta("patchgan", norm="batch").buffers()) == 1_795


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("densenet121", ("0.8884", "0.2226", "0.0559")),
        ("mobilenetv2", ("0.0649", "0.0170", "0.0046")),
        ("preactresnet18", ("0.5555", "0.1393", "0.0351")),
        ("unet", ("96.486", "24.218", "6.103")),
        ("frrn_b", ("103.425", "28.110", "8.155")),
        ("resnet_generator", ("8.764", "2.268", "0.6056")),
        ("unet_256", ("6.048", "1.550", "0.406")),
    ],
)
def test_multiply_accumulates_of_convolutions_and_linear_layers(name, giga):
    for width, expected in zip((1, 0.5, 0.25), giga, strict=True):
        net, digits = published(name, width=width), len(expected.partition(".")[2])
        with FlopCounterMode(display=False) as counter:
            run_on_meta(net, image_size(name))
        assert f"{counter.get_total_flops() / 2e9:.{digits}f}" == expected


@pytest.mark.parametrize(
    ("name", "mega"), [("resnet20", 40.551), ("resnet56", 125.486), ("resnet110", 252.888), ("vgg7", 615.918)]
)
def test_multiply_accumulates_of_the_networks_for_cifar10(name, mega):
    with FlopCounterMode(display=False) as counter:
        run_on_meta(published(name))
    assert round(counter.get_total_flops() / 2e6, 3) == mega


@pytest.mark.parametrize(
    ("name", "features", "with_norms"),
    [
        ("densenet121", 2_056_292, 6_910_052),
        ("mobilenetv2", 881_812, 1_763_524),
        ("preactresnet18", 614_500, 1_228_900),
        ("unet", 82_182_144, 146_145_280),
        ("frrn_b", 152_051_712, 283_975_680),
        ("resnet_generator", 6_602_752, 6_602_752),
        ("unet_256", 4_215_296, 8_233_472),
    ],
)
def test_output_features(name, features, with_norms):
    net, sizes = published(name), Counter()
    for module in net.modules():
        if isinstance(module, (*CONVS, nn.Linear, nn.BatchNorm2d)):
            module.register_forward_hook(lambda m, _, out: sizes.update({type(m): out.numel()}))
    run_on_meta(net, image_size(name))
    assert sizes.total() - sizes[nn.BatchNorm2d] == features
    assert sizes.total() == with_norms


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("densenet121", {nn.Conv2d: 120, nn.ReLU: 117, nn.Linear: 1, zoo.Concat: 58}),
        ("mobilenetv2", {nn.Conv2d: 54, nn.ReLU6: 36, nn.Linear: 0, zoo.Add: 10}),
        ("preactresnet18", {nn.Conv2d: 20, nn.ReLU: 17, nn.Linear: 1, zoo.Add: 8}),
        ("unet", {nn.Conv2d: 19, nn.ConvTranspose2d: 4, nn.ReLU: 18, zoo.Concat: 4}),
        ("frrn_b", {nn.Conv2d: 79, nn.ReLU: 49, zoo.Add: 27, zoo.Concat: 22}),
        ("resnet_generator", {nn.Conv2d: 16, nn.ConvTranspose2d: 2, nn.InstanceNorm2d: 17, zoo.Add: 6}),
        ("unet_256", {nn.Conv2d: 8, nn.ConvTranspose2d: 8, nn.BatchNorm2d: 14, zoo.Concat: 7}),
    ],
)
def test_as_many_layers_of_each_type_as_the_published_sites(name, counts):
    net = on_meta(name)
    assert {type_: len(paths(net, type_)) for type_ in counts} == counts


def test_a_pattern_selects_what_densenet121_has_in_its_transitions():
    net = on_meta("densenet121")
    assert paths(net, nn.BatchNorm2d, "*transition*") == ["transition1.norm", "transition2.norm", "transition3.norm"]
    assert paths(net, nn.AvgPool2d, "*transition*") == ["transition1.pool", "transition2.pool", "transition3.pool"]
    assert paths(net, nn.ReLU, "*transition*") == []


def test_a_pattern_selects_the_17_projection_norms_of_mobilenetv2():
    assert len(paths(on_meta("mobilenetv2"), nn.BatchNorm2d, "*.post_residual.*")) == 17


def test_the_last_convolution_of_mobilenetv2_is_its_classifier():
    assert paths(on_meta("mobilenetv2"), nn.Conv2d)[-1] == "classifier"


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_is_called_exactly_once(name):
    net, calls = on_meta(name), Counter()
    for path, module in net.named_modules():
        module.register_forward_hook(lambda *_, path=path: calls.update([path]))
    net(small_image(name).to("meta"))
    lists = {path for path, module in net.named_modules() if isinstance(module, nn.ModuleList)}
    assert calls == Counter(path for path, _ in net.named_modules() if path not in lists)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CLASSIFIERS])
def test_the_traced_picture_has_every_layer_once_and_nothing_between_them(name):
    net = on_meta(name)
    layers = [path for path, module in net.named_modules() if not list(module.children())]
    assert sorted(str(call.path) for call in trace(net, small_image(name)).calls) == sorted(layers)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "frrn_b"])
def test_layers_are_registered_in_the_order_in_which_data_reaches_them(name):
    net, reached = on_meta(name), []
    for path, module in net.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, path=path: reached.append(path))
    net(small_image(name).to("meta"))
    assert reached == [path for path, module in net.named_modules() if not list(module.children())]


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("size", [(2, 3, 32, 32), (3, 3, 40, 24)])
def test_the_output_has_one_logit_per_class(name, size):
    assert run_on_meta(on_meta(name, classes=7), size).shape == (size[0], 7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [0.3, 0.07, 0.001])
def test_any_width_makes_a_network_that_trains(name, width):
    net = zoo.create(name, in_channels=2, width=width)
    net(small_image(name, channels=2)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_width_rounds_channels_down():
    net = on_meta("mobilenetv2", width=0.3)
    assert (net.stem.conv.out_channels, net.stage7[0].post_residual.conv.out_channels) == (9, 96)
    assert net.head.conv.out_channels == 384


@pytest.mark.parametrize("name", NAMES)
def test_traced_and_exported_networks_equal_the_module(name):
    net, x = zoo.create(name, width=0.07).eval(), small_image(name)
    expected = net(x)
    assert torch.equal(torch.fx.symbolic_trace(net)(x), expected)
    assert torch.equal(torch.export.export(net, (x,)).module()(x), expected)


@pytest.mark.parametrize("name", NAMES)
def test_pickle_and_deepcopy_keep_the_outputs(name):
    net, x = zoo.create(name, width=0.07).eval(), small_image(name)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))
    assert torch.equal(copy.deepcopy(net)(x), net(x))


@pytest.mark.parametrize(("name", "stride"), [("unet", 16), ("frrn_b", 32)])
def test_every_pixel_gets_one_logit_per_class(name, stride):
    net = on_meta(name, classes=7, in_channels=4, width=0.25)
    assert net.stride == stride
    assert net(torch.zeros(2, 4, 3 * stride, 5 * stride, device="meta")).shape == (2, 7, 3 * stride, 5 * stride)


@pytest.mark.parametrize("name", ["unet", "frrn_b"])
def test_scenes_of_a_smaller_multiple_than_the_stride_do_not_fit(name):
    net = on_meta(name, width=0.25)
    with pytest.raises(RuntimeError):
        net(torch.zeros(2, 3, 3 * net.stride // 2, net.stride, device="meta"))


@pytest.mark.parametrize(
    ("name", "stride"), [("resnet_generator", 4), ("cyclegan", 4), ("unet_256", 256), ("pix2pix", 256)]
)
def test_images_keep_their_size_where_it_is_a_multiple_of_the_stride(name, stride):
    net = on_meta(name, in_channels=2, out_channels=5, width=0.25)
    assert net.stride == stride
    assert net(torch.zeros(3, 2, 2 * stride, 3 * stride, device="meta")).shape == (3, 5, 2 * stride, 3 * stride)


@pytest.mark.parametrize(("name", "size"), [("resnet_generator", (8, 12)), ("unet_256", (256, 256))])
def test_images_made_lie_between_minus_1_and_1(name, size):
    images = zoo.create(name, width=0.07)(10 * torch.randn(2, 3, *size))
    assert images.shape == (2, 3, *size)
    assert -1 <= images.min() < 0 < images.max() <= 1


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


def test_a_smaller_multiple_than_the_stride_does_not_fit():
    assert on_meta("resnet_generator")(torch.zeros(2, 3, 34, 32, device="meta")).shape == (2, 3, 36, 32)
    with pytest.raises(RuntimeError):
        on_meta("unet_256", width=0.25)(torch.zeros(2, 3, 384, 256, device="meta"))


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

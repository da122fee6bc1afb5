import pytest
import torch

from qprune import zoo


def test_names_are_sorted():
    assert zoo.names() == sorted(zoo.names())
    assert {"densenet121", "mobilenetv2", "preactresnet18", "resnet20", "vgg7"} <= set(zoo.names())


def test_equal_seeds_make_equal_networks():
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(zoo.create("preactresnet18", width=0.1).state_dict())
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])


def test_an_unknown_network_is_answered_with_the_nearest():
    with pytest.raises(
        ValueError, match="unknown network 'MobileNet_v2'; nearest: 'mobilenetv2'; the zoo has 'densenet121', "
    ):
        zoo.create("MobileNet_v2")


def test_a_network_like_no_other_is_answered_with_the_list():
    with pytest.raises(
        ValueError, match="unknown network 'xyz'; the zoo has 'densenet121', 'mobilenetv2', 'preactresnet18'"
    ):
        zoo.create("xyz")


def test_an_unknown_option_is_answered_with_the_nearest():
    sentence = "unknown option 'clases' of mobilenetv2; nearest: 'classes'; it has 'classes', 'in_channels', 'width'"
    with pytest.raises(ValueError, match=sentence):
        zoo.create("mobilenetv2", clases=10)


def test_options_of_a_network_are_its_own():
    assert zoo.options_of("frrn_b") == ["classes", "in_channels", "width", "chained"]
    assert zoo.options_of("resnet_generator") == ["in_channels", "out_channels", "blocks", "width"]
    with pytest.raises(ValueError, match="unknown network 'unet256'; nearest: 'unet_256'; the zoo has"):
        zoo.options_of("unet256")


def test_every_network_takes_in_channels_and_a_width():
    assert all({"in_channels", "width"} <= set(zoo.options_of(name)) for name in zoo.names())


@pytest.mark.parametrize("width", [0, -0.5, 1.5, True, "0.5", float("nan")])
def test_a_width_outside_0_to_1_is_refused(width):
    with pytest.raises(ValueError, match=r"width must be in \(0, 1\]; received"):
        zoo.create("densenet121", width=width)


@pytest.mark.parametrize("option", ["width", "width_ba", "width_discriminators"])
def test_every_width_of_a_network_is_checked(option):
    with pytest.raises(ValueError, match=rf"^{option} must be in \(0, 1\]; received 2$"):
        zoo.create("cyclegan", **{option: 2})


@pytest.mark.parametrize(
    ("name", "option"), [("densenet121", "classes"), ("densenet121", "in_channels"), ("unet_256", "out_channels")]
)
@pytest.mark.parametrize("count", [0, 2.5, True, "3"])
def test_a_count_below_one_is_refused(name, option, count):
    with pytest.raises(ValueError, match=f"{option} must be a whole number of at least 1; received {count!r}"):
        zoo.create(name, **{option: count})


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("resnet_generator", {"blocks": 7}, "blocks must be 6 or 9; received 7"),
        ("cyclegan", {"blocks": 6.0}, "blocks must be 6 or 9; received 6.0"),
        ("patchgan", {"norm": "bach"}, "norm must be 'instance' or 'batch'; received 'bach'"),
        ("frrn_b", {"chained": 0}, "chained must be True or False; received 0"),
        (
            "unet_256",
            {"classes": 3},
            "unknown option 'classes' of unet_256; it has 'in_channels', 'out_channels', 'width'",
        ),
    ],
)
def test_an_option_that_is_not_among_its_choices_is_refused(name, options, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        zoo.create(name, **options)


@pytest.mark.parametrize("name", [name for name in zoo.names() if "classes" in zoo.options_of(name)])
def test_num_classes_as_torchvision_says_it_is_classes(name, caplog):
    caplog.set_level("INFO", "qprune.zoo")
    torch.manual_seed(0)
    net = zoo.create(name, num_classes=7, width=0.1)
    torch.manual_seed(0)
    expected = zoo.create(name, classes=7, width=0.1)
    assert {key: value.shape for key, value in net.state_dict().items()} == {
        key: value.shape for key, value in expected.state_dict().items()
    }
    assert caplog.messages == [f"num_classes of {name} is taken as classes, its name here"]


def test_classes_under_both_names_are_refused():
    with pytest.raises(
        ValueError, match=r"^num_classes is another name for classes: give one of them; received 5 and 7$"
    ):
        zoo.create("vgg7", num_classes=5, classes=7)


@pytest.mark.parametrize("count", [0, True, "3"])
def test_num_classes_is_checked_as_classes_are(count):
    with pytest.raises(ValueError, match=f"^classes must be a whole number of at least 1; received {count!r}$"):
        zoo.create("vgg7", num_classes=count)


def test_a_network_that_makes_images_has_no_num_classes():
    with pytest.raises(ValueError, match=r"^unknown option 'num_classes' of unet_256; it has 'in_channels', "):
        zoo.create("unet_256", num_classes=3)

import pytest
import torch

from qprune import zoo


def test_names_are_sorted():
    assert zoo.names() == sorted(zoo.names())
    assert {"densenet121", "mobilenetv2", "preactresnet18"} <= set(zoo.names())


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


@pytest.mark.parametrize("width", [0, -0.5, 1.5, True, "0.5", float("nan")])
def test_a_width_outside_0_to_1_is_refused(width):
    with pytest.raises(ValueError, match=r"width must be in \(0, 1\]; received"):
        zoo.create("densenet121", width=width)


@pytest.mark.parametrize("option", ["classes", "in_channels"])
@pytest.mark.parametrize("count", [0, 2.5, True, "3"])
def test_a_count_below_one_is_refused(option, count):
    with pytest.raises(ValueError, match=f"{option} must be a whole number of at least 1; received {count!r}"):
        zoo.create("densenet121", **{option: count})

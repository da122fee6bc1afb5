"""Networks of other libraries by name; torchvision's own constructors are the oracle."""

import sys

import pytest
import torch
import torchvision
from torch import nn

from qprune import zoo
from qprune.zoo.libraries import LIBRARIES
from qprune.zoo.torchvision_library import OutOf


def test_a_network_of_torchvision_is_torchvisions():
    net = zoo.create("torchvision/mobilenet_v3_small", classes=7)
    theirs = torchvision.models.mobilenet_v3_small(num_classes=7)
    assert type(net) is type(theirs)
    assert {key: value.shape for key, value in net.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


def test_equal_seeds_make_equal_weights():
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(zoo.create("torchvision/squeezenet1_1", classes=5).state_dict())
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])


def test_options_are_those_of_its_constructor():
    net = zoo.create("torchvision/mobilenet_v2", num_classes=5, width_mult=0.5)
    assert net.last_channel == 1280
    assert net.features[0][0].out_channels == 16


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_heads_that_training_alone_uses_are_left_out(name):
    net = zoo.create(f"torchvision/{name}", classes=5)
    assert not net.aux_logits
    assert isinstance(net.fc, nn.Linear)


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "fcn_resnet50"])
def test_a_network_for_scenes_gives_one_tensor(name):
    net = zoo.create(f"torchvision/{name}", classes=5).eval()
    assert isinstance(net, OutOf)
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 32, 64)).shape == (2, 5, 32, 64)


def test_all_that_are_listed_can_be_made():
    names = [name for name in LIBRARIES["torchvision"].names() if not name.startswith("regnet")]
    with torch.device("meta"):  # on which regnets cannot be made
        made = [zoo.create(f"torchvision/{name}", classes=5) for name in names]
    assert len(made) > 60
    assert zoo.create("torchvision/regnet_y_400mf", classes=5).fc.out_features == 5


def test_names_have_their_library_before_them():
    assert {"torchvision/resnet18", "torchvision/fcn_resnet50"} <= set(zoo.library_names())
    assert not set(zoo.library_names()) & set(zoo.names())


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (
            "torchvison/resnet18",
            {},
            "unknown library 'torchvison'; nearest: 'torchvision'; networks are those of torchvision/ and timm/",
        ),
        (
            "torchvision/resnet19",
            {},
            "unknown network 'torchvision/resnet19'; nearest: 'torchvision/resnet18'; `qprune list --networks` lists "
            "them",
        ),
        (
            "torchvision/resnet18",
            {"in_channels": 1},
            "torchvision/resnet18 reads images of 3 channels, and these have 1; networks of the zoo and of timm/ take "
            "any number",
        ),
        (
            "torchvision/resnet18",
            {"depth": 3},
            "torchvision/resnet18 cannot be made with depth = 3: ResNet.__init__() got an unexpected keyword argument "
            "'depth'",
        ),
        ("torchvision/resnet18", {"classes": 0}, "classes must be a whole number of at least 1; received 0"),
    ],
)
def test_what_cannot_be_made_is_a_sentence(name, options, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the sentence is compared below
        zoo.create(name, **options)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("torchvision/resnet18", "weights"),
        ("torchvision/resnet18", "pretrained"),
        ("torchvision/fcn_resnet50", "weights_backbone"),
        ("timm/efficientnet_lite0", "pretrained"),
        ("timm/efficientnet_lite0", "checkpoint_path"),
    ],
)
def test_nothing_is_fetched_or_opened_because_a_spec_names_weights(name, option, monkeypatch):
    def fetched(*_, **__):
        raise AssertionError("fetched")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetched)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fetched)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the sentence is compared below
        zoo.create(name, **{option: "DEFAULT"})
    assert str(caught.value) == (
        f"{name} is made with fresh weights, and {option} names others: a spec says which in [model], "
        'weights = "DEFAULT", a name or a file (of a backbone, weights_backbone); in Python load them into the '
        "network, and hand it to fit as model="
    )


def test_without_timm_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r'^networks of timm/ need .* "timm": pip install "qprune\[timm\]"'):
        zoo.create("timm/efficientnet_lite0")


def test_a_network_of_timm_is_timms():
    timm = pytest.importorskip("timm")
    net = zoo.create("timm/efficientnet_lite0", classes=7, in_channels=1)
    theirs = timm.create_model("efficientnet_lite0", num_classes=7, in_chans=1)
    assert type(net) is type(theirs)
    assert net.conv_stem.in_channels == 1
    assert "timm/efficientnet_lite0" in zoo.library_names()

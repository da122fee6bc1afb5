"""The published rules of the segmentation nets and of the generators, and the numbers that they come to."""

import pytest
import torch

from qprune import zoo
from qprune.assemble import swap
from qprune.flow import trace
from qprune.layers import sites
from qprune.network_plan import make_plan
from qprune.schedules import Layerwise, QuantizeFrom, Stepwise
from qprune.spec import PruneRule, QuantizeRule, Selector


def at(side, *types, paths=(), skip=(), exclude=()):
    return Selector(types=types, paths=paths, at=side, skip=skip, exclude=exclude)


def in_generator(side, path, *, skip=(), exclude=()):
    return at(side, "Conv2d", "ConvTranspose2d", paths=(f"{path}.*",), skip=skip, exclude=exclude)


NETWORKS = {
    "unet": ({}, (32, 48)),
    "frrn_b": ({"chained": False}, (64, 96)),
    "cyclegan": ({}, (8, 12)),
    "pix2pix": ({}, (256, 512)),
}
ACTIVATIONS = {
    "unet": [at("output", "ReLU", "ConvTranspose2d")],
    "frrn_b": [
        at("output", "ReLU"),
        at("output", "BatchNorm2d", paths=("before.*.norm2", "after.*.norm2")),
        at("output", "Conv2d", paths=("merge", "*.residual")),
    ],
    "cyclegan": [in_generator("input", "generator_ab", skip=(0,))],
    "pix2pix": [in_generator("input", "generator", skip=(0,))],
}
WEIGHTS = {
    "unet": [at("weight", "Conv2d", skip=(-1,)), at("weight", "ConvTranspose2d")],
    "frrn_b": [at("weight", "Conv2d", skip=(-1,), exclude=("split",))],
    "cyclegan": [in_generator("weight", "generator_ab", skip=(-1,))],
    "pix2pix": [in_generator("weight", "generator", skip=(-1,), exclude=("generator.bottleneck.conv",))],
}
QUANTIZED_INPUTS = ACTIVATIONS | {"frrn_b": [at("input", "Conv2d", skip=(0,))]}
QUANTIZED_WEIGHTS = {
    "unet": [at("weight", "Conv2d", "ConvTranspose2d")],
    "frrn_b": [at("weight", "Conv2d")],
    "cyclegan": [in_generator("weight", "generator_ab")],
    "pix2pix": [in_generator("weight", "generator")],
}
SEGMENTATION = Layerwise(sparsity=0.75, start=10, interval=175, refresh=10)
REGISTERED = Layerwise(sparsity=0.75, start=10, interval=175, refresh=10, order="registration")
TRANSLATION = Layerwise(sparsity=0.75, start="0.1ep", interval="0.5ep", refresh="0.1ep")


@pytest.fixture(scope="module")
def networks():
    with torch.device("meta"):
        return {
            name: (zoo.create(name, width=0.25, **options), torch.zeros(2, 3, *size))
            for name, (options, size) in NETWORKS.items()
        }


def pruned(networks, name, selectors, schedule):
    net, x = networks[name]
    importance = "weight-l1" if selectors[0].at == "weight" else "activation-l1"
    return swap(net, x, [PruneRule(selectors, schedule, importance)])


def planned(networks, name, selectors, schedule, **options):
    net = pruned(networks, name, selectors, schedule)
    return make_plan(net, trace(net, networks[name][1]), **options)


def quantized(networks, name, selectors):
    net, x = networks[name]
    return [site.name for site in sites(swap(net, x, (), [QuantizeRule(selectors, 8, schedule=QuantizeFrom(100))]))]


@pytest.mark.parametrize(
    ("name", "selectors", "schedule", "epoch", "count", "end"),
    [
        ("unet", ACTIVATIONS, SEGMENTATION, None, 22, 3882),
        ("unet", WEIGHTS, SEGMENTATION, None, 22, 3882),
        ("frrn_b", ACTIVATIONS, REGISTERED, None, 77, 13_562),
        ("frrn_b", WEIGHTS, REGISTERED, None, 77, 13_562),
        ("cyclegan", ACTIVATIONS, TRANSLATION, 2975, 17, 25_611),
        ("cyclegan", WEIGHTS, TRANSLATION, 2975, 17, 25_611),
        ("pix2pix", ACTIVATIONS, TRANSLATION, 992, 15, 7_554),
        ("pix2pix", WEIGHTS, TRANSLATION, 992, 14, 7_057),
    ],
)
def test_layerwise_prunes_the_published_sites_and_ends_at_the_published_step(
    networks, name, selectors, schedule, epoch, count, end
):
    plan = planned(networks, name, selectors[name], schedule, steps_per_epoch=epoch)
    assert (sum(site.kind == "mask" for site in plan.sites), plan.pruned_by) == (count, end)


def test_stepwise_prunes_the_split_of_frrn_b_too(networks):
    selectors = [at("weight", "Conv2d", skip=(-1,))]
    plan = planned(networks, "frrn_b", selectors, Stepwise(sparsity=0.75, start=12_000, every=500))
    assert (len(plan.sites), plan.finished_by) == (78, 14_000)
    assert "split.weight" in [site.site for site in plan.sites]


def test_registration_order_of_frrn_b_is_the_published_one(networks):
    plan = planned(networks, "frrn_b", WEIGHTS["frrn_b"], REGISTERED)
    order = list(dict.fromkeys(site.site.split(".")[0] for site in plan.sites))
    assert order == [
        "stem", "before", "after", "encoder1", "encoder2", "encoder3", "encoder4", "encoder5",
        "decoder4", "decoder3", "decoder2", "decoder1", "merge",
    ]  # fmt: skip


def test_data_flow_order_of_frrn_b_prunes_the_last_units_last(networks):
    plan = planned(networks, "frrn_b", WEIGHTS["frrn_b"], SEGMENTATION)
    assert [site.site.split(".")[0] for site in plan.sites][-8:] == ["decoder1", "merge", *["after"] * 6]


@pytest.mark.parametrize(
    ("name", "inputs", "weights"), [("unet", 22, 23), ("frrn_b", 78, 79), ("cyclegan", 17, 18), ("pix2pix", 15, 16)]
)
def test_published_numbers_of_quantized_sites(networks, name, inputs, weights):
    assert len(quantized(networks, name, QUANTIZED_INPUTS[name])) == inputs
    assert len(quantized(networks, name, QUANTIZED_WEIGHTS[name])) == weights


@pytest.mark.parametrize(("name", "path"), [("cyclegan", "generator_ab"), ("pix2pix", "generator")])
@pytest.mark.parametrize("side", ["input", "weight"])
def test_the_layer_that_stays_at_8_bits_is_the_one_that_makes_the_image(networks, name, path, side):
    at_8_bits = Selector(paths=(f"{path}.to_image",), at=side)
    rest = in_generator(side, path, exclude=(f"{path}.to_image",))
    assert quantized(networks, name, [at_8_bits]) == [f"{path}.to_image.{side}"]
    assert quantized(networks, name, [rest, at_8_bits]) == quantized(networks, name, [in_generator(side, path)])


@pytest.mark.parametrize("name", NETWORKS)
def test_norms_follow_the_weights_before_them_where_a_shift_would_revive_them(networks, name):
    net = pruned(networks, name, WEIGHTS[name], SEGMENTATION)
    tied = [site.path for site in sites(net) if site.mask is not None and site.mask.importance == "tied"]
    assert len(tied) == {"unet": 18, "frrn_b": 55, "cyclegan": 0, "pix2pix": 14}[name]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rules", [ACTIVATIONS, WEIGHTS])
def test_a_network_under_its_published_rules_computes_what_it_did_to_the_bit(name, rules):
    options, size = NETWORKS[name]
    net, x = zoo.create(name, width=0.07, **options).eval(), torch.randn(2, 3, *size)
    swapped = pruned({name: (net, x)}, name, rules[name], SEGMENTATION)
    assert torch.equal(swapped(x), net(x))
    assert swapped.load_state_dict(net.state_dict(), strict=True)

"""The published experiments as shipped: their names, sites, end steps and recipes are those of the paper's code."""

import re
from functools import cache

import pytest
import torch
from attrs import evolve, frozen

import qprune
from qprune.spec import list_specs, read_spec
from qprune.training.planning import plan_spec


@frozen
class Family:
    """What one network comes to in the published code; pairs are (by activation, by weight)."""

    pruned: tuple[int, int]
    ends: tuple[int, int]  # step at which layerwise pruning is over
    interval: int
    stepwise: tuple[int, int, int]  # sites, first and last step
    quantized: tuple[int, int]
    starts: tuple[int, int]  # step from which activations and weights are quantized
    parameters: tuple[int, int, int]  # at full, half and quarter width
    untouched: tuple[str, ...]  # sites that no layerwise or joint experiment prunes
    generator: str = ""


FAMILIES = {
    "cifar100/densenet121": Family(
        pruned=(120, 120), ends=(6196, 6196), interval=49, stepwise=(120, 14_076, 14_860), quantized=(120, 121),
        starts=(20, 196), parameters=(7_048_548, 1_809_124, 475_812), untouched=("stem.output", "linear.weight"),
    ),
    "cifar100/mobilenetv2": Family(
        pruned=(53, 53), ends=(2846, 2846), interval=49, stepwise=(53, 2346, 3130), quantized=(53, 54),
        starts=(20, 196), parameters=(2_369_380, 653_316, 193_852), untouched=("classifier.weight",),
    ),
    "cifar100/preactresnet18": Family(
        pruned=(17, 20), ends=(1046, 1196), interval=49, stepwise=(20, 196, 980), quantized=(17, 21),
        starts=(20, 196), parameters=(11_222_244, 2_821_796, 713_604), untouched=("stem.output", "linear.weight"),
    ),
    "cityscapes/unet": Family(
        pruned=(22, 22), ends=(3882, 3882), interval=175, stepwise=(22, 12_000, 14_000), quantized=(22, 23),
        starts=(100, 800), parameters=(31_038_803, 7_763_635, 1_942_883), untouched=("classifier.weight",),
    ),
    "cityscapes/frrn_b": Family(
        pruned=(77, 77), ends=(13_562, 13_562), interval=175, stepwise=(78, 12_000, 14_000), quantized=(78, 79),
        starts=(100, 800), parameters=(23_567_971, 6_267_979, 1_755_247),
        untouched=("classifier.weight", "split.weight", "split.output"),
    ),
    "citysgan/resnet": Family(
        pruned=(17, 17), ends=(25_611, 25_611), interval=1488, stepwise=(17, 17_850, 23_802), quantized=(17, 18),
        starts=(298, 1488), parameters=(7_837_699, 1_965_059, 494_083),
        untouched=("generator_ab.stem.conv.input", "generator_ab.to_image.weight"), generator="generator_ab",
    ),
    "citysgan/unet": Family(
        pruned=(15, 14), ends=(7554, 7057), interval=496, stepwise=(14, 1, 1985), quantized=(15, 16),
        starts=(99, 496), parameters=(54_414_083, 13_608_323, 3_404_483), generator="generator",
        untouched=("generator.down1.conv.input", "generator.to_image.weight", "generator.bottleneck.conv.weight"),
    ),
}  # fmt: skip
AKA = {
    "baseline": "baseline",
    "baseline_half": "baseline_half",
    "baseline_quarter": "baseline_quarter",
    "a{}_layerwise": "a{}_mag_top_loc_st",
    "a{}_oneshot": "a{}_mag_top_loc_st_nly",
    "a{}_l0_layerwise": "a{}_mag_top_loc_bnl_st_bern",
    "a{}_l0_oneshot": "a{}_mag_top_loc_bnl_st_nly_bern",
    "w{}_layerwise": "w{}_mag_top_loc_st",
    "w{}_oneshot": "w{}_mag_top_loc_st_nly",
    "w{}_stepwise": "w{}_mag_top_loc_zg_st",
    "a{}_w8a8": "a{}_wa8_t_st",
    "a{}_w4a8": "a{}_w4a8_t_st",
    "a{}_w4a4": "a{}_wa4_t_st",
}
JOINT = {"w8a8": (8, 8), "w4a8": (4, 8), "w4a4": (4, 4)}
EXPERIMENTS = {own.format(share): aka.format(share) for share in (50, 75) for own, aka in AKA.items()}
LISTED = list_specs()
SPECS = {spec.name: spec for spec in LISTED if spec.published}
OF_EACH = pytest.mark.parametrize("family", FAMILIES)
BY_EACH = pytest.mark.parametrize("by", [0, 1], ids=["activation", "weight"])


@cache
def plan_and_masks(name):
    """What `qprune.plan` finds out about one run, after what it found out about those before it; not the networks."""
    spec = read_spec(SPECS[name].path)
    found = plan_spec(spec, keeps=plan_and_masks(spec.init)[1] if spec.init else None)
    return found.plan, found.keeps


def planned(name):
    return plan_and_masks(name)[0]


def masks(name):
    return [site for site in planned(name).sites if site.kind == "mask"]


def quantizers(name, side):
    """The quantizers at weights, or at the other sides."""
    quants = [site for site in planned(name).sites if site.kind == "quant"]
    return [site for site in quants if site.site.endswith(".weight") == (side == "weight")]


def names(sites):
    return {site.site for site in sites}


def layerwise(family, by):
    return f"{family}/{'aw'[by]}75_layerwise"


# names


def test_there_are_seven_families_of_23_experiments():
    assert len(EXPERIMENTS) == 23
    assert set(SPECS) == {f"{family}/{name}" for family in FAMILIES for name in EXPERIMENTS}


@pytest.mark.parametrize("name", SPECS)
def test_every_experiment_has_its_published_name_once(name):
    assert SPECS[name].aka == EXPERIMENTS[name.split("/")[-1]]
    assert [spec.name for spec in LISTED if SPECS[name].names[1] in spec.names] == [name]


@pytest.mark.parametrize("name", SPECS)
def test_every_experiment_starts_from_the_published_one(name):
    family, last = name.rsplit("/", 1)
    joint = last[-4:] in JOINT
    init = None if "baseline" in last else f"{family}/{last[:3]}_layerwise" if joint else f"{family}/baseline"
    assert read_spec(SPECS[name].path).init == init


@pytest.mark.parametrize("name", [name for name in SPECS if re.search(r"/[aw]50_", name)])
def test_experiments_at_50_percent_are_those_at_75_but_for_the_share(name):
    def said(spec):
        return str(read_spec(SPECS[spec].path).to_dict())

    at_75 = re.sub(r"\b([aw])50_", r"\g<1>75_", said(name)).replace("50 %", "75 %")
    assert at_75.replace("'sparsity': 0.5,", "'sparsity': 0.75,") == said(name.replace("50_", "75_"))


@OF_EACH
@pytest.mark.parametrize("when", ["layerwise", "oneshot"])
def test_l0_experiments_differ_from_those_of_l1_in_the_ranking_alone(family, when):
    l0, l1 = (read_spec(f"{family}/a75_{norm}{when}").to_dict() for norm in ("l0_", ""))
    assert (l0["prune"][0].pop("importance"), l1["prune"][0].pop("importance", None)) == ("activation-l0", None)
    assert {key for key in l1 if l0[key] != l1[key]} == {"name", "about", "aka"}


# networks


@OF_EACH
def test_baselines_have_the_published_numbers_of_parameters(family):
    def count(name):
        with torch.device("meta"):
            net = qprune.build(f"{family}/{name}").get_submodule(FAMILIES[family].generator)
        return sum(parameter.numel() for parameter in net.parameters())

    assert tuple(map(count, ("baseline", "baseline_half", "baseline_quarter"))) == FAMILIES[family].parameters


# chains


@pytest.mark.parametrize(
    "family",
    # long ones among the slow tests
    [
        pytest.param(name, marks=pytest.mark.slow) if name.endswith(("densenet121", "frrn_b")) else name
        for name in FAMILIES
    ],
)
def test_the_plan_of_a_chain_is_that_of_its_last_run_with_costs(family):
    plan = qprune.plan(f"{family}/a75_w4a4")
    assert evolve(plan, cost={}) == planned(f"{family}/a75_w4a4")
    before, after = (float(number.replace(",", "")) for number in plan.cost["parameters"].split(" -> "))
    assert 0 < after < before / 2


# pruning


@OF_EACH
@BY_EACH
def test_layerwise_prunes_the_published_sites_and_ends_at_the_published_step(family, by):
    plan, facts = planned(layerwise(family, by)), FAMILIES[family]
    assert (len(plan.sites), plan.pruned_by) == (facts.pruned[by], facts.ends[by])
    assert not set(facts.untouched) & names(plan.sites)
    assert {site.kept == site.channels - int(0.75 * site.channels) for site in plan.sites} == {True}


@OF_EACH
@BY_EACH
def test_one_shot_prunes_the_same_sites_at_the_step_where_layerwise_ends(family, by):
    sites, end = masks(layerwise(family, by).replace("layerwise", "oneshot")), FAMILIES[family].ends[by]
    assert names(sites) == names(masks(layerwise(family, by)))
    assert {site.timeline.freeze for site in sites} == {end}
    assert {site.timeline.measure for site in sites} == {(end - FAMILIES[family].interval, end)}


@OF_EACH
def test_stepwise_prunes_in_five_steps_at_the_published_ones(family):
    sites = masks(f"{family}/w75_stepwise")
    steps = {tuple(step for step, _ in site.timeline.refreshes) for site in sites}
    assert [(len(sites), times[0], times[-1], len(times)) for times in steps] == [(*FAMILIES[family].stepwise, 5)]


@BY_EACH
def test_frrn_b_is_pruned_in_the_order_in_which_its_layers_are_registered(by):
    order = [site.site.split(".")[0] for site in masks(layerwise("cityscapes/frrn_b", by))]
    assert list(dict.fromkeys(order))[:4] == ["stem", "before", "after", "encoder1"]
    assert order[-1] == "merge"


# joint training


@OF_EACH
@pytest.mark.parametrize("bits", JOINT)
def test_joint_experiments_keep_the_masks_of_layerwise(family, bits):
    sites = masks(f"{family}/a75_{bits}")
    assert all(site.inherited for site in sites)
    assert names(sites) == names(masks(layerwise(family, 0)))


@OF_EACH
@pytest.mark.parametrize("bits", JOINT)
@pytest.mark.parametrize("side", ["activation", "weight"])
def test_joint_experiments_quantize_the_published_sites_from_the_published_step(family, bits, side):
    sites, by = quantizers(f"{family}/a75_{bits}", side), side == "weight"
    assert len(sites) == FAMILIES[family].quantized[by]
    assert {site.timeline.activate for site in sites} == {FAMILIES[family].starts[by]}


@OF_EACH
@pytest.mark.parametrize("bits", JOINT)
@pytest.mark.parametrize("side", ["activation", "weight"])
def test_only_the_layer_that_makes_an_image_stays_at_8_bits(family, bits, side):
    nominal = JOINT[bits][side == "activation"]
    others = {site.site: site.bits for site in quantizers(f"{family}/a75_{bits}", side) if site.bits != nominal}
    generator, end = FAMILIES[family].generator, "input" if side == "activation" else "weight"
    assert others == ({f"{generator}.to_image.{end}": 8} if generator and nominal < 8 else {})


@pytest.mark.parametrize(
    ("family", "site"),
    [
        ("cifar100/densenet121", "transition1.norm.output"),  # pruned there, quantized behind the pooling
        ("cityscapes/frrn_b", "stem.conv.input"),
        ("citysgan/resnet", "generator_ab.stem.conv.input"),
        ("citysgan/unet", "generator.down1.conv.input"),
    ],
)
def test_images_and_the_norms_of_transitions_are_not_quantized(family, site):
    assert site not in names(quantizers(f"{family}/a75_w4a4", "activation"))


@pytest.mark.parametrize("net", ["densenet121", "preactresnet18"])
def test_weights_have_a_range_for_each_channel_and_those_of_the_classifier_one(net):
    rules = read_spec(f"cifar100/{net}/a75_w4a4").quantize
    assert [(rule.sites[0].types, rule.per) for rule in rules[:2]] == [
        (("Conv2d",), "channel"),
        (("Linear",), "tensor"),
    ]


# recipes

RECIPES = {  # stage -> length, batch, learning rate, when it falls
    "cifar100": {
        "baseline": ("200ep", 128, 0.1, ("60ep", "120ep", "160ep")),
        "a75_layerwise": ("75ep", 128, 0.02, ("45ep", "65ep")),
        "a75_w4a4": ("15ep", 128, 0.004, ("5ep",)),
    },
    "cityscapes/unet": {
        "baseline": ("45000it", 16, 0.001, ("35000it",)),
        "a75_layerwise": ("35000it", 7, 0.001, ("20000it",)),
        "a75_w4a4": ("7000it", 7, 0.001, ("2000it",)),
    },
    "cityscapes/frrn_b": {
        "baseline": ("45000it", 3, 0.001, ("35000it",)),
        "a75_layerwise": ("35000it", 3, 0.001, ("20000it",)),
        "a75_w4a4": ("7000it", 3, 0.001, ("2000it",)),
    },
    "citysgan/resnet": {
        "baseline": ("200ep", 1, 2e-4, "100ep"),
        "a75_layerwise": ("100ep", 1, 2e-4, "20ep"),
        "a75_w4a4": ("30ep", 1, 1e-4, "10ep"),
    },
    "citysgan/unet": {
        "baseline": ("200ep", 3, 2e-4, "100ep"),
        "a75_layerwise": ("100ep", 3, 2e-4, "20ep"),
        "a75_w4a4": ("60ep", 3, 1e-4, "20ep"),
    },
}


@OF_EACH
@pytest.mark.parametrize("stage", ["baseline", "a75_layerwise", "a75_w4a4"])
def test_every_stage_is_trained_as_published(family, stage):
    train = read_spec(f"{family}/{stage}").train
    expected = next(stages[stage] for place, stages in RECIPES.items() if family.startswith(place))
    falls = train.lr_schedule.milestones or train.lr_schedule.decay_from
    assert (train.length, train.batch, train.optimizer.lr, falls) == expected
    assert (train.lr_schedule.warmup == "2ep") == (family.startswith("cifar100") and stage == "baseline")


@pytest.mark.parametrize("name", SPECS)
def test_published_experiments_train_on_all_images_with_default_numerics(name):
    spec = read_spec(SPECS[name].path)
    assert (spec.data.validation, spec.data.train_images, spec.numerics) == (0, None, "default")


@OF_EACH
def test_all_experiments_of_a_family_differ_in_rules_and_training_alone(family):
    specs = [read_spec(SPECS[f"{family}/{name}"].path) for name in EXPERIMENTS]
    nets = {(spec.model.arch, str(spec.model.options), spec.data, str(spec.task)) for spec in specs}
    assert len(nets) == 1
    assert [spec.model.width for spec in specs].count(1.0) == 21

"""The specs that come with the library."""

import tomllib

import pytest

import qprune
from qprune.spec import list_specs, read_spec, spec_to_toml

SPECS = {spec.name: spec for spec in list_specs()}
SMALL = [
    f"{data}/{spec}"
    for data in ("camvid", "streets")
    for spec in (
        "unet/baseline", "unet/baseline_half", "unet/baseline_quarter", "unet/a75_layerwise", "unet/a75_oneshot",
        "unet/a75_w4a4", "frrn_b/baseline", "frrn_b/a75_layerwise", "cyclegan/baseline", "cyclegan/a75_layerwise",
    )
]  # fmt: skip
WINNERS = [
    *(f"camvid/unet/{spec}" for spec in ("weighted", "searched", "searched_w4a4")),
    *(f"cifar10/mobilenetv2/{spec}" for spec in ("baseline", "searched", "searched_taught", "searched_long")),
]  # of docs/results.md
CIFAR = ["baseline", "resnet20/baseline", "a75_layerwise", "a75_w4a4", "a75_w4a4_exact"]
DIGITS = [
    "baseline", "baseline_half", "baseline_quarter", "a75_layerwise", "a75_oneshot", "a75_l0_layerwise",
    "w75_layerwise", "w75_stepwise", "a75_w8a8", "a75_w4a8", "a75_w4a4", "a75_w4a4_exact", "a75_w4a4_learned",
    "a75_w8a8_exact", "joint_single_run",
]  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_reads_and_writes(name):
    spec = read_spec(SPECS[name].path)
    assert spec.name == name
    assert read_spec(tomllib.loads(spec_to_toml(spec))) == spec


@pytest.mark.parametrize(
    "name",
    # test_published.py plans those of the published ones that differ in more than a number
    [pytest.param(name, marks=pytest.mark.slow) if SPECS[name].published else name for name in SPECS],
)
def test_every_spec_plans(name):
    assert qprune.plan(SPECS[name].path).steps


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_says_what_it_is_about_in_one_line(name):
    assert 10 < len(SPECS[name].about) < 120


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_starts_from_one_that_is_there(name):
    init = read_spec(SPECS[name].path).init
    assert init is None or init in SPECS


def test_the_specs_for_two_cores_are_there():
    names = {f"digits/{name}" for name in DIGITS} | {f"cifar10/{name}" for name in CIFAR}
    assert names | {*SMALL, *WINNERS} == {name for name in SPECS if not SPECS[name].published}


@pytest.mark.parametrize("name", [name for name in SMALL if "layerwise" in name or "oneshot" in name])
def test_small_networks_are_pruned_within_the_first_40_percent(name):
    plan = qprune.plan(name)
    assert 0 < plan.pruned_by <= 0.4 * plan.steps


@pytest.mark.parametrize("data", ["camvid", "streets"])
def test_small_one_shot_pruning_comes_where_layerwise_ends(data):
    plans = [qprune.plan(f"{data}/unet/a75_{when}") for when in ("layerwise", "oneshot")]
    assert plans[0].pruned_by == plans[1].pruned_by
    assert {site.site for site in plans[0].sites} == {site.site for site in plans[1].sites}


@pytest.mark.parametrize(("name", "divisor"), [("baseline_half", 2), ("baseline_quarter", 4)])
def test_narrow_baselines_are_the_same_net_with_fewer_channels(name, divisor):
    def channels(spec):
        return [(layer.options | {"block": [inner.options for inner in layer.layers]}) for layer in spec.model.layers]

    def narrowed(value):
        if isinstance(value, list):
            return [narrowed(item) for item in value]
        return {
            k: narrowed(v) if k == "block" else v // divisor if k == "out_channels" else v for k, v in value.items()
        }

    assert channels(read_spec(f"digits/{name}")) == narrowed(channels(read_spec("digits/baseline")))


@pytest.mark.parametrize("bits", ["w8a8", "w4a8", "w4a4"])
def test_joint_specs_keep_the_sites_that_were_pruned(bits):
    pruned, joint = read_spec("digits/a75_layerwise"), read_spec(f"digits/a75_{bits}")
    assert [rule.sites for rule in joint.prune] == [rule.sites for rule in pruned.prune]
    assert [f"{rule.bits}" for rule in joint.quantize] == [bits[1], bits[3]]
    assert joint.model == pruned.model

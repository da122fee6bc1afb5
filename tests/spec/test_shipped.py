"""The specs that come with the library."""

import tomllib

import pytest

from qprune.spec import list_specs, read_spec, spec_to_toml

SPECS = {spec.name: spec for spec in list_specs()}
DIGITS = [
    "baseline", "baseline_half", "baseline_quarter", "a75_layerwise", "a75_oneshot", "a75_l0_layerwise",
    "w75_layerwise", "w75_stepwise", "a75_w8a8", "a75_w4a8", "a75_w4a4", "joint_single_run",
]  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_reads_and_writes(name):
    spec = read_spec(SPECS[name].path)
    assert spec.name == name
    assert read_spec(tomllib.loads(spec_to_toml(spec))) == spec


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_says_what_it_is_about_in_one_line(name):
    assert 10 < len(SPECS[name].about) < 120


@pytest.mark.parametrize("name", SPECS)
def test_every_spec_starts_from_one_that_is_there(name):
    init = read_spec(SPECS[name].path).init
    assert init is None or init in SPECS


def test_the_digits_and_cifar10_specs_are_there():
    names = {f"digits/{name}" for name in DIGITS} | {f"cifar10/{n}" for n in ("baseline", "a75_layerwise", "a75_w4a4")}
    assert names <= set(SPECS)


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

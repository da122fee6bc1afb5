import copy
import pickle

import pytest
import torch
from contract import STAGES, Subject, assert_same, run, run_graph_contract, run_layer_contract

import qprune.layers as layers
from qprune.layers import HOSTS
from qprune.schedules import QuantizeFrom, Stepwise

CONV = {
    "plain": ((6, 4, 3), {}),
    "strided": ((5, 4, (3, 2)), {"stride": 2, "padding": (1, 0), "bias": False}),
    "grouped": ((6, 4, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((6, 6, 3), {"groups": 6}),
    "depthwise_multiplied": ((4, 8, 3), {"groups": 4}),
    "dilated": ((5, 4, 3), {"dilation": 2, "padding": 2}),
    "pointwise": ((5, 4, 1), {}),
    "same": ((5, 4, 3), {"padding": "same"}),
}
PADDED = {mode: ((5, 4, 3), {"padding": 1, "padding_mode": mode}) for mode in ("reflect", "replicate", "circular")}
TRANSPOSED = {
    "plain": ((6, 4, 3), {}),
    "strided": ((5, 4, 3), {"stride": 2, "padding": 1, "output_padding": 1, "bias": False}),
    "grouped": ((6, 4, 3), {"groups": 2}),
    "depthwise": ((6, 6, 3), {"groups": 6}),
    "dilated": ((5, 4, 3), {"dilation": 2}),
}
LINEAR = {"plain": ((6, 4), {}), "without_bias": ((5, 3), {"bias": False})}
FORMS = {"Conv2d": CONV | PADDED, "ConvTranspose2d": TRANSPOSED, "Linear": LINEAR}
SCHEDULE = Stepwise(sparsity=0.5, start=2, every=1)
OPTIONS = {
    "Pruned": {
        "input": {"schedule": SCHEDULE},
        "weight": {"at": "weight"},
        "output": {"at": "output", "importance": "activation-l0"},
        "random": {"importance": "random", "multiple_of": 2},
        "taylor": {"importance": "taylor"},
        "taylor_at_output": {"importance": "taylor", "at": "output"},
    },
    "Quant": {
        "default": {"schedule": QuantizeFrom(2), "weight_bits": 4, "act_bits": 3},
        "output": {"at": "output", "weight_bits": None, "act_bits": 4},
        "weight": {"act_bits": None, "weight_bits": 2, "per": "tensor"},
        "paper": {"numerics": "paper", "weight_bits": 4, "act_bits": 4},
        "clipped": {"gradient": "clipped", "weight_bits": 4, "act_bits": 4, "at": "output"},
        "learned": {"range": "learned", "weight_bits": 4, "act_bits": 3},
    },
    "PrunedQuant": {
        "default": {"prune_schedule": SCHEDULE, "quant_schedule": QuantizeFrom(2), "weight_bits": 4, "act_bits": 4},
        "weight": {"at": "weight", "act_at": "output"},
        "output": {"at": "output", "act_at": "output", "act_bits": 4},
        "paper": {"numerics": "paper", "act_bits": 4},
        "clipped": {"gradient": "clipped", "act_bits": 3},
        "learned": {"range": "learned", "act_bits": 4, "act_at": "output"},
    },
}


def cases():
    """Each class with every option once and every form of the dense layer once: the two rows, not their product."""
    for dense, forms in FORMS.items():
        for family, options in OPTIONS.items():
            names, shapes = list(options), list(forms)
            for i in range(max(len(names), len(shapes))):
                name, form = names[i % len(names)], shapes[i % len(shapes)]
                args, kwargs = forms[form]
                yield pytest.param(
                    f"{family}{dense}", args, kwargs | options[name], id=f"{family}{dense}-{name}-{form}"
                )


GRAPH_CASES = {
    "PrunedConv2d": ((6, 4, 3), {"padding": 1, "padding_mode": "circular"}),
    "PrunedConvTranspose2d": ((6, 4, 3), {"at": "output", "importance": "activation-l0"}),
    "PrunedLinear": ((6, 4), {"at": "weight"}),
    "QuantConv2d": ((6, 4, 3), {"groups": 2, "numerics": "paper", "weight_bits": 4, "act_bits": 4}),
    "QuantConvTranspose2d": ((6, 4, 3), {"groups": 2, "weight_bits": 4, "act_bits": 4}),
    "QuantLinear": ((6, 4), {"gradient": "clipped", "weight_bits": 4, "act_bits": 4, "at": "output"}),
    "PrunedQuantConv2d": ((6, 4, 3), {"weight_bits": 4, "act_bits": 4}),
    "PrunedQuantConvTranspose2d": ((6, 4, 3), {"gradient": "clipped", "act_bits": 3}),
    "PrunedQuantLinear": ((6, 4), {"numerics": "paper", "at": "output", "act_at": "output"}),
}
HOST_CASES = {
    "CompressedConv2d": ((6, 4, 3), {"groups": 2}),
    "CompressedConvTranspose2d": ((6, 4, 3), {"groups": 2}),
    "CompressedLinear": ((6, 4), {}),
    "CompressedBatchNorm2d": ((6,), {}),
    "CompressedInstanceNorm2d": ((6,), {"affine": True, "track_running_stats": True}),
    "CompressedReLU": ((), {}),
    "CompressedReLU6": ((), {}),
    "CompressedLeakyReLU": ((0.2,), {}),
    "CompressedAvgPool2d": ((2,), {}),
    "CompressedAdaptiveAvgPool2d": (((2, 3),), {}),
    "CompressedAdd": ((), {}),
    "CompressedConcat": ((), {}),
    "CompressedConv1d": ((6, 4, 3), {"groups": 2}),
    "CompressedConv3d": ((6, 4, 2), {"groups": 2}),
    "CompressedLayerNorm": ((6,), {}),
}
# Hosts that are made alike, of classes of torch alone.
OTHERS = {
    "BatchNorm1d": (6,), "BatchNorm3d": (6,), "InstanceNorm1d": (6,), "InstanceNorm3d": (6,), "GroupNorm": (2, 6),
    "PReLU": (6,), "Hardtanh": (-2, 1), "MaxPool1d": (2,), "MaxPool2d": (2,), "MaxPool3d": (2,), "AvgPool1d": (2,),
    "AvgPool3d": (2,), "LPPool2d": (2, 2), "AdaptiveAvgPool1d": (3,), "AdaptiveAvgPool3d": (2,),
    "AdaptiveMaxPool1d": (3,), "AdaptiveMaxPool2d": (2,), "AdaptiveMaxPool3d": (2,), "Upsample": (None, 2),
    **dict.fromkeys(("Dropout", "Dropout1d", "Dropout2d", "Dropout3d"), (0,)),
    **dict.fromkeys(
        ("SiLU", "GELU", "ELU", "SELU", "CELU", "Mish", "Hardswish", "Hardsigmoid", "Sigmoid", "Tanh", "Softplus",
         "Softsign", "LogSigmoid", "Identity"), (),
    ),
}  # fmt: skip
OTHER_CASES = {f"Compressed{name}": (args, {}) for name, args in OTHERS.items()}
HOST_OF = {host.__name__: host for host in HOSTS.values()}


@pytest.mark.parametrize(("name", "args", "kwargs"), list(cases()))
def test_layer_keeps_the_contract(name, args, kwargs):
    run_layer_contract(getattr(layers, name), *args, **kwargs)


@pytest.mark.parametrize("name", GRAPH_CASES)
def test_compiled_and_exported_layer_equals_eager(name):
    args, kwargs = GRAPH_CASES[name]
    run_graph_contract(getattr(layers, name), *args, **kwargs)


@pytest.mark.parametrize("name", HOST_CASES)
def test_compiled_and_exported_host_equals_eager(name):
    args, kwargs = HOST_CASES[name]
    run_graph_contract(HOST_OF[name], *args, **kwargs)


@pytest.mark.parametrize("name", HOST_CASES | OTHER_CASES)
def test_host_keeps_the_contract(name):
    args, kwargs = (HOST_CASES | OTHER_CASES)[name]
    run_layer_contract(HOST_OF[name], *args, **kwargs)


@pytest.mark.parametrize("name", OTHER_CASES)
def test_host_that_is_made_is_an_ordinary_class(name):
    host = HOST_OF[name](*OTHER_CASES[name][0])
    again = pickle.loads(pickle.dumps(host))
    assert type(again) is getattr(layers.all_hosts, name)
    assert issubclass(type(again), getattr(torch.nn, name.removeprefix("Compressed")))


def test_every_class_is_under_contract():
    made = {name for name in layers.__all__ if name.startswith(("Pruned", "Quant"))}
    assert made == {f"{family}{dense}" for family in OPTIONS for dense in FORMS} == GRAPH_CASES.keys()
    assert {host.__name__ for host in HOSTS.values()} == HOST_CASES.keys() | OTHER_CASES.keys()


@pytest.mark.parametrize("at", ["input", "weight", "output"])
@pytest.mark.parametrize(("dense", "args"), [("Conv2d", (6, 4, 3)), ("ConvTranspose2d", (6, 4, 3)), ("Linear", (6, 4))])
def test_pruned_state_loads_into_joint_layer(dense, args, at):
    pruned = Subject(getattr(layers, f"Pruned{dense}"), args, {"at": at})
    layer, inputs = pruned.at("eval"), pruned.inputs()
    joint = getattr(layers, f"PrunedQuant{dense}")(*args, at=at, weight_bits=4, act_bits=4)
    joint.load_state_dict(layer.state_dict())
    assert torch.equal(joint.eval()(*inputs), layer(*inputs))
    assert repr(joint).count("3/6" if at == "input" else "2/4") == 1


def test_joint_state_does_not_load_into_pruned_layer():
    joint = layers.PrunedQuantConv2d(6, 4, 3)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*weight_quant\.scale"):
        layers.PrunedConv2d(6, 4, 3).load_state_dict(joint.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_inductor_equals_eager_to_tolerance(stage):
    subject = Subject(layers.PrunedQuantConv2d, (6, 4, 3), {"weight_bits": 4, "act_bits": 4})
    torch.manual_seed(0)
    layer, inputs = subject.at(stage), subject.inputs()
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True)
    fast = run(compiled, inputs)
    for name, value in run(layer, inputs).items():
        torch.testing.assert_close(fast[name], value)
    torch._dynamo.reset()


def test_assert_same_notices_a_change():
    with pytest.raises(AssertionError, match="weight"):
        assert_same({"weight": torch.ones(2)}, {"weight": torch.zeros(2)})
